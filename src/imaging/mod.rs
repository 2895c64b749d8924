//! Volumes and label maps: files and their grids, where voxels lie, resampling and preparing, operations on masks; and
//! phantoms to try things on.

pub mod distance;
mod fields;
mod file_order;
mod grid;
mod header;
mod interpolation;
mod label_values;
pub mod morphology;
mod names;
mod nifti;
mod normalise;
mod peek;
pub mod phantom;
mod place;
mod prepare;
mod resample;
mod restore;
mod runs;
mod slabs;
mod sniff;
mod source;
pub mod surface;
mod volume;
mod voxel_box;
mod voxels;
mod write;

pub use grid::Grid;
pub use interpolation::{Interpolation, Resampling};
pub use label_values::Known;
pub use names::{by_stem, pair, stem};
pub use nifti::{read_image, read_images, read_labels, read_labels_on};
pub use normalise::{Normalisation, percentile};
pub use peek::{Extent, is_whole, peek};
pub use place::{Match, Reference, TOLERANCE};
pub use prepare::{IGNORED, MAX_VOXELS, Prepared, nonzero_box, prepare, resampled_size};
pub use resample::{resample, resample_cubic, resample_linear, resample_nearest};
pub use restore::Tap;
pub use sniff::{Finding, describe_folder, instead};
pub use volume::{LabelMap, Note, Volume};
pub(crate) use volume::{row_major, shaped};
pub use voxel_box::VoxelBox;
pub use write::{ImageWriter, can_write, endings, write_image, write_mask};
