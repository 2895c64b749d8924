//! What happens around a trained network: sliding windows, clean-up of label maps, scores and pictures.
//!
//! Volumes are flat slices in D,H,W order (z, y, x of the canonical RAS image, x fastest); spacings are
//! millimetres in the same order.

pub mod metrics;
pub mod overlay;
pub mod phantom;
pub mod postprocess;
pub mod summary;
pub mod window;
