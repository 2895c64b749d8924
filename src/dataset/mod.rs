//! Folders of labelled images: their cases and what is wrong with them, what label values mean, splits, fingerprints.

mod cases;
mod channels;
mod description;
mod fingerprint;
mod fold;
mod labels;
mod list;
mod patients;
mod selection;
mod verify;

pub use cases::{Case, DESCRIPTION, Dataset, Fault};
pub use channels::{ImageFiles, Picked};
pub use fingerprint::Fingerprint;
pub use fold::{FOLDS, Fold, SPLITS, Sides, share_groups, splits};
pub use labels::{Class, Entries, LabelDescription, Labels, MAX_REGIONS, Unusable};
pub use selection::{Exclusion, Selection};
pub use verify::{CaseReport, Contents, DatasetReport, verify};
