//! Cases cropped, resampled and normalised once, and kept on disk: training reads boxes of them.

mod arrays;
mod case;
mod cohort;
mod contents;
mod entry;
mod store;
mod summary;
mod temporary;
mod work;

pub use case::{CaseData, Facts, Piece, Points};
pub use cohort::{Cohort, KeptCases, Recipe, StoredCase};
pub use contents::Key;
pub use store::{DEFAULT_SIZE, Kept, Place, Store};
pub use summary::Summary;
pub use work::{Progress, Stage, Tell};
