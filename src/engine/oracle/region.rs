//! Losses of regions that may overlap: each output channel is a sigmoid of its own.

use super::Tensor;
use super::losses::DICE_SMOOTH;

/// What the voxels of a batch say of regions.
#[derive(Debug, Clone, Copy)]
pub struct RegionLabels<'a> {
    /// (N, D, H, W), one label index a voxel; one beyond the table is ignored.
    pub labels: &'a [u8],
    /// Bits of the regions that each label index belongs to.
    pub table: &'a [u32],
    /// For each sample bits of the regions that are not labelled in it, or nothing.
    pub unlabelled: &'a [[u32; 8]],
}

impl RegionLabels<'_> {
    /// Whether a voxel lies in a region; none where that is not known.
    fn target(&self, n: usize, voxel: usize, region: usize) -> Option<f64> {
        if self.unlabelled.get(n).is_some_and(|words| words[region / 32] >> (region % 32) & 1 == 1)
        {
            return None;
        }
        let bits = self.table.get(usize::from(self.labels[voxel]))?;
        Some(f64::from(bits >> region & 1))
    }

    /// Index in the tensor, region and target of every counted pair of voxel and region.
    fn pairs(&self, x: &Tensor) -> Vec<(usize, usize, f64)> {
        let (regions, voxels) = (x.shape.c, x.shape.voxels());
        let mut pairs = Vec::new();
        for n in 0..x.shape.n {
            for r in 0..regions {
                for v in 0..voxels {
                    if let Some(t) = self.target(n, n * voxels + v, r) {
                        pairs.push(((n * regions + r) * voxels + v, r, t));
                    }
                }
            }
        }
        pairs
    }
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// Binary cross-entropy: mean over counted pairs of voxel and region of `max(x, 0) - x t + log(1 + exp(-|x|))`, with its
/// gradient to the logits; 0 where no pair counts.
pub fn binary_cross_entropy(logits: &Tensor, truth: &RegionLabels<'_>) -> (f64, Tensor) {
    let pairs = truth.pairs(logits);
    let count = pairs.len().max(1) as f64;
    let mut loss = 0.0;
    let mut gradient = Tensor::zeros(logits.shape);
    for (i, _, t) in pairs {
        let x = logits.data[i];
        loss += (x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()) / count;
        gradient.data[i] = (sigmoid(x) - t) / count;
    }
    (loss, gradient)
}

/// Soft Dice of regions: `1 - mean over regions of (2 Σ p t + s) / (Σ p + Σ t + s)` over the counted voxels of the batch,
/// p = sigmoid, s = [`DICE_SMOOTH`].
pub fn region_dice(logits: &Tensor, truth: &RegionLabels<'_>) -> (f64, Tensor) {
    let regions = logits.shape.c;
    let pairs = truth.pairs(logits);
    let (mut both, mut either) = (vec![0.0; regions], vec![0.0; regions]);
    for (i, r, t) in &pairs {
        let p = sigmoid(logits.data[*i]);
        both[*r] += p * t;
        either[*r] += p + t;
    }
    let ratio = |r: usize| (2.0 * both[r] + DICE_SMOOTH) / (either[r] + DICE_SMOOTH);
    let share = 1.0 / regions as f64;
    let loss = 1.0 - (0..regions).map(ratio).sum::<f64>() * share;
    let mut gradient = Tensor::zeros(logits.shape);
    for (i, r, t) in pairs {
        let p = sigmoid(logits.data[i]);
        gradient.data[i] = (ratio(r) - 2.0 * t) / (either[r] + DICE_SMOOTH) * share * p * (1.0 - p);
    }
    (loss, gradient)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_tensor, labels, tensor};
    use super::*;

    /// Three regions, one within another and one across both.
    const TABLE: [u32; 4] = [0b000, 0b001, 0b011, 0b110];

    fn cases() -> Vec<(Tensor, Vec<u8>, Vec<[u32; 8]>)> {
        let x = tensor(2, 3, [3, 1, 5], 3).map(|v| 3.0 * v);
        let t = labels(30, 4, 4);
        let mut holes = t.clone();
        holes.iter_mut().step_by(4).for_each(|l| *l = 255);
        let mut masked = [[0; 8]; 2];
        masked[1][0] = 0b010;
        vec![
            (x.clone(), t.clone(), Vec::new()),
            (x.clone(), holes.clone(), Vec::new()),
            (x.clone(), holes, masked.to_vec()),
            (x.clone(), t.clone(), vec![[2, 0, 0, 0, 0, 0, 0, 0]; 2]),
            (x, vec![255; 30], Vec::new()),
        ]
    }

    #[test]
    fn gradients_match_central_differences() {
        for (x, labels, unlabelled) in cases() {
            let truth = RegionLabels { labels: &labels, table: &TABLE, unlabelled: &unlabelled };
            for loss in [binary_cross_entropy, region_dice] {
                check_tensor("regions", &x, &loss(&x, &truth).1, |x| loss(x, &truth).0);
            }
        }
    }

    #[test]
    fn what_is_not_known_counts_for_nothing() {
        for (x, labels, unlabelled) in cases() {
            let truth = RegionLabels { labels: &labels, table: &TABLE, unlabelled: &unlabelled };
            let mut other = x.clone();
            for (i, value) in other.data.iter_mut().enumerate() {
                let (n, r, v) = (i / 45, i / 15 % 3, i % 15);
                if truth.target(n, n * 15 + v, r).is_none() {
                    *value += 5.0;
                }
            }
            for loss in [binary_cross_entropy, region_dice] {
                assert_eq!(loss(&x, &truth), loss(&other, &truth));
            }
        }
        let (x, labels, _) = cases().pop().unwrap();
        let truth = RegionLabels { labels: &labels, table: &TABLE, unlabelled: &[] };
        assert_eq!(binary_cross_entropy(&x, &truth).0, 0.0);
        assert!(region_dice(&x, &truth).0.abs() < 1e-12);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let x = tensor(1, 1, [1, 1, 8], 1).map(|v| 1000.0 * v.signum());
        let truth = RegionLabels { labels: &[1; 8], table: &[0, 1], unlabelled: &[] };
        let (loss, gradient) = binary_cross_entropy(&x, &truth);
        let wrong = x.data.iter().filter(|v| **v < 0.0).count() as f64;
        assert!((loss - 125.0 * wrong).abs() < 1e-9, "{loss}");
        assert!(gradient.data.iter().all(|v| v.is_finite()));
    }
}
