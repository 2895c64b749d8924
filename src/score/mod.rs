//! Scores of masks: measures, their means, and whole folders against each other.

mod class_key;
mod evaluate;
pub mod metrics;
mod pairs;
pub mod summary;
mod tally;

pub use class_key::ClassKey;
pub use evaluate::{EvaluateOptions, LabelMerge, evaluate, score_pairs};
pub use pairs::{MaskPair, pair_masks};
