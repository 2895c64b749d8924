//! Training: sessions over one parameter store, the trainer, checkpoints.

mod cases;
mod config;
mod schedule;
mod session;
mod trainer;

pub use cases::{DomainCases, check_held_out, plan};
pub use config::{Length, RunConfig, Sampling, Start};
pub use schedule::{Rate, Schedule};
pub use session::{DomainBatch, Freeze, Memory, Session, SessionSettings, graphs};
pub use trainer::{ADDED, MODEL, Trainer, planned_memory, read_plan, write_plan};
