//! Segments volumes: sliding windows, ensembles, decisions, cohorts, and what is done to masks afterwards.

mod clean_up;
mod cohort;
mod collect;
mod decide;
mod ensemble;
mod forward;
mod maps;
mod options;
mod predict;
mod slab;
mod whole;
pub mod window;

pub use clean_up::clean_up;
pub use cohort::{CaseWork, Done};
pub use decide::{Decision, Kept};
pub use ensemble::Ensemble;
pub use forward::{Batch, Forward, ForwardSpec};
pub use maps::{Map, MapFile};
pub use options::PredictOptions;
pub use predict::Predictor;
pub use whole::{Uncertainty, finish};
