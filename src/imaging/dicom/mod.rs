//! DICOM: a series of slices as an image, and segmentations of it.

mod archive;
mod frames;
mod item;
mod lengths;
mod open;
mod origin;
mod rle;
mod segmentation;
mod series;
mod slice;
mod tree;

pub(super) use frames::Frames;
pub use open::{dicom_folders, holds_segmentation, holds_series};
pub(super) use open::{files, is, open};
pub use origin::Origin;
pub(super) use segmentation::write_segmentation;
