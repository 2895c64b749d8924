//! What is wrong with a dataset folder, case by case.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;

use super::dataset::{Case, Dataset};
use super::labels::{Class, Labels};
use crate::error::{Error, Result};

/// What a case holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Contents {
    /// Voxels, D, H, W.
    pub shape: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Smallest and largest value of each channel.
    pub range: Vec<[f32; 2]>,
    /// Voxels of each label value.
    pub voxels: BTreeMap<u8, usize>,
}

/// A case as it was found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CaseReport {
    pub id: String,
    /// None where it cannot be read.
    pub contents: Option<Contents>,
    /// Why it cannot be trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// A dataset as it was found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DatasetReport {
    pub name: String,
    pub dir: PathBuf,
    pub channels: Vec<String>,
    /// Names by value.
    pub labels: BTreeMap<u8, String>,
    pub cases: Vec<CaseReport>,
    /// What is odd about the whole.
    pub warnings: Vec<String>,
}

impl DatasetReport {
    /// Cases that cannot be trained on.
    pub fn errors(&self) -> usize {
        self.cases.iter().filter(|case| case.error.is_some()).count()
    }

    /// All warnings.
    pub fn warnings(&self) -> usize {
        self.warnings.len() + self.cases.iter().map(|case| case.warnings.len()).sum::<usize>()
    }
}

/// Spacing that differs from the median by more than this factor is odd.
const FAR: f64 = 3.0;

/// Reads every case.
pub fn verify(dataset: &Dataset) -> Result<DatasetReport> {
    let mut cases: Vec<CaseReport> =
        dataset.cases.par_iter().map(|case| look(dataset, case)).collect();
    compare(&mut cases);
    let mut warnings = Vec::new();
    for class in dataset.labels.scored() {
        let has = |case: &CaseReport| {
            let contents = case.contents.as_ref();
            contents.is_some_and(|c| class.values.iter().any(|v| c.voxels.contains_key(v)))
        };
        if !cases.iter().any(has) {
            let Class { name, values, .. } = class;
            warnings.push(format!("label {values:?} ({name}) of dataset.json is in no case"));
        }
    }
    warnings.extend(unlisted(dataset)?);
    Ok(DatasetReport {
        name: dataset.name.clone(),
        dir: dataset.dir.clone(),
        channels: dataset.channels.clone(),
        labels: names(&dataset.labels),
        cases,
        warnings,
    })
}

fn look(dataset: &Dataset, case: &Case) -> CaseReport {
    let id = case.id.clone();
    let (image, label) = match dataset.load(case) {
        Ok(loaded) => loaded,
        Err(error) => {
            let error = Some(error.to_string());
            return CaseReport { id, contents: None, error, warnings: Vec::new() };
        }
    };
    let mut voxels = BTreeMap::new();
    label.data.iter().for_each(|value| *voxels.entry(*value).or_insert(0) += 1);
    let bounds = |channel: &[f32]| {
        let fold = |[lo, hi]: [f32; 2], v: &f32| [lo.min(*v), hi.max(*v)];
        channel.iter().fold([f32::INFINITY, f32::NEG_INFINITY], fold)
    };
    let size = image.shape.iter().product::<usize>().max(1);
    let range: Vec<[f32; 2]> = image.data.chunks(size).map(bounds).collect();
    let mut warnings = Vec::new();
    for (name, [lo, hi]) in dataset.channels.iter().zip(&range) {
        if lo == hi {
            warnings.push(format!("channel {name} is {lo} everywhere"));
        }
    }
    if voxels.keys().all(|value| *value == 0) {
        warnings.push("nothing is labelled".into());
    }
    let contents = Contents { shape: image.shape, spacing: image.spacing, range, voxels };
    CaseReport { id, contents: Some(contents), error: None, warnings }
}

/// Warns of spacings far from the median.
fn compare(cases: &mut [CaseReport]) {
    let median = [0, 1, 2].map(|axis| {
        let spacings = cases.iter().filter_map(|c| Some(c.contents.as_ref()?.spacing[axis]));
        let mut spacings: Vec<f64> = spacings.collect();
        spacings.sort_by(f64::total_cmp);
        spacings.get(spacings.len() / 2).copied().unwrap_or(1.0)
    });
    for case in cases {
        let Some(Contents { spacing, .. }) = case.contents else { continue };
        let far = |axis: usize| {
            let ratio = spacing[axis] / median[axis];
            !(1.0 / FAR..=FAR).contains(&ratio)
        };
        if (0..3).any(far) {
            case.warnings.push(format!(
                "spacing {spacing:.3?} mm, where the median over the cases is {median:.3?}"
            ));
        }
    }
}

/// Names by label value; of regions, those that have it.
fn names(labels: &Labels) -> BTreeMap<u8, String> {
    let mut names: BTreeMap<u8, String> = BTreeMap::new();
    for class in &labels.classes {
        for value in &class.values {
            let name = names.entry(*value).or_default();
            *name = if name.is_empty() {
                class.name.clone()
            } else {
                format!("{name}, {}", class.name)
            };
        }
    }
    names
}

/// Images and labels in the dataset's folders that no case uses.
fn unlisted(dataset: &Dataset) -> Result<Vec<String>> {
    let absolute = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    let used: BTreeSet<PathBuf> = dataset
        .cases
        .iter()
        .flat_map(|case| case.images.iter().chain([&case.label]))
        .map(absolute)
        .collect();
    let mut warnings = Vec::new();
    for folder in ["imagesTr", "labelsTr"] {
        let folder = dataset.dir.join(folder);
        // what dataset.json lists may lie elsewhere
        if !folder.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let file = entry.map_err(|e| Error::io(&folder, e))?.path();
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let image = [".nii", ".nii.gz"].iter().any(|ending| name.ends_with(ending));
            if image && !name.starts_with('.') && !used.contains(&absolute(&file)) {
                warnings.push(format!("{} belongs to no case", file.display()));
            }
        }
    }
    warnings.sort();
    Ok(warnings)
}
