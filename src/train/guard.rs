//! Steps whose loss or gradients are not finite: counted, named, and a stop when there are too many of them.

use std::collections::VecDeque;

use crate::base::Error;
use crate::engine::exec::Verdict;

/// Steps in a row that may change nothing before a training stops. Where gradients pass through f16 those do not count in which
/// the loss scale fell: it heals them.
const MOST_IN_A_ROW: usize = 8;
/// Steps of which at most half may change nothing.
const WINDOW: usize = 100;

/// A patch that was drawn for a step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Drawn {
    /// The case.
    pub case: String,
    /// The voxel of the prepared case that the patch is centred on, D, H, W.
    pub centre: [i32; 3],
}

impl std::fmt::Display for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} about voxel {:?}", self.case, self.centre)
    }
}

/// Drawn patches in words.
pub(super) fn listed(drawn: &[Drawn]) -> String {
    drawn.iter().map(Drawn::to_string).collect::<Vec<_>>().join(", ")
}

/// What became of the last steps of this start.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// Of the last ones, whether they were left out.
    last: VecDeque<bool>,
}

impl Guard {
    /// Takes in what became of a step.
    pub fn add(&mut self, verdict: Verdict) {
        self.last.push_back(verdict == Verdict::LeftOut);
        if self.last.len() > WINDOW {
            self.last.pop_front();
        }
    }

    /// Steps that were left out since one counted.
    pub fn in_a_row(&self) -> usize {
        self.last.iter().rev().take_while(|left_out| **left_out).count()
    }

    fn left_out(&self) -> usize {
        self.last.iter().filter(|left_out| **left_out).count()
    }

    /// Why the training has to stop, if it has to: too many in a row, or of the last hundred. At its end fewer steps are enough.
    pub fn stop(&self, at_the_end: bool) -> Option<String> {
        let (row, all) = (self.in_a_row(), self.left_out());
        let window = if at_the_end { self.last.len() } else { WINDOW };
        if row >= MOST_IN_A_ROW {
            Some(format!("{row} steps in a row"))
        } else if 2 * all > window {
            Some(format!("{all} of the last {} steps", self.last.len()))
        } else {
            None
        }
    }
}

/// The error that ends a training; `step` names the last step that was left out.
pub(super) fn diverged(lr: f64, steps: &str, step: &str) -> Error {
    Error::setting(
        "lr",
        format!(
            "{lr}; loss or gradients of {steps} are not finite and changed nothing, the last {step}"
        ),
        "losses and gradients that are finite",
        "Train anew with a lower `lr`, such as a tenth of it, or `verify` the cases that are named. A checkpoint, where there is one, is from before.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(verdicts: impl IntoIterator<Item = Verdict>) -> Guard {
        let mut guard = Guard::default();
        verdicts.into_iter().for_each(|verdict| guard.add(verdict));
        guard
    }

    #[test]
    fn a_training_stops_after_eight_steps_in_a_row() {
        let row = |n: usize| vec![Verdict::LeftOut; n];
        let good = vec![Verdict::Counted; 50];
        assert_eq!(after([good.clone(), row(7)].concat()).stop(false), None);
        let reason = after([good.clone(), row(8)].concat()).stop(false);
        assert_eq!(reason.as_deref(), Some("8 steps in a row"));
        assert_eq!(after([row(7), good, row(3)].concat()).in_a_row(), 3);
        // the loss scale falls sixteen times at most
        assert_eq!(after(vec![Verdict::Rescaled; 16]).stop(true), None);
    }

    #[test]
    fn a_training_stops_where_most_steps_are_left_out() {
        let steps = |n: usize| {
            (0..n).map(|step| [Verdict::LeftOut, Verdict::Counted][usize::from(step % 5 > 2)])
        };
        assert_eq!(after(steps(82)).stop(false), None);
        let reason = after(steps(83)).stop(false);
        assert_eq!(reason.as_deref(), Some("51 of the last 83 steps"));
        // long ago does not count
        let healed = steps(80).chain(std::iter::repeat_n(Verdict::Counted, 60));
        assert_eq!(after(healed).stop(true), None);
        // a short training may not end so
        assert_eq!(after(steps(4)).stop(false), None);
        assert_eq!(after(steps(4)).stop(true).as_deref(), Some("3 of the last 4 steps"));
    }
}
