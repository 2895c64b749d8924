//! Patches of cases: drawn as plain numbers, made on the GPU, and made in plain loops to check those.

mod augment;
mod draw;
mod gpu;
mod make;

pub use augment::{Augment, Interpolation};
pub use draw::{
    Draw, Elastic, Focus, Intensity, MAX_EXTENT, PatchSize, Reach, Spatial, draw_patch, rng_for,
};
pub use gpu::{Cache, Capacity, Patches, Sample, Source, Target, Wanted, patch_kernels};
pub use make::{Patch, gaussian, low_res_size, make_patch};
