//! Segments volumes: sliding windows, ensembles, decisions, and what is done to masks afterwards.

pub mod clean_up;
mod decide;
mod forward;
mod predict;
pub mod window;

pub use decide::{Decision, Kept};
pub use forward::Forward;
pub use predict::{Ensemble, Predictor, Windows, finish};
