//! Losses with their gradients to the logits. Labels are (N, D, H, W), one class index a voxel.
//!
//! A voxel whose label is no class (`label >= classes`) is left out of every loss, also of the divisor of its mean; where all
//! are, the losses are 0. Lovász-softmax can leave out the voxels of one class more.

use super::{Tensor, softmax_backward, softmax_forward};

/// The addend that keeps soft Dice defined for empty classes.
pub const DICE_SMOOTH: f64 = 1e-5;

/// Calls `f(first index of the voxel's column, voxel index in the batch)`.
fn each_voxel(x: &Tensor, mut f: impl FnMut(usize, usize)) {
    let (c, voxels) = (x.shape.c, x.shape.voxels());
    for n in 0..x.shape.n {
        for v in 0..voxels {
            f(n * c * voxels + v, n * voxels + v);
        }
    }
}

/// Voxels that hold a class, at least 1.
fn counted(labels: &[u8], classes: usize) -> f64 {
    labels.iter().filter(|label| usize::from(**label) < classes).count().max(1) as f64
}

/// Mean over counted voxels of `(1 - p_t)^gamma · -log p_t`, the factor held constant in the gradient.
fn weighted_entropy(logits: &Tensor, labels: &[u8], gamma: i32) -> (f64, Tensor) {
    let p = softmax_forward(logits);
    let (classes, voxels) = (p.shape.c, p.shape.voxels());
    let count = counted(labels, classes);
    let mut loss = 0.0;
    let mut gradient = Tensor::zeros(p.shape);
    each_voxel(logits, |start, v| {
        let label = usize::from(labels[v]);
        if label >= classes {
            return;
        }
        let column: Vec<f64> = (0..classes).map(|k| logits.data[start + k * voxels]).collect();
        let max = column.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
        let log_sum = column.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max;
        let factor = (1.0 - p.data[start + label * voxels]).powi(gamma);
        loss += factor * (log_sum - column[label]) / count;
        for k in 0..classes {
            let target = if k == label { 1.0 } else { 0.0 };
            let i = start + k * voxels;
            gradient.data[i] = factor * (p.data[i] - target) / count;
        }
    });
    (loss, gradient)
}

/// Cross-entropy: mean over counted voxels of `-log p_t`, with its gradient to the logits.
pub fn cross_entropy(logits: &Tensor, labels: &[u8]) -> (f64, Tensor) {
    weighted_entropy(logits, labels, 0)
}

/// Focal loss, gamma 2: mean over counted voxels of `(1 - p_t)² · -log p_t`. The gradient takes the factor for a constant, as the
/// published network does.
pub fn focal(logits: &Tensor, labels: &[u8]) -> (f64, Tensor) {
    weighted_entropy(logits, labels, 2)
}

/// Growth of the Jaccard loss at each position of the errors sorted from the largest, given which of them are foreground.
pub fn lovasz_extension(foreground: &[bool]) -> Vec<f64> {
    let total = foreground.iter().filter(|&&f| f).count() as f64;
    let (mut seen, mut previous) = (0.0, 0.0);
    foreground
        .iter()
        .enumerate()
        .map(|(i, &f)| {
            seen += if f { 1.0 } else { 0.0 };
            let jaccard = 1.0 - (total - seen) / (total + (i + 1) as f64 - seen);
            let growth = jaccard - previous;
            previous = jaccard;
            growth
        })
        .collect()
}

/// Lovász-softmax: the mean over all classes, absent ones too, of the Lovász extension of the Jaccard loss at the errors
/// `|foreground - p|`, all voxels of the batch together. Voxels labelled `ignore` or no class are left out; ties go by voxel index.
pub fn lovasz_softmax(logits: &Tensor, labels: &[u8], ignore: Option<u8>) -> (f64, Tensor) {
    let p = softmax_forward(logits);
    let (classes, voxels) = (p.shape.c, p.shape.voxels());
    let mut dp = Tensor::zeros(p.shape);
    let mut loss = 0.0;
    for k in 0..classes {
        let mut entries = Vec::new();
        each_voxel(&p, |start, v| {
            if Some(labels[v]) != ignore && usize::from(labels[v]) < classes {
                let index = start + k * voxels;
                let foreground = usize::from(labels[v]) == k;
                let target = if foreground { 1.0 } else { 0.0 };
                entries.push((target - p.data[index], foreground, index));
            }
        });
        entries.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
        let foreground: Vec<bool> = entries.iter().map(|e| e.1).collect();
        for (growth, (error, _, index)) in lovasz_extension(&foreground).into_iter().zip(entries) {
            loss += error.abs() * growth / classes as f64;
            // d|error|/dp: error = target - p; the derivative at 0 is 0.
            let sign = if error == 0.0 { 0.0 } else { -error.signum() };
            dp.data[index] = sign * growth / classes as f64;
        }
    }
    (loss, softmax_backward(&p, &dp))
}

