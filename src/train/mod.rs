//! Training: sessions over one parameter store, the trainer, checkpoints.

mod session;

pub use session::{DomainBatch, Session, SessionSettings};
