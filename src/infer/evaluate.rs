//! Scores of predicted masks against references, on the original voxel grid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::metrics::{DEFAULT_TOLERANCE_MM, Pair};
use super::summary::{CaseScores, Summary};
use crate::data::{Known, LabelVolume, Match, Reference, read_labels, read_labels_on};
use crate::error::{Error, Result};

fn masks(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|path| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        !name.starts_with('.') && (name.ends_with(".nii") || name.ends_with(".nii.gz"))
    });
    files.sort();
    if files.is_empty() {
        return Err(Error::file(
            dir,
            "no .nii or .nii.gz file",
            "masks to score",
            "Point -p at the folder that predict wrote.",
        ));
    }
    Ok(files)
}

/// Scores each mask of `predictions` against the file of the same name in `references`; labels in `merge` count as others.
pub fn evaluate(predictions: &Path, references: &Path, merge: &[(u8, u8)]) -> Result<Summary> {
    let known = Known::any();
    let merged = |mut labels: LabelVolume| {
        for label in &mut labels.data {
            let found = merge.iter().find(|(from, _)| from == label);
            *label = found.map_or(*label, |(_, to)| *to);
        }
        labels
    };
    let mut cases = Vec::new();
    for file in masks(predictions)? {
        let name = file.file_name().map(PathBuf::from).unwrap_or_default();
        let reference = references.join(&name);
        if !reference.exists() {
            return Err(Error::file(
                &reference,
                "no such file",
                "the reference of a prediction",
                "Point -g at the folder of true labels.",
            ));
        }
        let truth = merged(read_labels(&reference, &known)?);
        let on = Reference { grid: &truth.grid, path: &reference };
        let prediction = merged(read_labels_on(&file, &known, &on, Match::default())?);
        let pair = Pair::new(&truth.data, &prediction.data, truth.shape, truth.spacing)?;
        let classes: Vec<u8> =
            (1..=truth.data.iter().chain(&prediction.data).copied().max().unwrap_or(0)).collect();
        let scores = pair.all_scores(&classes, DEFAULT_TOLERANCE_MM);
        let metrics: BTreeMap<u8, _> = classes.into_iter().zip(scores).collect();
        cases.push(CaseScores {
            metrics,
            prediction_file: file.display().to_string(),
            reference_file: reference.display().to_string(),
        });
    }
    Ok(Summary::new(cases))
}
