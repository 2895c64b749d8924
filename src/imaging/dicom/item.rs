//! A file that may be a slice.

use std::path::PathBuf;

/// A file that may be a slice.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Where it is read.
    pub file: PathBuf,
    /// What it is called in messages: in an archive, by its name there.
    pub shown: PathBuf,
}
