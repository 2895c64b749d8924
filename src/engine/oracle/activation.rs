//! Activations.

use super::Tensor;
use crate::engine::activation::{Activation, SLOPE};

const LEAKY: f64 = SLOPE as f64;

/// LeakyReLU: `y = x` where `x > 0`, else `slope · x`.
pub fn activation_forward(act: Activation, x: &Tensor) -> Tensor {
    match act {
        Activation::LeakyRelu => x.map(|v| if v > 0.0 { v } else { LEAKY * v }),
    }
}

/// LeakyReLU: `dx = dy` where `x > 0`, else `slope · dy` (also at `x = 0`).
pub fn activation_backward(act: Activation, x: &Tensor, dy: &Tensor) -> Tensor {
    let derivative = |v: f64| match act {
        Activation::LeakyRelu => {
            if v > 0.0 {
                1.0
            } else {
                LEAKY
            }
        }
    };
    let gradient = |(&v, &g): (&f64, &f64)| derivative(v) * g;
    Tensor { shape: x.shape, data: x.data.iter().zip(&dy.data).map(gradient).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, dot, tensor};
    use super::*;

    #[test]
    fn gradients_match_central_differences() {
        for act in Activation::ALL {
            let (x, dy) = (tensor(2, 3, [1, 3, 5], 1), tensor(2, 3, [1, 3, 5], 2));
            let dx = activation_backward(act, &x, &dy);
            check_tensor("dx", &x, &dx, |x| dot(&activation_forward(act, x).data, &dy.data));
        }
    }

    #[test]
    fn the_kink_takes_the_slope() {
        let one = tensor(1, 1, [1, 1, 1], 1).map(|_| 1.0);
        let zero = one.map(|_| 0.0);
        let dx = activation_backward(Activation::LeakyRelu, &zero, &one);
        assert_eq!(dx.data, vec![LEAKY]);
    }
}
