//! Folders of labelled images: their cases and what is wrong with them, what label values mean, splits, fingerprints, and
//! the prepared cases on disk.

mod case;
mod cases;
mod channels;
mod convert;
mod description;
mod fingerprint;
mod fold;
mod groups;
mod labels;
mod list;
mod patients;
mod phantoms;
pub mod prepared;
mod selection;
mod splits;
mod verify;

pub use case::{Case, DESCRIPTION, Fault};
pub use cases::Dataset;
pub use channels::{ImageFiles, Picked};
pub use convert::{Conversion, DatasetForm, holds_dataset};
pub use fingerprint::Fingerprint;
pub use fold::{FOLDS, Fold, Sides, share_groups, splits};
pub use labels::{
    Class, Entries, LabelDescription, Labels, MAX_REGIONS, NAMES, Unusable, check_name,
};
pub use phantoms::write_phantoms;
pub use selection::{Exclusion, Selection};
pub use splits::SPLITS;
pub use verify::{CaseReport, Contents, DatasetReport, verify};
