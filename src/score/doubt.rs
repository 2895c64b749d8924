//! Whether entropies tell where and when a mask is wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::class_key::ClassKey;

/// Thresholds of the entropy, from 1 / LEVELS to 1.
pub const LEVELS: usize = 20;
/// Cases below which a correlation says nothing.
const ENOUGH_CASES: usize = 3;

/// Voxels whose entropy lies between two thresholds.
type Levels = [u64; LEVELS];

/// Overlap of a class by entropy.
#[derive(Debug, Clone, Default)]
pub(super) struct Overlap {
    both: Levels,
    /// In the reference and in the prediction, each on its own.
    either: Levels,
}

/// What the entropies of a case go with.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubt {
    voxels: Levels,
    classes: BTreeMap<ClassKey, Overlap>,
    /// Summed over the voxels of the predicted foreground.
    entropy: f64,
    foreground: u64,
}

impl Doubt {
    /// Counts a voxel of this entropy, and whether it is predicted as foreground; gives the place among the levels.
    pub fn add(&mut self, entropy: f32, foreground: bool) -> usize {
        let entropy = f64::from(entropy).clamp(0.0, 1.0);
        let level = ((entropy * LEVELS as f64).ceil() as usize).saturating_sub(1);
        self.voxels[level] += 1;
        if foreground {
            self.entropy += entropy;
            self.foreground += 1;
        }
        level
    }

    /// Counts a voxel at a level for a class that it has in the reference, in the prediction or in both.
    pub fn add_class(&mut self, class: &ClassKey, level: usize, [truth, prediction]: [bool; 2]) {
        if !truth && !prediction {
            return;
        }
        let overlap = match self.classes.get_mut(class) {
            Some(overlap) => overlap,
            None => self.classes.entry(class.clone()).or_default(),
        };
        overlap.both[level] += u64::from(truth && prediction);
        overlap.either[level] += u64::from(truth) + u64::from(prediction);
    }

    /// Mean Dice of the classes and share of voxels left out, where those above a level are.
    fn up_to(&self, level: usize) -> (Option<f64>, Option<f64>) {
        let sum = |levels: &Levels| levels[..=level].iter().sum::<u64>() as f64;
        let dice = self.classes.values().map(|class| (sum(&class.both), sum(&class.either)));
        let dice = dice.filter(|(_, either)| *either > 0.0);
        let all: u64 = self.voxels.iter().sum();
        let kept = sum(&self.voxels);
        let left_out = (all > 0).then(|| 1.0 - kept / all as f64);
        (mean(dice.map(|(both, either)| 2.0 * both / either)), left_out)
    }
}

/// How the entropy of the mean probabilities goes with the errors of masks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EntropyScores {
    /// Cases with entropies.
    pub cases: usize,
    /// Correlation over cases of mean entropy within the predicted foreground and mean Dice, where it can be told: Pearson's.
    pub pearson: Option<f64>,
    /// Spearman's, of the ranks.
    pub spearman: Option<f64>,
    /// Dice of the voxels that remain where uncertain ones are left out, by threshold, rising; the last one leaves out none.
    /// After the QU-BraTS challenge (Mehta et al. 2022).
    pub retained: Vec<Retained>,
    /// Each case.
    pub per_case: Vec<CaseEntropy>,
}

/// What remains below a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retained {
    /// The largest entropy that counts, as a share of the largest that there is.
    pub entropy_up_to: f64,
    /// Share of the voxels in the box about the foreground that is left out, mean over cases.
    pub left_out: Option<f64>,
    /// Mean over cases of the mean Dice of their classes.
    #[serde(rename = "Dice")]
    pub dice: Option<f64>,
}

/// A case's entropy and Dice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseEntropy {
    /// The predicted label map.
    pub prediction_file: String,
    /// Mean entropy of the voxels of the predicted foreground; none where there is none.
    pub mean_entropy: Option<f64>,
    /// Mean Dice of the classes.
    #[serde(rename = "Dice")]
    pub dice: Option<f64>,
}

/// Mean of what there is.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// None where one of the two does not vary.
fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() < ENOUGH_CASES {
        return None;
    }
    let (a, b) = (mean(x.iter().copied())?, mean(y.iter().copied())?);
    let product = |u: &[f64], v: &[f64], [a, b]: [f64; 2]| -> f64 {
        u.iter().zip(v).map(|(u, v)| (u - a) * (v - b)).sum()
    };
    let spread = (product(x, x, [a, a]) * product(y, y, [b, b])).sqrt();
    (spread > 0.0).then(|| product(x, y, [a, b]) / spread)
}

/// Ranks from 0; equal values share their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: &f64| values.iter().filter(|other| *other < value).count() as f64;
    let equal = |value: &f64| values.iter().filter(|other| *other == value).count() as f64;
    values.iter().map(|value| below(value) + (equal(value) - 1.0) / 2.0).collect()
}

