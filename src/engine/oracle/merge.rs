//! Classes that a sample does not label, merged into its background.

use super::Tensor;

/// What the logit of a class that is merged becomes: its probability is then exactly 0.
const LOW: f64 = -1e30;

/// Whether class `k` is background or not labelled in sample `n`.
fn merged(unlabelled: &[[u32; 8]], n: usize, k: usize) -> bool {
    k == 0 || unlabelled[n][k / 32] >> (k % 32) & 1 == 1
}

/// Calls `f(first index of the voxel's column, the merged classes, log of the sum of their exponentials)` for each voxel.
fn each_voxel(x: &Tensor, unlabelled: &[[u32; 8]], mut f: impl FnMut(usize, &[usize], f64)) {
    let (classes, voxels) = (x.shape.c, x.shape.voxels());
    for n in 0..x.shape.n {
        let group: Vec<usize> = (0..classes).filter(|&k| merged(unlabelled, n, k)).collect();
        for v in 0..voxels {
            let start = n * classes * voxels + v;
            let at = |k: &usize| x.data[start + k * voxels];
            let max = group.iter().map(at).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = group.iter().map(|k| (at(k) - max).exp()).sum();
            f(start, &group, max + sum.ln());
        }
    }
}

/// `y[0] = log(exp x[0] + Σ exp x[u])` over the unlabelled classes u of the sample, `y[u]` so low that its probability is 0, the
/// others as they are. Bit `k % 32` of word `k / 32` of a sample says that it does not label class k.
pub fn merge_forward(logits: &Tensor, unlabelled: &[[u32; 8]]) -> Tensor {
    let mut y = logits.clone();
    let voxels = logits.shape.voxels();
    each_voxel(logits, unlabelled, |start, group, sum| {
        group.iter().for_each(|k| y.data[start + k * voxels] = LOW);
        y.data[start] = sum;
    });
    y
}

/// `dx[j] = dy[0] · exp(x[j] - y[0])` of background and unlabelled classes, `dy[j]` of the others.
pub fn merge_backward(logits: &Tensor, unlabelled: &[[u32; 8]], dy: &Tensor) -> Tensor {
    let mut dx = dy.clone();
    let voxels = logits.shape.voxels();
    each_voxel(logits, unlabelled, |start, group, sum| {
        for k in group {
            let i = start + k * voxels;
            dx.data[i] = dy.data[start] * (logits.data[i] - sum).exp();
        }
    });
    dx
}

#[cfg(test)]
mod tests {
    use super::super::losses::{DICE_SMOOTH, lovasz_extension};
    use super::super::testing::{check_tensor, dot, labels, tensor};
    use super::super::{
        cross_entropy, focal, lovasz_softmax, soft_dice, softmax_backward, softmax_forward,
    };
    use super::*;

    type Loss = fn(&Tensor, &[u8]) -> (f64, Tensor);

    /// Two samples of four classes that label different ones, some voxels ignored; class 3 is labelled in none.
    fn case() -> (Tensor, Vec<u8>, Vec<[u32; 8]>) {
        let x = tensor(2, 4, [2, 3, 3], 5).map(|v| 2.0 * v);
        let mut t = labels(36, 3, 6);
        t[18..].iter_mut().filter(|l| **l == 1).for_each(|l| *l = 2);
        t[..18].iter_mut().filter(|l| **l == 2).for_each(|l| *l = 1);
        t.iter_mut().step_by(5).for_each(|l| *l = 255);
        (x, t, vec![[0b1100, 0, 0, 0, 0, 0, 0, 0], [0b1010, 0, 0, 0, 0, 0, 0, 0]])
    }

    /// Probabilities with those of unlabelled classes added to the background's.
    fn probabilities(x: &Tensor, unlabelled: &[[u32; 8]]) -> Tensor {
        let mut p = softmax_forward(x);
        let (classes, voxels) = (x.shape.c, x.shape.voxels());
        for i in 0..x.shape.n * voxels {
            let (n, start) = (i / voxels, i / voxels * classes * voxels + i % voxels);
            for k in (1..classes).filter(|&k| merged(unlabelled, n, k)) {
                p.data[start] += p.data[start + k * voxels];
                p.data[start + k * voxels] = 0.0;
            }
        }
        p
    }

    /// The gradient to the logits from that to merged probabilities.
    fn chain(x: &Tensor, unlabelled: &[[u32; 8]], dp: &Tensor) -> Tensor {
        let mut own = dp.clone();
        let (classes, voxels) = (x.shape.c, x.shape.voxels());
        for i in 0..x.shape.n * voxels {
            let (n, start) = (i / voxels, i / voxels * classes * voxels + i % voxels);
            for k in (1..classes).filter(|&k| merged(unlabelled, n, k)) {
                own.data[start + k * voxels] = dp.data[start];
            }
        }
        softmax_backward(&softmax_forward(x), &own)
    }

