//! `u2seg` trains and runs 3D U²-Net, one universal network for many organs, on any GPU through WebGPU.

pub mod bench;
pub mod cli;
pub mod data;
pub mod doctor;
pub mod domain;
pub mod error;
pub mod exec;
pub mod files;
pub mod gpu;
pub mod graph;
pub mod infer;
pub mod nn;
pub mod ops;
pub mod paper;
pub mod plan;
pub mod reference;
pub mod shader;
pub mod shape;
pub mod train;
pub mod tune;

pub use error::{Error, Result};
