//! Losses of segmentations, and what is decided from logits.

mod decide;
mod lovasz;
mod merge;
mod region;
mod segmentation;
mod sums;
mod weights;

pub use decide::{argmax, softmax};
pub use merge::merge_unlabelled;
pub use region::{MAX_REGIONS, RegionTargets, region_loss};
pub use segmentation::segmentation_loss;
pub use sums::MAX_CLASSES;
pub use weights::{LossTerm, LossWeights, Losses};
