//! LeakyReLU.

use super::Tensor;

/// `y = x` where `x > 0`, else `slope · x`.
pub fn leaky_relu_forward(x: &Tensor, slope: f64) -> Tensor {
    x.map(|v| if v > 0.0 { v } else { slope * v })
}

/// `dx = dy` where `x > 0`, else `slope · dy` (also at `x = 0`).
pub fn leaky_relu_backward(x: &Tensor, slope: f64, dy: &Tensor) -> Tensor {
    let gradient = |(&v, &g): (&f64, &f64)| if v > 0.0 { g } else { slope * g };
    Tensor { shape: x.shape, data: x.data.iter().zip(&dy.data).map(gradient).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, dot, tensor};
    use super::*;

    #[test]
    fn gradient_matches_central_differences() {
        let (x, dy) = (tensor(2, 3, [1, 3, 5], 1), tensor(2, 3, [1, 3, 5], 2));
        let dx = leaky_relu_backward(&x, 0.01, &dy);
        check_tensor("dx", &x, &dx, |x| dot(&leaky_relu_forward(x, 0.01).data, &dy.data));
    }

    #[test]
    fn the_kink_takes_the_slope() {
        let one = tensor(1, 1, [1, 1, 1], 1).map(|_| 1.0);
        let zero = one.map(|_| 0.0);
        assert_eq!(leaky_relu_backward(&zero, 0.01, &one).data, vec![0.01]);
    }
}
