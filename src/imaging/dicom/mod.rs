//! DICOM: a series of slices as an image, and segmentations of it, read and written.

mod archive;
mod frames;
mod item;
mod lengths;
mod mask;
mod open;
mod origin;
mod planes;
mod rle;
mod segmentation;
mod series;
mod slice;
mod tree;

pub(super) use frames::Frames;
pub(super) use mask::Mask;
pub(super) use open::segmentations_in;
pub use open::{dicom_folders, holds_segmentation, holds_series};
pub(super) use open::{files, is, open};
pub use origin::Origin;
pub(super) use segmentation::write_segmentation;
