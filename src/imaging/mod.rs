//! Volumes: files and their grids, where voxels lie, resampling and preparing; and phantoms to try things on.

mod grid;
mod nifti;
pub mod phantom;
mod place;
mod prepare;
mod resample;
mod sniff;
mod write;

pub use grid::Grid;
pub use nifti::{
    Known, LabelVolume, Note, Volume, read_image, read_images, read_labels, read_labels_on,
};
pub use place::{Match, Reference, TOLERANCE};
pub use prepare::{
    IGNORED, MAX_VOXELS, Normalisation, Prepared, nonzero_box, percentile, prepare, prepared_size,
};
pub use resample::{resample_cubic, resample_linear, resample_nearest};
pub use sniff::{Finding, by_stem, describe_folder, instead, pair, stem};
pub use write::{write_image, write_mask};
