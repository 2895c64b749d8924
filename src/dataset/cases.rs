//! Dataset folders: Medical Segmentation Decathlon and nnU-Net v2 raw.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::case::{Case, Cases, DESCRIPTION, Fault};
use super::description::Description;
use super::groups::Groups;
use super::labels::Labels;
use super::splits::{SPLITS, Split, read_splits};
use crate::base::{Error, Result};
use crate::imaging::{
    Finding, Known, LabelMap, Match, Reference, Volume, describe_folder, files_of, read_images,
    read_labels_on,
};

/// A folder of labelled images of one domain.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Dataset {
    /// As dataset.json says, else that of the folder.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// Names of the image channels.
    pub channels: Vec<String>,
    /// What the values of the label files mean.
    pub labels: Labels,
    /// In the order of their names.
    pub cases: Vec<Case>,
    /// What keeps cases, or the folder, from being used; [`Dataset::select`] refuses them, `verify` lists them.
    pub faults: Vec<Fault>,
    /// How the files of a case are matched.
    pub matching: Match,
    /// What a pattern tells of groups.
    pub(crate) groups: Option<Groups>,
    /// The folds of nnU-Net's file.
    pub(crate) splits: Option<Vec<Split>>,
}

impl Dataset {
    /// Reads `dataset.json` and lists the cases, also those that lack files: what is wrong with them is in `faults`.
    /// Errors where there is no usable description, or no case at all.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let Description { name, channels, labels, list } = Description::read(&dir)?;
        let mut found = list.cases(&dir, channels.len())?;
        found.cases.sort_by(|a, b| a.id.cmp(&b.id));
        found.faults.extend(duplicates(&found.cases));
        found.faults.extend(unknown_classes(&found.cases, &labels, &dir));
        if found.cases.is_empty() {
            return Err(no_cases(&dir));
        }
        let splits = read_splits(&dir, &found.cases)?;
        let folder = dir.canonicalize().unwrap_or(dir.clone());
        let folder = folder.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = name.or(folder).unwrap_or_else(|| "domain".into());
        let Cases { cases, faults } = found;
        Ok(Self {
            name,
            dir,
            channels,
            labels,
            cases,
            faults,
            matching: Match::default(),
            groups: None,
            splits,
        })
    }

    /// Reads a case and checks that image, label and description fit each other. Labels hold the values of the file, in the
    /// order of the image's canonical voxels.
    pub fn load(&self, case: &Case) -> Result<(Volume, LabelMap)> {
        log::debug!("{}: its files are read", case.id);
        let image = read_images(&case.images, self.matching)?;
        self.check_channels(case, image.channels().len())?;
        let on = Reference { grid: image.grid(), path: &case.images[0] };
        let label = read_labels_on(&case.label, &self.known(), &on, self.matching)?;
        self.check_unlabelled(case, &label)?;
        Ok((image, label))
    }

    /// Values that label files may hold.
    pub(super) fn known(&self) -> Known {
        let source = self.dir.join(DESCRIPTION).display().to_string();
        Known { values: self.labels.known(), source }
    }

    /// Refuses an image of another number of channels.
    pub(super) fn check_channels(&self, case: &Case, channels: usize) -> Result<()> {
        let expected = self.channels.len();
        let remedy = match channels.cmp(&expected) {
            Ordering::Equal => return Ok(()),
            Ordering::Less => "Add the missing modality, or correct dataset.json.",
            Ordering::Greater => "Take the surplus volumes out, or correct dataset.json.",
        };
        Err(Error::file(
            &case.images[0],
            format!("{channels} channels"),
            format!("{expected}: {}", self.channels.join(", ")),
            remedy,
        ))
    }

    /// Refuses voxels of a class that the case is said to lack the labels of.
    pub(super) fn check_unlabelled(&self, case: &Case, label: &LabelMap) -> Result<()> {
        let classes = self.labels.scored().iter();
        for class in classes.filter(|c| !self.labels.regions && case.unlabelled.contains(&c.name)) {
            let count = label.as_slice().iter().filter(|v| class.values.contains(v)).count();
            if count > 0 {
                return Err(Error::file(
                    &case.label,
                    format!(
                        "{count} voxels of {}, which dataset.json calls unlabelled",
                        class.name
                    ),
                    "no voxel of an unlabelled class",
                    "Take the class out of \"unlabelled\", or its voxels out of the label.",
                ));
            }
        }
        Ok(())
    }

    /// All files that reading the folder and its cases touches.
    pub fn files(&self) -> Vec<PathBuf> {
        let images = self.cases.iter().flat_map(|case| case.images.iter().chain([&case.label]));
        let mut files: Vec<PathBuf> = images.flat_map(|path| files_of(path)).collect();
        files.push(self.dir.join(DESCRIPTION));
        if self.splits.is_some() {
            files.push(self.dir.join(SPLITS));
        }
        files
    }
}

/// Cases of one name: their masks would be one file.
fn duplicates(cases: &[Case]) -> Vec<Fault> {
    let same = cases.windows(2).filter(|pair| pair[0].id == pair[1].id);
    let fault = |pair: &[Case]| {
        let (first, second) = (&pair[0], &pair[1]);
        let remedy = "Rename one of them, or take it out of the dataset.";
        let found = format!("two cases called {}: also {}", first.id, second.label.display());
        Fault::new(&first.label, found, "a name of its own for each case", remedy).of(&first.id)
    };
    same.map(fault).collect()
}

/// Unlabelled classes that there are none of.
fn unknown_classes(cases: &[Case], labels: &Labels, dir: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    for case in cases {
        if let Err(name) = labels.unlabelled(labels, &case.unlabelled) {
            let known: Vec<&str> = labels.scored().iter().map(|c| c.name.as_str()).collect();
            let found = format!("{name:?} in \"unlabelled\" of the case {}", case.id);
            let expected = format!("names of labels: {}", known.join(", "));
            let remedy = "Correct dataset.json.";
            faults.push(Fault::new(dir.join(DESCRIPTION), found, expected, remedy).of(&case.id));
        }
    }
    faults
}

fn no_cases(dir: &Path) -> Error {
    let images = dir.join("imagesTr");
    let expected = "images in imagesTr and labels in labelsTr, as NIfTI-1";
    match describe_folder(&images) {
        Some(Finding { found, remedy }) => Error::file(images, found, expected, remedy),
        None => {
            Error::file(dir, "no labelled images", expected, "Add cases, or correct dataset.json.")
        }
    }
}

/// Paths of files that are used, as the system sees them.
pub(super) fn used(dataset: &Dataset) -> BTreeSet<PathBuf> {
    let absolute = |path: PathBuf| path.canonicalize().unwrap_or(path);
    dataset.files().into_iter().map(absolute).collect()
}
