//! Depthwise 3×3×3 convolution with bias, padding 1, stride 1.

use super::{Tensor, positions};

const TAPS: usize = 27;

/// Visits (output index, input index, weight index) of every multiply-add.
fn visit(x: &Tensor, mut f: impl FnMut(usize, usize, usize)) {
    let extent = x.shape.spatial();
    for n in 0..x.shape.n {
        for c in 0..x.shape.c {
            for out in positions(extent) {
                for (t, tap) in positions([3; 3]).enumerate() {
                    let padded: [usize; 3] = std::array::from_fn(|a| out[a] + tap[a]);
                    if (0..3).any(|a| padded[a] == 0 || padded[a] > extent[a]) {
                        continue;
                    }
                    let source = padded.map(|v| v - 1);
                    f(x.index(n, c, out), x.index(n, c, source), c * TAPS + t);
                }
            }
        }
    }
}

/// `y[c] = b[c] + Σ w[c, k] · x[c, position + k - 1]`; `w` is (channels, 3, 3, 3).
pub fn depthwise_forward(x: &Tensor, w: &[f64], b: &[f64]) -> Tensor {
    let mut y = Tensor::zeros(x.shape);
    let voxels = x.shape.voxels();
    for (i, value) in y.data.iter_mut().enumerate() {
        *value = b[i / voxels % x.shape.c];
    }
    visit(x, |o, i, k| y.data[o] += w[k] * x.data[i]);
    y
}

/// Gradients (dx, dw, db) of [`depthwise_forward`].
pub fn depthwise_backward(x: &Tensor, w: &[f64], dy: &Tensor) -> (Tensor, Vec<f64>, Vec<f64>) {
    let mut dx = Tensor::zeros(x.shape);
    let mut dw = vec![0.0; w.len()];
    let mut db = vec![0.0; x.shape.c];
    visit(x, |o, i, k| {
        dx.data[i] += w[k] * dy.data[o];
        dw[k] += x.data[i] * dy.data[o];
    });
    for (i, g) in dy.data.iter().enumerate() {
        db[i / x.shape.voxels() % x.shape.c] += g;
    }
    (dx, dw, db)
}

#[cfg(test)]
mod tests {
    use super::super::conv::{Geometry, conv_backward, conv_forward};
    use super::super::testing::{check, check_tensor, dot, random, tensor};
    use super::*;

    #[test]
    fn one_channel_equals_the_dense_convolution() {
        let x = tensor(2, 1, [3, 5, 4], 1);
        let (w, b) = (random(TAPS, 2), random(1, 3));
        let dense = conv_forward(&x, &w, &b, &Geometry::same(3), 1);
        assert_eq!(depthwise_forward(&x, &w, &b), dense);
        let (dx, dw, db) = depthwise_backward(&x, &w, &dense);
        assert_eq!((dx, dw, db), conv_backward(&x, &w, &Geometry::same(3), &dense));
    }

    #[test]
    fn gradients_match_central_differences() {
        for (n, c, spatial) in [(2, 3, [3, 4, 5]), (1, 5, [1, 3, 2]), (1, 2, [1, 1, 1])] {
            let x = tensor(n, c, spatial, 5);
            let (w, b) = (random(c * TAPS, 6), random(c, 7));
            let dy = tensor(n, c, spatial, 8);
            let (dx, dw, db) = depthwise_backward(&x, &w, &dy);
            let loss =
                |x: &Tensor, w: &[f64], b: &[f64]| dot(&depthwise_forward(x, w, b).data, &dy.data);
            check_tensor("dx", &x, &dx, |x| loss(x, &w, &b));
            check("dw", &w, &dw, |w| loss(&x, w, &b));
            check("db", &b, &db, |b| loss(&x, &w, b));
        }
    }
}
