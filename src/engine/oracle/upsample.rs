//! Nearest-neighbour upsampling by a whole factor per axis.

use super::{Tensor, positions};
use crate::engine::shape::Shape;

/// Visits (output index, input index).
fn visit(x: &Tensor, y: &Tensor, factor: [usize; 3], mut f: impl FnMut(usize, usize)) {
    for n in 0..x.shape.n {
        for c in 0..x.shape.c {
            for out in positions(y.shape.spatial()) {
                let source = std::array::from_fn(|a| out[a] / factor[a]);
                f(y.index(n, c, out), x.index(n, c, source));
            }
        }
    }
}

/// `y[position] = x[position / factor]`, factors in D, H, W order.
pub fn upsample_forward(x: &Tensor, factor: [usize; 3]) -> Tensor {
    let s = x.shape;
    let [d, h, w] = [s.d * factor[0], s.h * factor[1], s.w * factor[2]];
    let mut y = Tensor::zeros(Shape { d, h, w, ..s });
    let mut values = vec![0.0; y.data.len()];
    visit(x, &y, factor, |o, i| values[o] = x.data[i]);
    y.data = values;
    y
}

/// Gradient of [`upsample_forward`] for an input of `shape`: the sum over each value's copies.
pub fn upsample_backward(shape: Shape, factor: [usize; 3], dy: &Tensor) -> Tensor {
    let mut dx = Tensor::zeros(shape);
    let mut sums = vec![0.0; dx.data.len()];
    visit(&dx, dy, factor, |o, i| sums[i] += dy.data[o]);
    dx.data = sums;
    dx
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, dot, random, tensor};
    use super::*;

    #[test]
    fn gradient_matches_central_differences() {
        for (spatial, factor) in [([3, 2, 5], [2, 2, 2]), ([1, 3, 1], [1, 2, 3])] {
            let x = tensor(2, 3, spatial, 1);
            let y = upsample_forward(&x, factor);
            let dy = Tensor { shape: y.shape, data: random(y.data.len(), 2) };
            let dx = upsample_backward(x.shape, factor, &dy);
            check_tensor("dx", &x, &dx, |x| dot(&upsample_forward(x, factor).data, &dy.data));
        }
    }

    #[test]
    fn values_repeat() {
        let x = tensor(1, 1, [1, 1, 2], 3);
        let [a, b] = [x.data[0], x.data[1]];
        assert_eq!(upsample_forward(&x, [1, 2, 2]).data, vec![a, a, b, b, a, a, b, b]);
    }
}
