//! Cases cropped, resampled and normalised once, and kept on disk: training reads boxes of them.

mod arrays;
mod case;
mod contents;

pub use case::{CaseData, Facts, Piece, Points};
