//! All tests but those against the published numbers, in one binary: the program is linked once for them.

mod adapt;
mod book;
mod cases;
mod cli;
mod common;
mod data_nifti;
mod diverge;
mod evaluate;
mod fetch;
mod files;
mod floors;
mod formats;
mod geometry;
mod hostile;
mod implementations;
mod interop;
mod labels;
mod measures;
mod memory;
mod metrics_published;
mod named;
mod numbers;
mod ops;
mod paper;
mod patches;
mod pictures;
mod plan;
mod precision;
mod prepared;
mod real;
mod recipe;
mod runs;
mod shaders;
mod slabs;
mod terminal;
mod tint;
mod trust;
mod tune;
mod validation;
mod verify;

/// Counts what is allocated, so that tests of hostile input can bound it.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);
