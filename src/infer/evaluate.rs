//! Scores of predicted masks against references, on the original voxel grid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::class_key::ClassKey;
use super::metrics::{DEFAULT_TOLERANCE_MM, Pair};
use super::summary::{CaseScores, Summary};
use crate::data::{LabelVolume, check_same_grid, read_labels};
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
    let values: Vec<u8> = (0..=255).collect();
    let read = |file: &Path| -> Result<LabelVolume> {
        let mut labels = read_labels(file, &values, &[])?;
        for label in &mut labels.data {
            *label = merge.iter().find(|(from, _)| from == label).map_or(*label, |(_, to)| *to);
        }
        Ok(labels)
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
        let (prediction, truth) = (read(&file)?, read(&reference)?);
        check_same_grid((&truth.grid, &reference), (&prediction.grid, &file))?;
        let pair = Pair::new(&truth.data, &prediction.data, truth.shape, truth.spacing)?;
        let classes: Vec<ClassKey> =
            pair.confusion().values().into_iter().map(ClassKey::from).collect();
        let scores = pair.all_scores(&classes, DEFAULT_TOLERANCE_MM);
        let metrics: BTreeMap<_, _> = classes.into_iter().zip(scores).collect();
        cases.push(CaseScores {
            metrics,
            prediction_file: file.display().to_string(),
            reference_file: reference.display().to_string(),
        });
    }
    Ok(Summary::new(cases))
}