/// A case with its scores.
pub(super) struct Doubted<'a> {
    pub prediction_file: &'a str,
    /// Dice of each class; NaN where it has none.
    pub dice: Vec<f64>,
    pub doubt: &'a Doubt,
}

impl EntropyScores {
    /// None where no case has entropies.
    pub(super) fn of(cases: &[Doubted<'_>]) -> Option<Self> {
        if cases.is_empty() {
            return None;
        }
        let per_case: Vec<CaseEntropy> = cases
            .iter()
            .map(|Doubted { prediction_file, dice, doubt }| CaseEntropy {
                prediction_file: (*prediction_file).into(),
                mean_entropy: (doubt.foreground > 0)
                    .then(|| doubt.entropy / doubt.foreground as f64),
                dice: mean(dice.iter().copied().filter(|dice| dice.is_finite())),
            })
            .collect();
        let known = per_case.iter().filter_map(|case| case.mean_entropy.zip(case.dice));
        let (x, y): (Vec<f64>, Vec<f64>) = known.unzip();
        let retained = (0..LEVELS).map(|level| {
            let each: Vec<_> = cases.iter().map(|case| case.doubt.up_to(level)).collect();
            Retained {
                entropy_up_to: (level + 1) as f64 / LEVELS as f64,
                left_out: mean(each.iter().filter_map(|(_, left_out)| *left_out)),
                dice: mean(each.iter().filter_map(|(dice, _)| *dice)),
            }
        });
        Some(Self {
            cases: cases.len(),
            pearson: pearson(&x, &y),
            spearman: pearson(&ranks(&x), &ranks(&y)),
            retained: retained.collect(),
            per_case,
        })
    }

    /// In a sentence or two.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        if let Some(rank) = self.spearman {
            let cases = self.per_case.iter().filter(|case| case.mean_entropy.is_some()).count();
            told += &format!(
                "Rank correlation of a case's mean entropy and its Dice: {rank:.2} over {cases} cases; the nearer to -1, the \
                 better entropy tells which masks to look at. "
            );
        }
        let all = self.retained.last().and_then(|all| all.dice);
        let part = &self.retained[LEVELS / 2 - 1];
        if let (Some(all), Some(dice), Some(left_out)) = (all, part.dice, part.left_out) {
            told += &format!(
                "Without the {:.1} % of voxels whose entropy exceeds {}, Dice is {dice:.3} instead of {all:.3}.",
                100.0 * left_out,
                part.entropy_up_to,
            );
        }
        told.trim_end().to_string() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_uncertain_errors_out_raises_dice() {
        let (mut doubt, class) = (Doubt::default(), ClassKey::from(1));
        // three sure hits, an unsure miss, an unsure false alarm, and sure background
        for (entropy, truth, prediction) in [
            (0.0, true, true),
            (0.05, true, true),
            (0.04, true, true),
            (0.52, true, false),
            (1.0, false, true),
            (0.01, false, false),
        ] {
            let level = doubt.add(entropy, prediction);
            doubt.add_class(&class, level, [truth, prediction]);
        }
        // 0.05 as f32 is above a twentieth
        assert_eq!(doubt.voxels[..2], [3, 1]);
        assert_eq!(doubt.up_to(LEVELS - 1), (Some(0.75), Some(0.0)));
        let (dice, left_out) = doubt.up_to(10);
        assert_eq!(dice, Some(6.0 / 7.0));
        assert!((left_out.unwrap() - 1.0 / 6.0).abs() < 1e-12);
        assert_eq!(doubt.up_to(9).0, Some(1.0));
        let case = Doubted { prediction_file: "p", dice: vec![0.75, f64::NAN], doubt: &doubt };
        let told = EntropyScores::of(&[case]).unwrap();
        assert_eq!(told.per_case[0].dice, Some(0.75));
        let entropy = told.per_case[0].mean_entropy.unwrap();
        assert!((entropy - (0.05 + 0.04 + 1.0) / 4.0).abs() < 1e-6, "{entropy}");
        assert_eq!((told.pearson, told.retained[19].dice), (None, Some(0.75)));
        assert_eq!(EntropyScores::of(&[]), None);
    }

    #[test]
    fn correlations_are_those_of_the_textbook() {
        let (x, y) = ([1.0, 2.0, 3.0, 10.0], [8.0, 6.0, 4.0, 0.0]);
        assert!((pearson(&ranks(&x), &ranks(&y)).unwrap() + 1.0).abs() < 1e-12);
        // numpy.corrcoef gives -0.9561828874675151
        assert!((pearson(&x, &y).unwrap() + 0.956_182_887_467_515_1).abs() < 1e-12);
        assert_eq!(ranks(&[2.0, 1.0, 2.0]), [1.5, 0.0, 1.5]);
        assert_eq!(pearson(&x, &[1.0; 4]), None);
        assert_eq!(pearson(&x[..2], &y[..2]), None);
    }
}
