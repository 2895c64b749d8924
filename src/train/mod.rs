//! Training: sessions over one parameter store, what they are fed, the trainer and its checkpoints.

mod batches;
mod cases;
mod checkpoint;
mod config;
mod domain_sampling;
mod footprint;
mod learning_rate;
mod session;
mod setup;
mod targets;
mod trainer;

pub use crate::engine::ops::{LossTerm, Losses};
pub use cases::{DomainCases, datasets, open, plan, warn_of_left_out};
pub use config::{Length, PatchSampling, RunConfig, Start};
pub use domain_sampling::DomainSampling;
pub use footprint::{Footprint, Memory, PeakValue};
pub use learning_rate::LrSchedule;
pub use session::{Freeze, Session, SessionSettings, graphs};
pub use setup::{planned_graphs, planned_memory, reserved};
pub use targets::{DomainBatch, Targets};
pub use trainer::{Reading, Step, Trainer};
