//! Dataset folders: Medical Segmentation Decathlon and nnU-Net v2 raw.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;

use super::labels::{Entries, Labels};
use super::nifti::{Known, LabelVolume, Volume, read_images, read_labels_on};
use super::place::{Match, Reference};
use crate::error::{Error, Result};

/// A labelled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub id: String,
    /// One file with all channels, or one a channel.
    pub images: Vec<PathBuf>,
    pub label: PathBuf,
}

/// A folder of labelled images of one domain.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    pub name: String,
    pub dir: PathBuf,
    /// Names of the image channels.
    pub channels: Vec<String>,
    /// What the values of the label files mean.
    pub labels: Labels,
    /// In the order of their names.
    pub cases: Vec<Case>,
}

/// Which cases are left out of training, for validation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// One of five (fewer where there are fewer cases).
    Index(usize),
    /// None: train on everything.
    #[serde(alias = "all")]
    None,
    /// These cases.
    HoldOut(Vec<String>),
}

impl std::str::FromStr for Fold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self::None);
        }
        match text.parse() {
            Ok(index) if index < FOLDS => Ok(Self::Index(index)),
            _ => {
                Err(Error::flag("--fold", text, "0 to 4 or none", "Choose one of the five folds."))
            }
        }
    }
}

/// Folds of a cross-validation, fewer where there are fewer cases.
pub const FOLDS: usize = 5;
#[derive(serde::Deserialize)]
struct Description {
    name: Option<String>,
    modality: Option<BTreeMap<String, String>>,
    channel_names: Option<BTreeMap<String, String>>,
    labels: Option<Entries>,
    regions_class_order: Option<serde_json::Value>,
    training: Option<Vec<Listed>>,
    file_ending: Option<String>,
}

#[derive(serde::Deserialize)]
struct Listed {
    image: PathBuf,
    label: PathBuf,
}

impl Dataset {
    /// Reads `dataset.json` and checks that the files it promises exist.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let file = dir.join("dataset.json");
        let text = std::fs::read(&file).map_err(|e| {
            let found = if e.kind() == std::io::ErrorKind::NotFound {
                "no such file".to_string()
            } else {
                e.to_string()
            };
            Error::file(
                &file,
                found,
                "the description of a Decathlon or nnU-Net dataset",
                "Point --data at a folder with dataset.json, imagesTr and labelsTr.",
            )
        })?;
        let refuse = |found: String, expected: &str| {
            Error::file(
                &file,
                found,
                expected,
                "Correct dataset.json; the Decathlon's and nnU-Net's forms are read.",
            )
        };
        let described: Description = serde_json::from_slice(&text)
            .map_err(|e| refuse(e.to_string(), "valid JSON with modality, labels and training"))?;
        let channels =
            described.modality.as_ref().or(described.channel_names.as_ref()).ok_or_else(|| {
                refuse("neither modality nor channel_names".into(), "names of the image channels")
            })?;
        let mut channels: Vec<(usize, String)> = channels
            .iter()
            .map(|(k, v)| {
                Ok((
                    k.parse()
                        .map_err(|_| refuse(format!("channel {k}"), "channels numbered from 0"))?,
                    v.clone(),
                ))
            })
            .collect::<Result<_>>()?;
        channels.sort();
        let channels: Vec<String> = channels.into_iter().map(|(_, name)| name).collect();
        let labels = described
            .labels
            .as_ref()
            .ok_or_else(|| refuse("no labels".into(), "labels as names and values"))?;
        let labels = Labels::parse(labels, described.regions_class_order.as_ref())
            .map_err(|e| Error::file(&file, e.found, e.expected, e.remedy))?;
        let cases = match (&described.training, &described.channel_names) {
            (Some(list), None) => listed(&dir, list)?,
            _ => raw(&dir, described.file_ending.as_deref().unwrap_or(".nii.gz"), channels.len())?,
        };
        if cases.is_empty() {
            return Err(Error::file(
                &dir,
                "no labelled images",
                "images in imagesTr and labels in labelsTr",
                "Add cases, or correct dataset.json.",
            ));
        }
        let folder = dir.canonicalize().unwrap_or(dir.clone());
        let folder = folder.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = described.name.or(folder).unwrap_or_else(|| "domain".into());
        Ok(Self { name, dir, channels, labels, cases })
    }

    /// Reads a case and checks that image, label and description fit each other.
    pub fn load(&self, case: &Case) -> Result<(Volume, LabelVolume)> {
        let matching = Match::default();
        let image = read_images(&case.images, matching)?;
        for note in &image.notes {
            log::warn!("{}: {note}", case.images[0].display());
        }
        if image.channels != self.channels.len() {
            return Err(Error::file(
                &case.images[0],
                format!("{} channels", image.channels),
                format!("{}: {}", self.channels.len(), self.channels.join(", ")),
                "Add the missing modality, or correct dataset.json.",
            ));
        }
        let known = Known { values: self.labels.known(), source: "dataset.json".into() };
        let on = Reference { grid: &image.grid, path: &case.images[0] };
        let label = read_labels_on(&case.label, &known, &on, matching)?;
        Ok((image, label))
    }

    /// Whether there is a case of this name.
    pub fn has(&self, id: &str) -> bool {
        self.cases.iter().any(|case| case.id == id)
    }

    /// Folds that hold cases out.
    pub fn folds(&self) -> usize {
        if self.cases.len() > 1 { self.cases.len().min(FOLDS) } else { 0 }
    }

    /// Training and validation cases. Names to hold out that other datasets have mean nothing here, and a fold beyond
    /// [`Dataset::folds`] holds nothing out.
    pub fn split(&self, fold: &Fold, seed: u64) -> Result<(Vec<&Case>, Vec<&Case>)> {
        let held: Vec<String> = match fold {
            Fold::None => Vec::new(),
            Fold::HoldOut(ids) => ids.clone(),
            Fold::Index(index) => {
                let ids: Vec<String> = self.cases.iter().map(|c| c.id.clone()).collect();
                let folds = splits(&ids, FOLDS, seed);
                folds.get(*index).filter(|_| *index < self.folds()).cloned().unwrap_or_default()
            }
        };
        let (validation, training): (Vec<_>, Vec<_>) =
            self.cases.iter().partition(|case| held.contains(&case.id));
        if training.is_empty() {
            return Err(Error::file(
                &self.dir,
                "no case left to train on",
                "at least one",
                "Hold fewer cases out.",
            ));
        }
        Ok((training, validation))
    }
}

