//! Training: sessions over one parameter store, the trainer, checkpoints.

mod cases;
mod config;
mod footprint;
mod schedule;
mod session;
mod trainer;

pub use cases::{DomainCases, check_held_out, plan};
pub use config::{Length, RunConfig, Start};
pub use footprint::{Footprint, Memory, PeakValue};
pub use schedule::Schedule;
pub use session::{DomainBatch, Freeze, Session, SessionSettings};
pub use trainer::{ADDED, MODEL, Trainer, planned_memory, write_plan};