/// Soft Dice over the batch: `1 - mean over classes of (2 Σ p t + s) / (Σ p + Σ t + s)`, s = [`DICE_SMOOTH`]. Without
/// the background, class 0 is left out; where no class is left, the loss is 0.
pub fn soft_dice(logits: &Tensor, labels: &[u8], include_background: bool) -> (f64, Tensor) {
    let p = softmax_forward(logits);
    let (classes, voxels) = (p.shape.c, p.shape.voxels());
    let first = if include_background { 0 } else { 1 };
    let count = (classes - first) as f64;
    let mut loss = if classes > first { 1.0 } else { 0.0 };
    let mut dp = Tensor::zeros(p.shape);
    for k in first..classes {
        let (mut both, mut either) = (0.0, 0.0);
        each_voxel(&p, |start, v| {
            let label = usize::from(labels[v]);
            if label < classes {
                let target = if label == k { 1.0 } else { 0.0 };
                let value = p.data[start + k * voxels];
                both += value * target;
                either += value + target;
            }
        });
        let (numerator, denominator) = (2.0 * both + DICE_SMOOTH, either + DICE_SMOOTH);
        loss -= numerator / denominator / count;
        each_voxel(&p, |start, v| {
            let label = usize::from(labels[v]);
            if label < classes {
                let target = if label == k { 1.0 } else { 0.0 };
                dp.data[start + k * voxels] =
                    (numerator / denominator - 2.0 * target) / denominator / count;
            }
        });
    }
    (loss, softmax_backward(&p, &dp))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, labels, tensor};
    use super::*;

    /// Logits and labels, some of them ignored or no class.
    fn cases() -> Vec<(Tensor, Vec<u8>)> {
        let mut cases = Vec::new();
        for (n, classes, spatial) in
            [(2, 3, [3, 1, 5]), (1, 2, [1, 1, 7]), (1, 5, [2, 3, 3]), (1, 2, [1, 1, 1])]
        {
            let x = tensor(n, classes, spatial, 11).map(|v| 2.0 * v);
            let count = n * x.shape.voxels();
            cases.push((x.clone(), labels(count, classes as u8, 12)));
            // The last class is absent, and some voxels are ignored.
            let mut holes = labels(count, classes as u8 - 1, 13);
            holes.iter_mut().step_by(4).skip(1).for_each(|l| *l = 10);
            cases.push((x, holes));
        }
        cases
    }

    #[test]
    fn cross_entropy_gradient_matches_central_differences() {
        for (x, t) in cases() {
            check_tensor("ce", &x, &cross_entropy(&x, &t).1, |x| cross_entropy(x, &t).0);
        }
    }

    #[test]
    fn focal_gradient_matches_differences_with_a_frozen_factor() {
        for (x, t) in cases() {
            let frozen = softmax_forward(&x);
            let (classes, voxels) = (x.shape.c, x.shape.voxels());
            let loss = |x: &Tensor| {
                let p = softmax_forward(x);
                let mut sum = 0.0;
                each_voxel(x, |start, v| {
                    if usize::from(t[v]) < classes {
                        let i = start + usize::from(t[v]) * voxels;
                        sum -= (1.0 - frozen.data[i]).powi(2) * p.data[i].ln();
                    }
                });
                sum / counted(&t, classes)
            };
            let (value, gradient) = focal(&x, &t);
            assert!((value - loss(&x)).abs() < 1e-12);
            check_tensor("focal", &x, &gradient, loss);
        }
    }

    #[test]
    fn lovasz_gradient_matches_central_differences() {
        for (x, t) in cases() {
            let (_, gradient) = lovasz_softmax(&x, &t, Some(10));
            check_tensor("lovasz", &x, &gradient, |x| lovasz_softmax(x, &t, Some(10)).0);
        }
    }

    #[test]
    fn dice_gradient_matches_central_differences() {
        for (x, t) in cases() {
            for background in [false, true] {
                let (_, gradient) = soft_dice(&x, &t, background);
                check_tensor("dice", &x, &gradient, |x| soft_dice(x, &t, background).0);
            }
        }
    }

    #[test]
    fn lovasz_of_a_hard_prediction_is_the_jaccard_loss() {
        let mut x = tensor(1, 2, [1, 1, 6], 1);
        let (truth, guess) = ([1u8, 1, 1, 0, 0, 0], [1usize, 1, 0, 1, 0, 0]);
        x.data.fill(-60.0);
        for (v, &k) in guess.iter().enumerate() {
            x.data[k * 6 + v] = 60.0;
        }
        let (loss, _) = lovasz_softmax(&x, &truth, None);
        // Both classes: 2 of 4 in the intersection over the union.
        assert!((loss - 0.5).abs() < 1e-12, "{loss}");
        assert_eq!(lovasz_softmax(&x, &[10; 6], Some(10)).0, 0.0);
    }

    #[test]
    fn the_extension_grows_by_the_closed_form() {
        let foreground = [false, true, true, false, true, false];
        let growth = lovasz_extension(&foreground);
        let (total, mut seen) = (3.0, 0.0);
        for (i, &f) in foreground.iter().enumerate() {
            seen += f64::from(u8::from(f));
            let (inter, union) = (total - seen, total + (i + 1) as f64 - seen);
            let expected = match (i, f) {
                (0, _) => 1.0 - inter / union,
                (_, true) => 1.0 / union,
                _ => inter / (union * (union - 1.0)),
            };
            assert!((growth[i] - expected).abs() < 1e-12);
        }
    }
}
