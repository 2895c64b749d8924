//! What tests share: the adapter and the real images.
#![allow(dead_code)] // each test binary uses a part

use std::path::PathBuf;

use u2seg::gpu::Gpu;

/// The adapter that `U2SEG_DEVICE` names (default `auto`); none only where `U2SEG_NO_GPU=1` asks to ignore such tests.
pub fn gpu(test: &str) -> Option<Gpu> {
    if std::env::var("U2SEG_NO_GPU").is_ok_and(|v| v == "1") {
        eprintln!("ignored: {test} (U2SEG_NO_GPU=1)");
        return None;
    }
    let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
    Some(
        Gpu::open(&device)
            .unwrap_or_else(|e| panic!("{test}: {e}; set U2SEG_NO_GPU=1 to go without")),
    )
}

/// The folder of real images (`U2SEG_DATA`, default `../shared/data`), if it is there.
pub fn data_dir(test: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let folder = PathBuf::from(std::env::var("U2SEG_DATA").unwrap_or(default.into()));
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("ignored: {test} (no real images at {}; set U2SEG_DATA)", folder.display());
    None
}
