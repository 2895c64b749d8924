//! The clean-up of predicted masks that a plan asks for.

use crate::domain::{CleanUp, CleanUpStep};
use crate::imaging::LabelMap;
use crate::imaging::morphology::{Connectivity, close, fill_holes, keep_largest, keep_largest_two};

/// Applies a domain's clean-up to a map of class indices, class by class.
pub fn clean_up(labels: &mut LabelMap, all: &[CleanUp]) {
    all.iter().for_each(|each| apply(labels, each.class, &each.steps));
}

/// Applies steps in order to one class; components use all 26 neighbours.
pub fn apply(labels: &mut LabelMap, class: u8, steps: &[CleanUpStep]) {
    for step in steps {
        match *step {
            CleanUpStep::Closing(n) => close(labels, class, n, Connectivity::Face),
            CleanUpStep::ClosingEdges(n) => close(labels, class, n, Connectivity::Edge),
            CleanUpStep::Largest => keep_largest(labels, class, Connectivity::Full),
            CleanUpStep::LargestTwo(ratio) => {
                keep_largest_two(labels, class, Connectivity::Full, ratio);
            }
            CleanUpStep::FillHoles => fill_holes(labels, class),
        }
    }
}
