//! Dense 3D convolution with bias, any kernel, stride and zero padding.

use super::{Tensor, positions};
use crate::engine::shape::Shape;

/// Kernel, stride and zero padding of a convolution, each in D, H, W order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Kernel extent.
    pub kernel: [usize; 3],
    /// Step between outputs.
    pub stride: [usize; 3],
    /// Zeros before the first value.
    pub pad_lo: [usize; 3],
    /// Zeros after the last value.
    pub pad_hi: [usize; 3],
}

impl Geometry {
    /// A stride-1 convolution that keeps the extent: kernel 1 or 3 on every axis.
    pub fn same(kernel: usize) -> Self {
        let pad = [kernel / 2; 3];
        Self { kernel: [kernel; 3], stride: [1; 3], pad_lo: pad, pad_hi: pad }
    }

    /// Extent of the output; 0 on an axis where the kernel does not fit.
    pub fn output(&self, input: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| {
            let padded = input[a] + self.pad_lo[a] + self.pad_hi[a];
            if padded < self.kernel[a] { 0 } else { (padded - self.kernel[a]) / self.stride[a] + 1 }
        })
    }

    /// The input position that output `out` reads with kernel offset `tap`, if it is not padding.
    fn source(&self, out: [usize; 3], tap: [usize; 3], input: [usize; 3]) -> Option<[usize; 3]> {
        let mut source = [0; 3];
        for a in 0..3 {
            let padded = out[a] * self.stride[a] + tap[a];
            source[a] = padded.checked_sub(self.pad_lo[a])?;
            if source[a] >= input[a] {
                return None;
            }
        }
        Some(source)
    }
}

fn output_shape(x: &Shape, spec: &Geometry, cout: usize) -> Shape {
    let [d, h, w] = spec.output(x.spatial());
    Shape { n: x.n, c: cout, d, h, w }
}

/// Visits (output index, input index, weight index) of every multiply-add.
fn visit(x: &Tensor, y: &Tensor, spec: &Geometry, mut f: impl FnMut(usize, usize, usize)) {
    let (cin, cout) = (x.shape.c, y.shape.c);
    let taps = spec.kernel.iter().product::<usize>();
    for n in 0..x.shape.n {
        for out in positions(y.shape.spatial()) {
            for (t, tap) in positions(spec.kernel).enumerate() {
                let Some(source) = spec.source(out, tap, x.shape.spatial()) else { continue };
                for o in 0..cout {
                    for i in 0..cin {
                        let weight = (o * cin + i) * taps + t;
                        f(y.index(n, o, out), x.index(n, i, source), weight);
                    }
                }
            }
        }
    }
}

/// `y[o] = b[o] + Σ w[o, i, k] · x[i, stride · position + k - pad_lo]`; `w` is (cout, cin, kd, kh, kw).
pub fn conv_forward(x: &Tensor, w: &[f64], b: &[f64], spec: &Geometry, cout: usize) -> Tensor {
    let mut y = Tensor::zeros(output_shape(&x.shape, spec, cout));
    let voxels = y.shape.voxels();
    for (i, value) in y.data.iter_mut().enumerate() {
        *value = b[i / voxels % cout];
    }
    let mut sums = y.data.clone();
    visit(x, &y, spec, |o, i, k| sums[o] += w[k] * x.data[i]);
    y.data = sums;
    y
}

/// Gradients (dx, dw, db) of [`conv_forward`].
pub fn conv_backward(
    x: &Tensor,
    w: &[f64],
    spec: &Geometry,
    dy: &Tensor,
) -> (Tensor, Vec<f64>, Vec<f64>) {
    let mut dx = Tensor::zeros(x.shape);
    let mut dw = vec![0.0; w.len()];
    let mut db = vec![0.0; dy.shape.c];
    visit(x, dy, spec, |o, i, k| {
        dx.data[i] += w[k] * dy.data[o];
        dw[k] += x.data[i] * dy.data[o];
    });
    for (i, g) in dy.data.iter().enumerate() {
        db[i / dy.shape.voxels() % dy.shape.c] += g;
    }
    (dx, dw, db)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_tensor, dot, random, tensor};
    use super::*;

    fn case(n: usize, cin: usize, cout: usize, spatial: [usize; 3], spec: Geometry) {
        let x = tensor(n, cin, spatial, 1);
        let w = random(cout * cin * spec.kernel.iter().product::<usize>(), 2);
        let b = random(cout, 3);
        let y = conv_forward(&x, &w, &b, &spec, cout);
        let dy = Tensor { shape: y.shape, data: random(y.data.len(), 4) };
        let (dx, dw, db) = conv_backward(&x, &w, &spec, &dy);
        let loss = |x: &Tensor, w: &[f64], b: &[f64]| {
            dot(&conv_forward(x, w, b, &spec, cout).data, &dy.data)
        };
        check_tensor("dx", &x, &dx, |x| loss(x, &w, &b));
        check("dw", &w, &dw, |w| loss(&x, w, &b));
        check("db", &b, &db, |b| loss(&x, &w, b));
    }

    #[test]
    fn a_hand_computed_strided_convolution() {
        let shape = Shape::new(1, 1, [1, 1, 4]).unwrap();
        let x = Tensor::new(shape, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let spec =
            Geometry { kernel: [1, 1, 3], stride: [1, 1, 2], pad_lo: [0; 3], pad_hi: [0, 0, 1] };
        let y = conv_forward(&x, &[1.0, 10.0, 100.0], &[0.5], &spec, 1);
        assert_eq!(y.data, vec![321.5, 43.5]);
    }

    #[test]
    fn gradients_match_central_differences() {
        case(2, 3, 2, [3, 4, 5], Geometry::same(3));
        case(1, 5, 3, [1, 3, 2], Geometry::same(1));
        case(1, 1, 2, [1, 1, 1], Geometry::same(3));
    }

    #[test]
    fn gradients_of_strided_and_asymmetric_convolutions() {
        let spec = Geometry { kernel: [3; 3], stride: [2; 3], pad_lo: [0; 3], pad_hi: [1; 3] };
        case(1, 2, 3, [4, 5, 6], spec);
        let mixed = Geometry { stride: [1, 2, 2], pad_lo: [1, 0, 0], ..spec };
        case(2, 2, 1, [3, 5, 4], mixed);
        let odd =
            Geometry { kernel: [1, 2, 3], stride: [3, 1, 2], pad_lo: [0, 2, 0], pad_hi: [1, 0, 3] };
        case(1, 2, 2, [4, 1, 5], odd);
    }
}
