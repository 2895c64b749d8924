//! What every room stands on: errors, files, and lines and letters on a picture.

pub mod canvas;
pub mod error;
pub mod files;

pub use error::{BoxedError, Error, GpuFault, Result};
