//! What happens around a trained network: sliding windows, clean-up of label maps, scores and pictures.
//!
//! Volumes are flat slices in D,H,W order (z, y, x of the canonical RAS image, x fastest); spacings are
//! millimetres in the same order.

mod class_key;
mod decide;
mod evaluate;
mod forward;
pub mod metrics;
pub mod overlay;
mod pairs;
pub mod phantom;
pub mod postprocess;
mod predict;
pub mod summary;
pub mod window;

pub use crate::domain::Weighting;
pub use class_key::ClassKey;
pub use decide::{Decision, Kept};
pub use evaluate::{Scoring, evaluate};
pub use forward::Forward;
pub use pairs::{MaskPair, pair_masks};
pub use predict::{Ensemble, Predictor, Windows, finish};
