//! What every room stands on: errors, files, the machine, locks between threads, and lines and letters on a picture.

pub mod canvas;
pub mod error;
pub mod files;
pub mod host;
mod sync;

pub use error::{BoxedError, Error, GpuFault, Result};
pub(crate) use sync::locked;
