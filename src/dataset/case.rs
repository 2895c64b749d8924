//! A case of a dataset, and what keeps one from being used.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::base::files::read_json;
use crate::base::{Error, Result};

/// The description of a dataset folder.
pub const DESCRIPTION: &str = "dataset.json";

/// Bytes of such a file, and of the folds beside it, at most: a hundred thousand cases take half as many. Text becomes many times
/// as much in memory.
const MOST: u64 = 1 << 25;

/// Reads a description of a dataset, or its folds, as [`read_json`] does.
pub(super) fn read_described<T: DeserializeOwned>(
    path: &Path,
    expected: &str,
    remedy: &str,
) -> Result<T> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() > MOST => {
            let told = format!("{} MiB of text", found.len() >> 20);
            let expected = format!("at most {} MiB: {expected}", MOST >> 20);
            Err(Error::file(path, told, expected, remedy))
        }
        _ => read_json(path, expected, remedy),
    }
}

/// A labelled image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Case {
    /// Its label's path within the folder of labels, without the ending, parts joined by `/`; or its name in dataset.json.
    pub id: String,
    /// One file with all channels, or one a channel.
    pub images: Vec<PathBuf>,
    /// The label map.
    pub label: PathBuf,
    /// Names of the classes or regions whose voxels nobody labelled in this case.
    pub unlabelled: Vec<String>,
}

/// Something that keeps a case, or the whole folder, from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// None where it is about the folder.
    pub case: Option<String>,
    /// What it is about.
    pub path: PathBuf,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
    /// What to do about it.
    pub remedy: String,
}

impl Fault {
    /// About a file, of no case yet.
    pub fn new(
        path: impl Into<PathBuf>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            case: None,
            path: path.into(),
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        }
    }

    /// As an error.
    pub fn error(&self) -> Error {
        Error::file(&self.path, &self.found, &self.expected, &self.remedy)
    }

    pub(super) fn of(self, case: &str) -> Self {
        Self { case: Some(case.into()), ..self }
    }
}

/// Cases and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Cases {
    pub(super) cases: Vec<Case>,
    pub(super) faults: Vec<Fault>,
}
