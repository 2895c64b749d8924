//! What a run leaves to look at.

pub mod overlay;
