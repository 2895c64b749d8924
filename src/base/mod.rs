//! What every room stands on: errors, files, the machine, and lines and letters on a picture.

pub mod canvas;
pub mod error;
pub mod files;
pub mod host;

pub use error::{BoxedError, Error, GpuFault, Result};
