//! The operations: shape inference, gradient, lowering to dispatches; one folder an operation.
//!
//! Every convolution-like operation reads its input through a load (see [`crate::engine::graph::Load`]), so instance norm,
//! activation, upsampling and concatenation cost no pass of their own.

mod common;
mod conv;
mod depthwise;
mod elementwise;
mod load;
mod loss;
mod norm;
mod pointwise;
mod reduce;
mod sort;
mod subgroup;
mod update;

pub use conv::{ConvSpec, conv};
pub use depthwise::depthwise;
pub use elementwise::{add, concat, materialise, upsample};
pub use loss::{
    LossTerm, LossWeights, Losses, MAX_CLASSES, MAX_REGIONS, RegionTargets, argmax,
    merge_unlabelled, region_loss, segmentation_loss, softmax,
};
pub use norm::{EPS, activate, instance_norm};
pub use update::{GROWTH, Optimizer, loss_scale_dispatches, optimizer_dispatch};