/// The cases that each fold holds out, shuffled by a seed; at most as many folds as cases.
pub fn splits(ids: &[String], folds: usize, seed: u64) -> Vec<Vec<String>> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
    let folds = folds.min(ids.len()).max(1);
    (0..folds).map(|fold| ids.iter().skip(fold).step_by(folds).cloned().collect()).collect()
}

fn case_id(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.trim_end_matches(".gz").trim_end_matches(".nii").to_string()
}

fn missing(path: &Path, what: &str) -> Error {
    Error::file(
        path,
        "no such file",
        what,
        "Restore the file, or take the case out of the dataset.",
    )
}

fn listed(dir: &Path, list: &[Listed]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for Listed { image, label } in list {
        let case =
            Case { id: case_id(label), images: vec![dir.join(image)], label: dir.join(label) };
        if !case.images[0].exists() {
            return Err(missing(&case.images[0], "an image that dataset.json lists"));
        }
        if !case.label.exists() {
            return Err(missing(&case.label, "a label that dataset.json lists"));
        }
        cases.push(case);
    }
    cases.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(cases)
}

/// nnU-Net v2 raw: `imagesTr/CASE_0000.nii.gz` a channel, `labelsTr/CASE.nii.gz`.
fn raw(dir: &Path, ending: &str, channels: usize) -> Result<Vec<Case>> {
    let folder = dir.join("labelsTr");
    let entries = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))?;
    let mut cases = Vec::new();
    for entry in entries {
        let label = entry.map_err(|e| Error::io(&folder, e))?.path();
        let name = label.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(id) = name.strip_suffix(ending).filter(|id| !id.starts_with('.')) else {
            continue;
        };
        let images: Vec<PathBuf> = (0..channels)
            .map(|channel| dir.join("imagesTr").join(format!("{id}_{channel:04}{ending}")))
            .collect();
        if let Some(absent) = images.iter().find(|p| !p.exists()) {
            return Err(missing(absent, "a file for each channel of dataset.json"));
        }
        cases.push(Case { id: id.to_string(), images, label });
    }
    cases.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(cases)
}
