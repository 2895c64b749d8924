//! nnU-Net's file of folds.

use std::collections::BTreeSet;
use std::path::Path;

use super::case::Case;
use crate::base::files::{from_object, read_json};
use crate::base::{Error, Result};

/// nnU-Net's file of folds.
pub const SPLITS: &str = "splits_final.json";

/// A fold of nnU-Net's file: names of cases.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct Split {
    pub(super) train: Vec<String>,
    pub(super) val: Vec<String>,
}
from_object!(Split, "an object with train and val, lists of cases");

/// Reads the folds of a dataset's folder, where it has a file of them.
pub(super) fn read_splits(dir: &Path, cases: &[Case]) -> Result<Option<Vec<Split>>> {
    let file = dir.join(SPLITS);
    // a link that leads nowhere is no choice to have folds drawn
    if !file.exists() && !file.is_symlink() {
        return Ok(None);
    }
    const REMEDY: &str = "Correct the file, or move it away to have folds drawn.";
    let splits: Vec<Split> =
        read_json(&file, "a list of folds, each with train and val, lists of cases", REMEDY)?;
    let known: BTreeSet<&String> = cases.iter().map(|case| &case.id).collect();
    for (index, split) in splits.iter().enumerate() {
        let refuse =
            |found: String, expected: &str| Err(Error::file(&file, found, expected, REMEDY));
        if let Some(name) = split.train.iter().chain(&split.val).find(|n| !known.contains(n)) {
            return refuse(format!("the case {name} in fold {index}"), "cases of the dataset");
        }
        let train: BTreeSet<&String> = split.train.iter().collect();
        if let Some(name) = split.val.iter().find(|name| train.contains(name)) {
            let found = format!("the case {name} on both sides of fold {index}");
            return refuse(found, "each case in train or in val");
        }
        if split.train.is_empty() {
            return refuse(format!("fold {index} without a case in train"), "at least one");
        }
    }
    match splits.is_empty() {
        true => Err(Error::file(file, "no fold", "at least one", REMEDY)),
        false => Ok(Some(splits)),
    }
}
