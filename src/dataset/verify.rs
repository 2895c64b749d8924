//! What is wrong with a dataset folder: every case read to its end, all faults and all warnings at once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::path::{Path, PathBuf};

use fnv::FnvHasher;
use rayon::prelude::*;

use super::case::Case;
use super::cases::{Dataset, used};
use super::channels::ImageFiles;
use super::labels::Labels;
use super::patients::{same_patient, shared};
use super::selection::Exclusion;
use crate::base::{Error, Result};
use crate::imaging::{
    IGNORED, Known, MAX_VOXELS, Reference, Volume, read_image, read_images, read_labels,
    read_labels_on,
};

/// What a case holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Contents {
    /// Voxels, D, H, W.
    pub shape: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Smallest and largest value of each channel.
    pub range: Vec<[f32; 2]>,
    /// Voxels of each label value.
    pub voxels: BTreeMap<u8, usize>,
    /// Of the image's voxels.
    #[serde(skip)]
    hash: u64,
}

/// A case as it was found.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// The name of the case.
    pub id: String,
    /// None where it cannot be read.
    pub contents: Option<Contents>,
    /// Why it cannot be trained on.
    pub errors: Vec<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// A dataset as it was found.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[non_exhaustive]
pub struct DatasetReport {
    /// Of the dataset; empty where it cannot be opened.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// Names of the image channels.
    pub channels: Vec<String>,
    /// Names by value.
    pub labels: BTreeMap<u8, String>,
    /// In the order of their names.
    pub cases: Vec<CaseReport>,
    /// What keeps the whole from being trained on.
    pub errors: Vec<String>,
    /// What is odd about the whole.
    pub warnings: Vec<String>,
}

impl DatasetReport {
    /// Of a folder that cannot be opened.
    pub fn unusable(dir: &Path, error: &Error) -> Self {
        Self { dir: dir.into(), errors: vec![error.to_string()], ..Self::default() }
    }

    /// Cases that cannot be trained on.
    pub fn broken(&self) -> usize {
        self.cases.iter().filter(|case| !case.errors.is_empty()).count()
    }

    /// All errors.
    pub fn errors(&self) -> usize {
        self.errors.len() + self.cases.iter().map(|case| case.errors.len()).sum::<usize>()
    }

    /// All warnings.
    pub fn warnings(&self) -> usize {
        self.warnings.len() + self.cases.iter().map(|case| case.warnings.len()).sum::<usize>()
    }

    /// The list of cases to leave out, as [`Exclusion::read`](super::Exclusion::read) takes it: those with errors; those
    /// with warnings are there as comments.
    pub fn fix_list(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            let exclusion = Exclusion { dataset: Some(self.name.clone()), case: case.id.clone() };
            let line = exclusion.line();
            for why in case.errors.iter().chain(&case.warnings) {
                text.push_str(&format!("# {}\n", why.replace(['\n', '\r'], " ")));
            }
            match (case.errors.is_empty(), case.warnings.is_empty()) {
                (false, _) => text.push_str(&line),
                (true, false) => text.push_str(&format!("# {line}")),
                _ => {}
            }
        }
        text
    }
}

/// Spacing that differs from the median by more than this factor is odd.
const FAR: f64 = 3.0;

/// Reads every case. What is wrong with the dataset is in the report.
pub fn verify(dataset: &Dataset) -> DatasetReport {
    let mut cases: Vec<CaseReport> =
        dataset.cases.par_iter().map(|case| look(dataset, case)).collect();
    let mut errors = Vec::new();
    for fault in &dataset.faults {
        let message = fault.error().to_string();
        match cases.iter_mut().find(|case| fault.case.as_ref() == Some(&case.id)) {
            Some(case) => case.errors.push(message),
            None => errors.push(message),
        }
    }
    compare(&mut cases);
    let mut warnings = Vec::new();
    let read = cases.iter().any(|case| case.contents.is_some());
    for class in dataset.labels.scored().iter().filter(|_| read) {
        let has = |case: &CaseReport| {
            let contents = case.contents.as_ref();
            contents.is_some_and(|c| class.values.iter().any(|v| c.voxels.contains_key(v)))
        };
        if !cases.iter().any(has) {
            let values: Vec<String> = class.values.iter().map(u8::to_string).collect();
            let (name, values) = (&class.name, values.join(", "));
            warnings.push(format!("label {values} ({name}) of dataset.json is in no case"));
        }
    }
    warnings.extend(same_contents(&cases));
    let ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    warnings.extend(same_patient(&ids).iter().map(|group| shared(group)));
    match unlisted(dataset) {
        Ok(files) => warnings.extend(files),
        Err(error) => errors.push(error.to_string()),
    }
    DatasetReport {
        name: dataset.name.clone(),
        dir: dataset.dir.clone(),
        channels: dataset.channels.clone(),
        labels: names(&dataset.labels),
        cases,
        errors,
        warnings,
    }
}

