//! NIfTI and dataset folders, geometry, preprocessing, fingerprints, splits, patches. All volumes are canonical RAS with
//! axes D, H, W = z, y, x.

mod augment;
mod dataset;
mod draw;
mod fingerprint;
mod grid;
mod labels;
mod nifti;
mod patch;
mod patients;
mod place;
mod preprocess;
mod resample;
mod sniff;
mod verify;
mod write;

pub use augment::{Augment, Interpolation};
pub use dataset::{
    Case, DESCRIPTION, Dataset, Exclusion, FOLDS, Fault, Fold, ImageFiles, Picked, SPLITS,
    Selection, Sides, share_groups, splits,
};
pub use draw::{
    Bounds, Draw, Elastic, Focus, Intensity, MAX_EXTENT, PatchSize, Reach, Spatial, draw_patch,
    rng_for,
};
pub use fingerprint::Fingerprint;
pub use grid::Grid;
pub use labels::{Class, Entries, IGNORED, LabelDescription, Labels, MAX_REGIONS, Unusable};
pub use nifti::{
    Known, LabelVolume, Note, Volume, read_image, read_images, read_labels, read_labels_on,
};
pub use patch::{Patch, gaussian, low_res_size, make_patch};
pub use place::{Match, Reference, TOLERANCE};
pub use preprocess::{Normalisation, Prepared, prepare, prepared_size};
pub use resample::{resample_cubic, resample_linear, resample_nearest};
pub use sniff::{Finding, by_stem, describe_folder, instead, pair, stem};
pub use verify::{CaseReport, Contents, DatasetReport, verify};
pub use write::{write_image, write_mask};

pub use crate::files::write_atomically;
