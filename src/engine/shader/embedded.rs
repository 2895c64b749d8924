//! The files of `shaders/`, as the build found them.

use crate::base::{Error, Result};

/// Every kernel's file: name and source.
pub fn sources() -> &'static [(&'static str, &'static str)] {
    include!(concat!(env!("OUT_DIR"), "/shaders.rs"))
}

/// Every file that kernels import: name and source.
pub fn shared() -> &'static [(&'static str, &'static str)] {
    include!(concat!(env!("OUT_DIR"), "/shared.rs"))
}

/// The source of one kernel's file, as it is written.
pub fn source(file: &str) -> Result<&'static str> {
    sources()
        .iter()
        .find(|(name, _)| *name == file)
        .map(|(_, source)| *source)
        .ok_or_else(|| Error::shader(file, "there is no such file in shaders/"))
}
