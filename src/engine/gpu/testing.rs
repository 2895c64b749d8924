//! The adapter of unit tests.

use super::Gpu;

/// The adapter that `U2SEG_DEVICE` names (default `auto`).
pub fn gpu() -> Gpu {
    let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
    Gpu::open(&device).unwrap_or_else(|e| panic!("{e}; set U2SEG_NO_GPU=1 to go without"))
}
