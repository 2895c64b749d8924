//! Central differences and random values for the tests of the oracles.

use super::Tensor;
use crate::engine::shape::Shape;

/// Uniform values in -1..1 from a small generator.
pub fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

/// A random tensor.
pub fn tensor(n: usize, c: usize, spatial: [usize; 3], seed: u64) -> Tensor {
    let shape = Shape::new(n, c, spatial).unwrap();
    Tensor { shape, data: random(shape.elements(), seed) }
}

/// Random labels below `classes`.
pub fn labels(count: usize, classes: u8, seed: u64) -> Vec<u8> {
    random(count, seed).iter().map(|v| ((v + 1.0) / 2.0 * f64::from(classes)) as u8).collect()
}

/// The inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Compares `analytic` with the central differences of `f` at `x`.
pub fn check(name: &str, x: &[f64], analytic: &[f64], f: impl Fn(&[f64]) -> f64) {
    assert_eq!(x.len(), analytic.len(), "{name}: length");
    let step = 1e-5;
    let mut moved = x.to_vec();
    let scale = analytic.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for i in 0..x.len() {
        moved[i] = x[i] + step;
        let up = f(&moved);
        moved[i] = x[i] - step;
        let down = f(&moved);
        moved[i] = x[i];
        let numeric = (up - down) / (2.0 * step);
        let error = (numeric - analytic[i]).abs() / scale;
        assert!(error < 1e-6, "{name}[{i}]: numeric {numeric}, analytic {}", analytic[i]);
    }
}

/// [`check`] of a whole tensor argument.
pub fn check_tensor(name: &str, x: &Tensor, analytic: &Tensor, f: impl Fn(&Tensor) -> f64) {
    assert_eq!(x.shape, analytic.shape, "{name}: shape");
    check(name, &x.data, &analytic.data, |data| f(&Tensor { shape: x.shape, data: data.to_vec() }));
}
