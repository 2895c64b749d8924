//! Instance norm with affine parameters: statistics are two small kernels, the norm itself rides on every load.

mod apply;
mod gradient;
mod parts;
mod statistics;

pub use apply::*;
pub(in crate::engine::ops) use gradient::bias_grad;
pub use statistics::EPS;
pub(in crate::engine::ops) use statistics::{give_group_moments, give_moments};
