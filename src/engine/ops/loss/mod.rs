//! Losses of segmentations, and what is decided from logits.

mod decide;
mod lovasz;
mod merge;
mod region;
mod segmentation;
mod sums;
mod weights;

pub use decide::*;
pub use merge::*;
pub use region::*;
pub use segmentation::*;
pub use sums::{MAX_CLASSES, class_bits};
pub use weights::*;
