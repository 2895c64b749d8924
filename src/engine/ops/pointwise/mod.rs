//! Pointwise convolutions: products of weights and channels, voxel by voxel.

mod coop;
mod product;
mod weight_chunks;
mod weights;

pub use product::Product;
pub use weights::PointwiseWeights;
