//! The operations: shape inference, gradient, lowering to dispatches; one folder an operation.
//!
//! Every convolution-like operation reads its input through a load (see [`crate::engine::graph::Load`]), so instance norm,
//! activation, upsampling and concatenation cost no pass of their own.

mod common;
mod conv;
mod cooperative;
mod depthwise;
mod elementwise;
mod load;
mod loss;
mod norm;
mod pointwise;
mod reduce;
pub mod slab;
mod sort;
mod subgroup;
pub mod uncertainty;
mod update;

// each folder says what it shows; `pub(in crate::engine::ops)` is for other operations
pub use conv::*;
pub use depthwise::*;
pub use elementwise::*;
pub use loss::*;
pub use norm::*;
pub use update::{
    GROWTH, Guarded, Optimizer, UpdateNumber, average_dispatch, average_params, average_share,
    guard_dispatches, optimizer_dispatch,
};
