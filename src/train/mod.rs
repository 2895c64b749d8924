//! Training: sessions over one parameter store, patches made on the GPU, the trainer, checkpoints.

mod cases;
mod config;
mod patches;
mod schedule;
mod session;
mod trainer;

pub use cases::{DomainCases, check_held_out, plan};
pub use config::{Length, RunConfig, Start};
pub use patches::{Capacity, Patches, Piece, Sample, Source, Target, patch_kernels};
pub use schedule::Schedule;
pub use session::{DomainBatch, Freeze, Memory, Session, SessionSettings};
pub use trainer::{ADDED, MODEL, Trainer, planned_memory, write_plan};
