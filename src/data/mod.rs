//! NIfTI and dataset folders, geometry, preprocessing, fingerprints, splits, patches. All volumes are canonical RAS with
//! axes D, H, W = z, y, x.

mod augment;
mod dataset;
mod draw;
mod fingerprint;
mod grid;
mod nifti;
mod patch;
mod preprocess;
mod resample;
mod verify;
mod write;

pub use augment::{Augment, Interpolation};
pub use dataset::{Case, Dataset, FOLDS, Fold, STRAY, splits};
pub use draw::{
    Bounds, Draw, Elastic, Focus, Intensity, MAX_EXTENT, PatchSize, Reach, Spatial, draw_patch,
    rng_for,
};
pub use fingerprint::Fingerprint;
pub use grid::Grid;
pub use nifti::{LabelVolume, Volume, check_same_grid, read_image, read_images, read_labels};
pub use patch::{Patch, gaussian, low_res_size, make_patch};
pub use preprocess::{Normalisation, Prepared, prepare};
pub use resample::{resample_cubic, resample_linear, resample_nearest};
pub use verify::{CaseReport, Contents, DatasetReport, verify};
pub use write::{write_image, write_mask};

pub use crate::files::write_atomically;
