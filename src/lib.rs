//! `u2seg` trains and runs 3D U²-Net, one universal network for many organs, on any GPU through WebGPU.

pub mod error;
pub mod reference;
pub mod shape;

pub use error::{Error, Result};
