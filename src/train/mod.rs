//! Training: sessions over one parameter store, the trainer, checkpoints.

mod cases;
mod config;
mod session;
mod trainer;

pub use cases::DomainCases;
pub use config::{Length, RunConfig};
pub use session::{DomainBatch, Session, SessionSettings};
pub use trainer::{MODEL, Trainer};