fn look(dataset: &Dataset, case: &Case) -> CaseReport {
    let mut report = CaseReport {
        id: case.id.clone(),
        contents: None,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let at_fault = dataset.faults.iter().any(|fault| fault.case.as_ref() == Some(&case.id));
    let loaded = if at_fault { None } else { dataset.load(case).ok() };
    let Some((image, label)) = loaded else {
        everything(dataset, case, &mut report);
        return report;
    };
    let mut voxels = BTreeMap::new();
    label.as_slice().iter().for_each(|value| *voxels.entry(*value).or_insert(0) += 1);
    report.warnings.extend(image.notes().iter().map(|note| note.describe(&dataset.channels)));
    report.warnings.extend(label_oddities(dataset, label.as_slice()));
    let contents = Contents {
        shape: image.shape(),
        spacing: image.spacing(),
        range: ranges(&image),
        voxels,
        hash: hash(&image),
    };
    report.contents = Some(contents);
    report
}

/// Everything that is wrong with a case, file by file, of those that are there.
fn everything(dataset: &Dataset, case: &Case, report: &mut CaseReport) {
    let there = |path: &&PathBuf| path.symlink_metadata().is_ok();
    let images: Vec<PathBuf> = case.images.iter().filter(there).cloned().collect();
    let mut errors: Vec<Error> = images.iter().filter_map(|path| read_image(path).err()).collect();
    let readable = errors.is_empty() && !images.is_empty() && images.len() == case.images.len();
    let label = Some(&case.label).filter(there);
    errors.extend(label.and_then(|path| read_labels(path, &dataset.known()).err()));
    // whatever its values are, it may also lie elsewhere
    let placed = label.filter(|path| read_labels(path, &Known::any()).is_ok());
    match readable.then(|| read_images(&images, dataset.matching)) {
        Some(Ok(image)) => {
            errors.extend(dataset.check_channels(case, image.channels().len()).err());
            let on = Reference { grid: image.grid(), path: &images[0] };
            let place = |path| read_labels_on(path, &Known::any(), &on, dataset.matching);
            match placed.map(|path| place(path)) {
                Some(Ok(label)) => errors.extend(dataset.check_unlabelled(case, &label).err()),
                other => errors.extend(other.and_then(Result::err)),
            }
            report
                .warnings
                .extend(image.notes().iter().map(|note| note.describe(&dataset.channels)));
        }
        other => errors.extend(other.and_then(Result::err)),
    }
    for error in errors.iter().map(Error::to_string) {
        if !report.errors.contains(&error) {
            report.errors.push(error);
        }
    }
}

fn label_oddities(dataset: &Dataset, values: &[u8]) -> Vec<String> {
    let stray = values.iter().filter(|value| dataset.labels.stray.contains(value)).count();
    let mut indices = values.to_vec();
    dataset.labels.encode(&mut indices);
    let mut odd = Vec::new();
    if stray > 0 {
        let which = &dataset.labels.stray;
        odd.push(format!("{stray} voxels with the stray labels {which:?} count as background"));
    }
    if indices.iter().all(|index| *index == IGNORED) {
        odd.push("every voxel has the label to ignore".into());
    } else if indices.iter().all(|index| *index == 0 || *index == IGNORED) {
        odd.push("nothing is labelled".into());
    }
    odd
}

fn ranges(image: &Volume) -> Vec<[f32; 2]> {
    let bounds = |channel: &[f32]| {
        let fold = |[lo, hi]: [f32; 2], v: &f32| [lo.min(*v), hi.max(*v)];
        channel.iter().fold([f32::INFINITY, f32::NEG_INFINITY], fold)
    };
    image.channels().map(bounds).collect()
}

fn hash(image: &Volume) -> u64 {
    let mut hash = FnvHasher::default();
    image.shape().iter().for_each(|size| hash.write(&size.to_le_bytes()));
    hash.write(bytemuck::cast_slice(image.as_slice()));
    hash.finish()
}

/// Warns of spacings far from the median, unless several cases share them; refuses what cannot be resampled to it.
fn compare(cases: &mut [CaseReport]) {
    let median = [0, 1, 2].map(|axis| {
        let spacings = cases.iter().filter_map(|c| Some(c.contents.as_ref()?.spacing[axis]));
        let mut spacings: Vec<f64> = spacings.collect();
        spacings.sort_by(f64::total_cmp);
        spacings.get(spacings.len() / 2).copied().unwrap_or(1.0)
    });
    // on which axis, and whether coarser
    let far = |case: &CaseReport| -> Option<(usize, bool)> {
        let spacing = case.contents.as_ref()?.spacing;
        let ratio = |axis: usize| spacing[axis] / median[axis];
        let axis = (0..3).find(|axis| !(1.0 / FAR..=FAR).contains(&ratio(*axis)))?;
        Some((axis, ratio(axis) > 1.0))
    };
    let ways: Vec<Option<(usize, bool)>> = cases.iter().map(far).collect();
    let few = (cases.len() / 20).max(1);
    for (case, way) in cases.iter_mut().zip(&ways) {
        let Some(Contents { spacing, shape, .. }) = case.contents else { continue };
        let voxels = [0, 1, 2].map(|axis| shape[axis] as f64 * spacing[axis] / median[axis]);
        if voxels.iter().product::<f64>() > MAX_VOXELS as f64 {
            case.errors.push(format!(
                "voxels of {spacing:.3?} mm (D, H, W), which make {voxels:.0?} of the median {median:.3?} mm; expected at most 2^30. Correct the voxel sizes in the header."
            ));
        } else if way.is_some() && ways.iter().filter(|other| *other == way).count() <= few {
            case.warnings.push(format!(
                "spacing {spacing:.3?} mm, where the median over the cases is {median:.3?}"
            ));
        }
    }
}

/// Warns of images with the same voxels.
fn same_contents(cases: &[CaseReport]) -> Vec<String> {
    let mut by_hash: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for case in cases {
        // constant images are told of as such
        let contents = case.contents.as_ref();
        let varied = contents.filter(|c| c.range.iter().any(|[low, high]| low < high));
        if let Some(contents) = varied {
            by_hash.entry(contents.hash).or_default().push(&case.id);
        }
    }
    let mut same: Vec<Vec<&str>> = by_hash.into_values().filter(|ids| ids.len() > 1).collect();
    same.sort();
    same.iter().map(|ids| format!("the images of {} are the same", ids.join(", "))).collect()
}

/// Names by label value; of regions, those that have it.
fn names(labels: &Labels) -> BTreeMap<u8, String> {
    let mut names: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
    for class in &labels.classes {
        for value in &class.values {
            names.entry(*value).or_default().push(&class.name);
        }
    }
    if let Some(value) = &labels.ignore {
        names.entry(*value).or_default().push("ignore");
    }
    names.into_iter().map(|(value, names)| (value, names.join(", "))).collect()
}

/// Images and labels in the dataset's folders that no case uses.
fn unlisted(dataset: &Dataset) -> Result<Vec<String>> {
    let absolute = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    let used: BTreeSet<PathBuf> = used(dataset);
    let mut warnings = Vec::new();
    for folder in ["imagesTr", "labelsTr"] {
        let folder = dataset.dir.join(folder);
        // what dataset.json lists may lie elsewhere
        if !folder.exists() {
            continue;
        }
        for file in ImageFiles::list(&folder)?.paths() {
            if !used.contains(&absolute(file)) {
                warnings.push(format!("{} belongs to no case", file.display()));
            }
        }
    }
    warnings.sort();
    Ok(warnings)
}
