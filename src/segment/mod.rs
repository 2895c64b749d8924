//! Segments volumes: sliding windows, ensembles, decisions, and what is done to masks afterwards.

mod clean_up;
mod decide;
mod forward;
mod predict;
pub mod window;

pub use clean_up::clean_up;
pub use decide::{Decision, Kept};
pub use forward::{Forward, ForwardSpec};
pub use predict::{Ensemble, PredictOptions, Predictor, finish};
