//! Training: sessions over one parameter store, what they are fed, the trainer and its checkpoints.

mod advice;
mod batches;
mod cases;
mod checkpoint;
mod config;
mod domain_sampling;
mod footprint;
mod guard;
mod idle;
mod learning_rate;
mod machine;
mod search;
mod session;
mod setup;
mod targets;
mod trainer;
mod update;

pub use crate::engine::exec::Verdict;
pub use crate::engine::ops::{LossTerm, Losses};
pub use cases::{DomainCases, Preparing, datasets, open, plan, prepare, warn_of_left_out};
pub use checkpoint::Checkpoint;
pub use config::{Length, PatchSampling, RunConfig, Start, TrainingBudget};
pub use domain_sampling::DomainSampling;
pub use footprint::{Footprint, Memory, PeakValue};
pub use guard::Drawn;
pub use learning_rate::LrSchedule;
pub use machine::{MachineBytes, Planned};
pub use search::PlannedDomain;
pub use session::{Freeze, Outcome, PackedBatch, Session, SessionSettings, workloads};
pub use setup::{planned_memory, planned_workloads, reserved};
pub use targets::{DomainBatch, Targets};
pub use trainer::{Reading, Step, Trainer};
