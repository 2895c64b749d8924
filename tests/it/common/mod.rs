//! What tests share: the adapter and the real images. Where these are not wanted or not there, `build.rs` has the tests
//! ignored by name.
#![allow(dead_code)] // the golden test uses a part

pub mod loops;
pub mod nets;
pub mod program;
pub mod volumes;

use std::path::PathBuf;

use u2seg::low_level::gpu::Gpu;

/// The adapter that `U2SEG_DEVICE` names (default `auto`). Fails where there is none.
pub fn gpu() -> Gpu {
    let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
    Gpu::open(&device).unwrap_or_else(|e| panic!("{e}; set U2SEG_NO_GPU=1 to go without"))
}

/// The folder that a variable names, else one beside the checkout.
pub fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(default),
        PathBuf::from,
    )
}

/// The folder of real images (`U2SEG_DATA`, default `../shared/data`).
pub fn data_dir() -> PathBuf {
    folder("U2SEG_DATA", "data")
}
