//! Which clean-up a domain's masks get: what raises the mean Dice of held-out cases, and nothing else.

use rayon::prelude::*;

use super::clean_up::apply;
use crate::base::{Error, Result};
use crate::domain::{CleanUp, CleanUpStep};
use crate::imaging::{IGNORED, LabelMap, VoxelBox};

/// Held-out cases below which no clean-up is kept: they would say too little.
const ENOUGH_CASES: usize = 3;
/// Rise of the mean Dice that counts.
const RISE: f64 = 1e-4;
/// Share of the largest component that a second one must have.
const SECOND: f64 = 0.1;

/// Sequences of steps to choose from, fewest first.
fn candidates() -> Vec<Vec<CleanUpStep>> {
    use CleanUpStep::{FillHoles, Largest, LargestTwo};
    vec![
        vec![],
        vec![Largest],
        vec![LargestTwo(SECOND)],
        vec![FillHoles],
        vec![Largest, FillHoles],
        vec![LargestTwo(SECOND), FillHoles],
    ]
}

/// Collects the Dice of each class under each candidate, case by case.
pub struct Decision {
    classes: Vec<u8>,
    candidates: Vec<Vec<CleanUpStep>>,
    /// Of each class, by candidate.
    sums: Vec<Vec<DiceSum>>,
}

/// Dice over the cases that have one.
#[derive(Debug, Clone, Copy, Default)]
struct DiceSum {
    dice: f64,
    cases: usize,
}

impl DiceSum {
    fn mean(&self) -> f64 {
        self.dice / self.cases.max(1) as f64
    }
}

/// A clean-up that helps, with the mean Dice of its class without and with it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Kept {
    /// What is done to the class.
    pub clean_up: CleanUp,
    /// Mean Dice without it.
    pub before: f64,
    /// Mean Dice with it.
    pub after: f64,
}

impl Decision {
    /// For these classes.
    pub fn new(classes: &[u8]) -> Self {
        let candidates = candidates();
        let sums = vec![vec![DiceSum::default(); candidates.len()]; classes.len()];
        Self { classes: classes.to_vec(), candidates, sums }
    }

    /// Adds a case: true and predicted label indices of as many voxels. Voxels that nobody labelled do not count, and classes
    /// of which `labelled` says no are left out.
    ///
    /// # Errors
    ///
    /// Where the two have different shapes.
    pub fn add(
        &mut self,
        truth: &LabelMap,
        labels: &LabelMap,
        labelled: impl Fn(u8) -> bool,
    ) -> Result<()> {
        let shapes = [truth, labels].map(LabelMap::shape);
        if shapes[0] != shapes[1] {
            return Err(Error::shape("clean-up", format!("label maps of {shapes:?} voxels")));
        }
        let classes = self.classes.iter().zip(&mut self.sums);
        for (class, sums) in classes.filter(|(class, _)| labelled(**class)) {
            // what a step does to a class happens within its box
            let (t, p) = (truth.as_slice(), labels.as_slice());
            let either = |index: usize| t[index] == *class || p[index] == *class;
            let Some(bounds) = VoxelBox::around(truth.shape(), either) else { continue };
            let [truth, labels] = [truth, labels].map(|map| map.cropped(&bounds));
            let (truth, labels) = (truth?, labels?);
            let mut cleaned = labels.clone();
            for (steps, sum) in self.candidates.iter().zip(sums) {
                cleaned.as_mut_slice().copy_from_slice(labels.as_slice());
                apply(&mut cleaned, *class, steps);
                if let Some(dice) = dice(truth.as_slice(), cleaned.as_slice(), *class) {
                    sum.dice += dice;
                    sum.cases += 1;
                }
            }
        }
        Ok(())
    }

    /// The best clean-up of each class that one helps.
    pub fn kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (class, sums) in self.classes.iter().zip(&self.sums) {
            let before = sums[0].mean();
            let mut best = (before, &self.candidates[0]);
            for (sum, steps) in sums.iter().zip(&self.candidates) {
                if sum.cases >= ENOUGH_CASES && sum.mean() > best.0 + RISE {
                    best = (sum.mean(), steps);
                }
            }
            let (after, steps) = best;
            if !steps.is_empty() {
                let clean_up = CleanUp { class: *class, steps: steps.clone() };
                kept.push(Kept { clean_up, before, after });
            }
        }
        kept
    }
}

/// None where neither has the class.
fn dice(truth: &[u8], labels: &[u8], class: u8) -> Option<f64> {
    let count = |(t, p): (&u8, &u8)| {
        let counts = *t != IGNORED;
        let (t, p) = (usize::from(counts && *t == class), usize::from(counts && *p == class));
        (t & p, t + p)
    };
    let pairs = truth.par_iter().zip(labels).map(count);
    let (both, all) = pairs.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    (all > 0).then(|| 2.0 * both as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Grid;

    /// A 4³ block of class 1 in 12³; `stray` adds a voxel far off, `hole` takes an inner one away.
    fn labels(stray: bool, hole: bool) -> LabelMap {
        let mut labels = vec![0u8; 12 * 12 * 12];
        for (z, y, x) in (0..64).map(|i| (2 + i / 16, 2 + i / 4 % 4, 2 + i % 4)) {
            labels[(z * 12 + y) * 12 + x] = u8::from(!(hole && (z, y, x) == (3, 3, 3)));
        }
        labels[12 * 12 * 12 - 1] = u8::from(stray);
        LabelMap::from_vec(labels, Grid::ras([12; 3], [1.0; 3])).unwrap()
    }

    fn decide(cases: usize, truth: &LabelMap, predicted: &LabelMap) -> Vec<Kept> {
        let mut decision = Decision::new(&[1]);
        for _ in 0..cases {
            decision.add(truth, predicted, |_| true).unwrap();
        }
        decision.kept()
    }

    #[test]
    fn only_what_helps_is_kept() {
        let truth = labels(false, false);
        assert_eq!(decide(5, &truth, &truth), []);
        let kept = decide(5, &truth, &labels(true, false));
        assert_eq!(kept[0].clean_up.steps, [CleanUpStep::Largest]);
        assert!(kept[0].before < 1.0 && kept[0].after == 1.0);
        assert_eq!(
            decide(5, &truth, &labels(false, true))[0].clean_up.steps,
            [CleanUpStep::FillHoles]
        );
        // where the second piece and the hole are real, taking them away would hurt
        let real = labels(true, true);
        assert_eq!(decide(5, &real, &real), []);
    }

    #[test]
    fn what_nobody_labelled_decides_nothing() {
        // the largest component lies where nobody labelled: to keep it alone would lose the organ
        let predicted = labels(true, false);
        let mut truth = labels(true, false);
        truth.as_mut_slice()[..1000].fill(IGNORED);
        assert_eq!(decide(5, &truth, &predicted), []);
        let mut decision = Decision::new(&[1]);
        for _ in 0..5 {
            let (truth, predicted) = (labels(false, false), labels(true, false));
            decision.add(&truth, &predicted, |_| false).unwrap();
        }
        assert_eq!(decision.kept(), []);
    }

    #[test]
    fn two_cases_say_too_little() {
        assert_eq!(decide(2, &labels(false, false), &labels(true, false)), []);
    }
}
