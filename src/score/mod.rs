//! Scores of masks: measures, their means, and whole folders against each other.

mod calibration;
mod class_key;
mod confidence;
mod doubt;
mod evaluate;
pub mod metrics;
mod pairs;
mod statistics;
mod statistics_file;
pub mod summary;
mod tally;
mod words;

pub use calibration::{Calibration, ClassCalibration, ReliabilityBin};
pub use class_key::ClassKey;
pub use doubt::{CaseEntropy, EntropyScores, Retained};
pub use evaluate::{EvaluateOptions, LabelMerge, evaluate, score_pairs};
pub use pairs::{MaskPair, pair_masks};
pub use statistics::{CaseStatistics, ClassStatistics, Intensity};
pub use statistics_file::StatisticsFile;
pub(crate) use words::listed;

/// Folder beside masks with the probabilities that they were made of: `probabilities/CASE/CLASS.nii.gz`.
pub const PROBABILITIES: &str = "probabilities";
/// Folder beside masks with how sure the networks were: `uncertainty/CASE/entropy.nii.gz`.
pub const UNCERTAINTY: &str = "uncertainty";
/// The entropy of a case in that folder, without its ending.
pub const ENTROPY: &str = "entropy";
