//! `u2seg` trains and runs 3D U²-Net, one universal network for many organs, on any GPU through WebGPU.

mod base;
mod bench;
#[doc(hidden)]
pub mod cli;
mod dataset;
mod domain;
mod engine;
mod imaging;
pub mod low_level;
mod net;
mod patch;
mod run;
mod score;
mod segment;
mod train;

pub use base::error::{BoxedError, Error, GpuFault, Result};
