//! Volumes and label maps: files and their grids, where voxels lie, resampling and preparing, operations on masks; and
//! phantoms to try things on.

mod dicom;
pub mod distance;
mod fields;
mod file_order;
mod formats;
mod grid;
mod header;
mod interpolation;
mod label_values;
mod metaimage;
pub mod morphology;
mod names;
mod nifti;
mod normalise;
mod nrrd;
mod opened;
mod output;
mod peek;
pub mod phantom;
mod place;
mod prepare;
mod read;
mod resample;
mod restore;
mod runs;
mod segment;
mod slabs;
mod sniff;
mod source;
pub mod surface;
mod text_header;
mod volume;
mod voxel_box;
mod voxels;
mod write;

pub use dicom::{dicom_folders, holds_segmentation, holds_series};
pub use formats::{check_series, files_of};
pub use grid::Grid;
pub use interpolation::{Interpolation, Resampling};
pub use label_values::Known;
pub use names::{by_stem, case_name, has_ending, stem};
pub use normalise::{Normalisation, percentile};
pub use output::{can_write, endings, takes_channels, written_files};
pub use peek::{Extent, is_whole, masks_by_stem, peek};
pub use place::{Match, Reference, TOLERANCE};
pub use prepare::{IGNORED, MAX_VOXELS, Prepared, nonzero_box, prepare, resampled_size};
pub use read::{
    read_image, read_image_on, read_images, read_labels, read_labels_on, read_labels_over,
    read_series, segments_of,
};
pub use resample::{resample, resample_cubic, resample_linear, resample_nearest};
pub use restore::Tap;
pub use segment::Segment;
pub use sniff::{Finding, describe_folder, instead};
pub use volume::{LabelMap, Note, Volume};
pub(crate) use volume::{row_major, shaped};
pub use voxel_box::VoxelBox;
pub use write::{ImageWriter, write_channels, write_image, write_mask, write_volume};
