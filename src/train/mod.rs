//! Training: sessions over one parameter store, patches made on the GPU, the trainer, checkpoints.

mod cases;
mod claim;
mod config;
mod events;
mod footprint;
mod progress;
mod schedule;
mod session;
mod targets;
mod trainer;
mod watch;

pub use cases::{DomainCases, datasets, plan};
pub use claim::{Beside, SUMMARY, claim, mask_file, validation_folder};
pub use config::{Length, RunConfig, Sampling, Start};
pub use footprint::{Footprint, Memory, PeakValue, reserved};
pub use schedule::{Rate, Schedule};
pub use session::{Freeze, Session, SessionSettings, workloads};
pub use targets::{DomainBatch, Targets};
pub use trainer::{
    ADDED, CONFIG, MODEL, Trainer, check_new, is_begun, planned_memory, read_plan, write_plan,
};