    /// A loss of probabilities and its gradient to them: sums over voxels of (weight, -log p).
    fn entropy_of(p: &Tensor, t: &[u8], gamma: i32) -> (f64, Tensor) {
        let (classes, voxels) = (p.shape.c, p.shape.voxels());
        let kept: Vec<usize> = (0..t.len()).filter(|v| usize::from(t[*v]) < classes).collect();
        let mut dp = Tensor::zeros(p.shape);
        let mut loss = 0.0;
        for v in &kept {
            let i = (v / voxels * classes + usize::from(t[*v])) * voxels + v % voxels;
            let factor = (1.0 - p.data[i]).powi(gamma) / kept.len() as f64;
            loss -= factor * p.data[i].ln();
            dp.data[i] = -factor / p.data[i];
        }
        (loss, dp)
    }

    fn overlap_of(p: &Tensor, t: &[u8]) -> (f64, Tensor) {
        let (classes, voxels) = (p.shape.c, p.shape.voxels());
        let mut dp = Tensor::zeros(p.shape);
        let mut loss = 0.0;
        for k in 1..classes {
            let of = |v: usize| (v / voxels * classes + k) * voxels + v % voxels;
            let hit = |v: usize| if usize::from(t[v]) == k { 1.0 } else { 0.0 };
            let kept: Vec<usize> = (0..t.len()).filter(|v| usize::from(t[*v]) < classes).collect();
            let both: f64 = kept.iter().map(|v| 2.0 * p.data[of(*v)] * hit(*v)).sum();
            let either: f64 = kept.iter().map(|v| p.data[of(*v)] + hit(*v)).sum();
            let (above, below) = (both + DICE_SMOOTH, either + DICE_SMOOTH);
            loss += (1.0 - above / below) / (classes - 1) as f64;
            for v in kept {
                let slope = (above - 2.0 * hit(v) * below) / (below * below);
                dp.data[of(v)] = slope / (classes - 1) as f64;
            }
        }
        (loss, dp)
    }

    fn jaccard_of(p: &Tensor, t: &[u8]) -> (f64, Tensor) {
        let (classes, voxels) = (p.shape.c, p.shape.voxels());
        let mut dp = Tensor::zeros(p.shape);
        let mut loss = 0.0;
        for k in 0..classes {
            let of = |v: usize| (v / voxels * classes + k) * voxels + v % voxels;
            let kept = (0..t.len()).filter(|v| usize::from(t[*v]) < classes);
            let mut errors: Vec<(f64, bool, usize)> = kept
                .map(|v| {
                    let hit = usize::from(t[v]) == k;
                    (if hit { 1.0 - p.data[of(v)] } else { p.data[of(v)] }, hit, of(v))
                })
                .collect();
            errors.sort_by(|a, b| b.0.total_cmp(&a.0));
            let hits: Vec<bool> = errors.iter().map(|e| e.1).collect();
            for (growth, (error, hit, i)) in lovasz_extension(&hits).into_iter().zip(errors) {
                let share = growth / classes as f64;
                loss += error * share;
                dp.data[i] = if hit { -share } else { share };
            }
        }
        (loss, dp)
    }

    #[test]
    fn merging_before_a_loss_is_the_loss_of_merged_probabilities() {
        let (x, t, unlabelled) = case();
        let pairs: [(&str, Loss, Loss); 4] = [
            ("cross-entropy", cross_entropy, |p, t| entropy_of(p, t, 0)),
            ("focal", focal, |p, t| entropy_of(p, t, 2)),
            ("Dice", |x, t| soft_dice(x, t, false), overlap_of),
            ("Lovász", |x, t| lovasz_softmax(x, t, None), jaccard_of),
        ];
        for (name, loss, direct) in pairs {
            let y = merge_forward(&x, &unlabelled);
            let (value, dy) = loss(&y, &t);
            let dx = merge_backward(&x, &unlabelled, &dy);
            let (expected, dp) = direct(&probabilities(&x, &unlabelled), &t);
            assert!((value - expected).abs() < 1e-12, "{name}: {value} {expected}");
            let chained = chain(&x, &unlabelled, &dp);
            for (found, expected) in dx.data.iter().zip(&chained.data) {
                assert!((found - expected).abs() < 1e-12, "{name}: {found} {expected}");
            }
            // the focal loss holds its factor constant
            if name != "focal" {
                check_tensor(name, &x, &dx, |x| direct(&probabilities(x, &unlabelled), &t).0);
            }
        }
    }

    #[test]
    fn gradient_matches_central_differences() {
        let (x, _, unlabelled) = case();
        let y = merge_forward(&x, &unlabelled);
        // what was made very low has no gradient
        let dy = tensor(2, 4, [2, 3, 3], 9);
        let kept = |y: &Tensor| y.map(|v| if v == LOW { 0.0 } else { v });
        let dx = merge_backward(&x, &unlabelled, &dy);
        check_tensor("merge", &x, &dx, |x| {
            dot(&kept(&merge_forward(x, &unlabelled)).data, &dy.data)
        });
        let p = softmax_forward(&y);
        assert!(y.data.iter().zip(&p.data).all(|(y, p)| (*y == LOW) == (*p == 0.0)));
    }

    #[test]
    fn nothing_unlabelled_changes_nothing() {
        let (x, ..) = case();
        let all = vec![[0; 8]; 2];
        assert_eq!(merge_forward(&x, &all), x);
        assert_eq!(merge_backward(&x, &all, &x), x);
    }
}
