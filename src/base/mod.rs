//! What every room stands on: errors, files, the machine, wishes to stop, locks between threads, and lines and letters on a picture.

pub mod canvas;
pub mod error;
pub mod files;
pub mod host;
pub mod legend;
mod stop;
mod sync;

pub use error::{BoxedError, Error, GpuFault, Result};
pub use stop::Stop;
pub(crate) use sync::locked;
