//! Softmax over the channel axis, its gradient, and the most likely class.

use super::Tensor;

/// Visits the start and the stride of each voxel's channel column.
fn columns(x: &Tensor) -> impl Iterator<Item = usize> + use<> {
    let (n, c, voxels) = (x.shape.n, x.shape.c, x.shape.voxels());
    (0..n).flat_map(move |s| (0..voxels).map(move |v| s * c * voxels + v))
}

/// `p[c] = exp(x[c] - max) / Σ exp(x[j] - max)` at each voxel.
pub fn softmax_forward(logits: &Tensor) -> Tensor {
    let (c, voxels) = (logits.shape.c, logits.shape.voxels());
    let mut p = Tensor::zeros(logits.shape);
    for start in columns(logits) {
        let at = |k: usize| logits.data[start + k * voxels];
        let max = (0..c).map(at).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = (0..c).map(|k| (at(k) - max).exp()).sum();
        for k in 0..c {
            p.data[start + k * voxels] = (at(k) - max).exp() / sum;
        }
    }
    p
}

/// `dx[c] = p[c] · (dp[c] - Σ p[j] · dp[j])`, from the probabilities.
pub fn softmax_backward(p: &Tensor, dp: &Tensor) -> Tensor {
    let (c, voxels) = (p.shape.c, p.shape.voxels());
    let mut dx = Tensor::zeros(p.shape);
    for start in columns(p) {
        let index = |k: usize| start + k * voxels;
        let dot: f64 = (0..c).map(|k| p.data[index(k)] * dp.data[index(k)]).sum();
        for k in 0..c {
            dx.data[index(k)] = p.data[index(k)] * (dp.data[index(k)] - dot);
        }
    }
    dx
}

/// The class of the largest value at each voxel, the lowest of equals; (N, D, H, W).
pub fn argmax(logits: &Tensor) -> Vec<u8> {
    let (c, voxels) = (logits.shape.c, logits.shape.voxels());
    let largest = |start: usize| {
        let at = |k: usize| logits.data[start + k * voxels];
        (1..c).fold(0, |best, k| if at(k) > at(best) { k } else { best }) as u8
    };
    columns(logits).map(largest).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, dot, tensor};
    use super::*;

    #[test]
    fn gradient_matches_central_differences() {
        for classes in [1, 2, 5] {
            let (x, dp) = (tensor(2, classes, [1, 3, 2], 1), tensor(2, classes, [1, 3, 2], 2));
            let dx = softmax_backward(&softmax_forward(&x), &dp);
            check_tensor("dx", &x, &dx, |x| dot(&softmax_forward(x).data, &dp.data));
        }
    }

    #[test]
    fn large_logits_do_not_overflow_and_ties_take_the_lowest_class() {
        let x = tensor(1, 3, [1, 1, 1], 1);
        let p = softmax_forward(&x.map(|v| 1000.0 * v));
        assert!((p.data.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(argmax(&x.map(|_| 2.0)), vec![0]);
        let best = argmax(&x)[0] as usize;
        assert!(x.data.iter().all(|&v| v <= x.data[best]));
    }
}
