//! Which clean-up a domain's masks get: what raises the mean Dice of held-out cases, and nothing else.

use super::clean_up::{CleanUp, Step, apply};
use crate::Result;
use crate::imaging::IGNORED;

/// Held-out cases below which no clean-up is kept: they would say too little.
const ENOUGH_CASES: usize = 3;
/// Rise of the mean Dice that counts.
const RISE: f64 = 1e-4;
/// Share of the largest component that a second one must have.
const SECOND: f64 = 0.1;

/// Sequences of steps to choose from, fewest first.
fn candidates() -> Vec<Vec<Step>> {
    use Step::{FillHoles, Largest, LargestTwo};
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
    candidates: Vec<Vec<Step>>,
    /// Class, candidate: sum of Dice and cases that have one.
    sums: Vec<Vec<(f64, usize)>>,
}

/// A clean-up that helps, with the mean Dice of its class without and with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub clean_up: CleanUp,
    pub before: f64,
    pub after: f64,
}

impl Decision {
    /// For these classes.
    pub fn new(classes: &[u8]) -> Self {
        let candidates = candidates();
        let sums = vec![vec![(0.0, 0); candidates.len()]; classes.len()];
        Self { classes: classes.to_vec(), candidates, sums }
    }

    /// Adds a case: true and predicted label indices, D, H, W. Voxels that nobody labelled do not count, and classes of which
    /// `labelled` says no are left out.
    pub fn add(
        &mut self,
        truth: &[u8],
        labels: &[u8],
        shape: [usize; 3],
        labelled: impl Fn(u8) -> bool,
    ) -> Result<()> {
        let classes = self.classes.iter().zip(&mut self.sums);
        for (class, sums) in classes.filter(|(class, _)| labelled(**class)) {
            for (steps, sum) in self.candidates.iter().zip(sums) {
                let mut cleaned = labels.to_vec();
                apply(&mut cleaned, shape, *class, steps)?;
                if let Some(dice) = dice(truth, &cleaned, *class) {
                    *sum = (sum.0 + dice, sum.1 + 1);
                }
            }
        }
        Ok(())
    }

    /// The best clean-up of each class that one helps.
    pub fn kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (class, sums) in self.classes.iter().zip(&self.sums) {
            let mean = |(sum, cases): (f64, usize)| sum / cases.max(1) as f64;
            let before = mean(sums[0]);
            let mut best = (before, &self.candidates[0]);
            for (sum, steps) in sums.iter().zip(&self.candidates) {
                if sum.1 >= ENOUGH_CASES && mean(*sum) > best.0 + RISE {
                    best = (mean(*sum), steps);
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
    let (mut both, mut all) = (0usize, 0usize);
    for (t, p) in truth.iter().zip(labels).filter(|(t, _)| **t != IGNORED) {
        both += usize::from(*t == class && *p == class);
        all += usize::from(*t == class) + usize::from(*p == class);
    }
    (all > 0).then(|| 2.0 * both as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 4³ block of class 1 in 12³; `stray` adds a voxel far off, `hole` takes an inner one away.
    fn labels(stray: bool, hole: bool) -> Vec<u8> {
        let mut labels = vec![0u8; 12 * 12 * 12];
        for (z, y, x) in (0..64).map(|i| (2 + i / 16, 2 + i / 4 % 4, 2 + i % 4)) {
            labels[(z * 12 + y) * 12 + x] = u8::from(!(hole && (z, y, x) == (3, 3, 3)));
        }
        labels[12 * 12 * 12 - 1] = u8::from(stray);
        labels
    }

    fn decide(cases: usize, truth: &[u8], predicted: &[u8]) -> Vec<Kept> {
        let mut decision = Decision::new(&[1]);
        for _ in 0..cases {
            decision.add(truth, predicted, [12; 3], |_| true).unwrap();
        }
        decision.kept()
    }

    #[test]
    fn only_what_helps_is_kept() {
        let truth = labels(false, false);
        assert_eq!(decide(5, &truth, &truth), []);
        let kept = decide(5, &truth, &labels(true, false));
        assert_eq!(kept[0].clean_up.steps, [Step::Largest]);
        assert!(kept[0].before < 1.0 && kept[0].after == 1.0);
        assert_eq!(decide(5, &truth, &labels(false, true))[0].clean_up.steps, [Step::FillHoles]);
        // where the second piece and the hole are real, taking them away would hurt
        let real = labels(true, true);
        assert_eq!(decide(5, &real, &real), []);
    }

    #[test]
    fn what_nobody_labelled_decides_nothing() {
        // the largest component lies where nobody labelled: to keep it alone would lose the organ
        let predicted = labels(true, false);
        let mut truth = labels(true, false);
        truth[..1000].fill(IGNORED);
        assert_eq!(decide(5, &truth, &predicted), []);
        let mut decision = Decision::new(&[1]);
        for _ in 0..5 {
            let (truth, predicted) = (labels(false, false), labels(true, false));
            decision.add(&truth, &predicted, [12; 3], |_| false).unwrap();
        }
        assert_eq!(decision.kept(), []);
    }

    #[test]
    fn two_cases_say_too_little() {
        assert_eq!(decide(2, &labels(false, false), &labels(true, false)), []);
    }
}
