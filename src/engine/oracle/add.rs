//! Elementwise addition of two tensors of one shape.

use super::Tensor;

/// `y = a + b`.
pub fn add_forward(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor { shape: a.shape, data: a.data.iter().zip(&b.data).map(|(x, y)| x + y).collect() }
}

/// Gradients (da, db) of [`add_forward`]: both are `dy`.
pub fn add_backward(dy: &Tensor) -> (Tensor, Tensor) {
    (dy.clone(), dy.clone())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, dot, tensor};
    use super::*;

    #[test]
    fn gradients_match_central_differences() {
        let [a, b, dy] = [1, 2, 3].map(|seed| tensor(1, 3, [1, 2, 5], seed));
        let (da, db) = add_backward(&dy);
        check_tensor("da", &a, &da, |a| dot(&add_forward(a, &b).data, &dy.data));
        check_tensor("db", &b, &db, |b| dot(&add_forward(&a, b).data, &dy.data));
    }
}
