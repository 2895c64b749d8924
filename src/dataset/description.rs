//! `dataset.json` in the Decathlon's and nnU-Net's forms.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::case::{DESCRIPTION, read_described};
use super::labels::{Entries, Labels, NAMES, check_name};
use super::list::{Keyed, List, Listed};
use crate::base::files::{folder, from_object, from_value};
use crate::base::{Error, Result};
use crate::imaging::{Finding, describe_folder};

/// What the file says, and how it lists its cases.
#[derive(Debug)]
pub(super) struct Description {
    pub name: Option<String>,
    pub channels: Vec<String>,
    pub labels: Labels,
    pub list: List,
}

#[derive(serde::Deserialize)]
#[serde(remote = "Self")]
struct WrittenDescription {
    name: Option<String>,
    modality: Option<Entries>,
    channel_names: Option<Entries>,
    labels: Option<Entries>,
    regions_class_order: Option<Value>,
    training: Option<Vec<Listed>>,
    /// nnU-Net v2: files by case.
    dataset: Option<Entries>,
    file_ending: Option<String>,
    /// Classes that no case has labels of, beside what each case says.
    #[serde(default)]
    unlabelled: Vec<String>,
}
from_object!(WrittenDescription, "an object with modality or channel_names, labels and cases");

const FORMS: &str = "Correct dataset.json; the Decathlon's and nnU-Net v2's forms are read.";

impl Description {
    pub fn read(dir: &Path) -> Result<Self> {
        let file = dir.join(DESCRIPTION);
        // reading says of a link where it leads
        if !file.exists() && !file.is_symlink() {
            return Err(no_description(dir));
        }
        let expected = "valid JSON with modality or channel_names, labels and cases";
        let written: WrittenDescription = read_described(&file, expected, FORMS)?;
        let refuse = |found: &str, expected: &str| Error::file(&file, found, expected, FORMS);
        if let Some(found) = written.name.as_deref().and_then(check_name) {
            return Err(refuse(&format!("name {found}"), NAMES));
        }
        let channels = written.modality.as_ref().or(written.channel_names.as_ref());
        let channels = channels.ok_or_else(|| {
            refuse("neither modality nor channel_names", "names of the image channels")
        })?;
        let channels = channel_names(&file, channels)?;
        let labels = written.labels.as_ref();
        let labels = labels.ok_or_else(|| refuse("no labels", "labels as names and values"))?;
        let labels = Labels::parse(labels, written.regions_class_order.as_ref())
            .and_then(|labels| labels.check_written().map(|()| labels))
            .map_err(|e| Error::file(&file, e.found, e.expected, e.remedy))?;
        let list = match (written.dataset, written.training, &written.channel_names) {
            (Some(entries), ..) => List::Keyed(keyed(&file, entries)?),
            (None, Some(list), None) => List::Training(list),
            _ => {
                check_ending(&file, written.file_ending.as_deref())?;
                List::Folders
            }
        };
        let list = list.lacking(written.unlabelled);
        Ok(Self { name: written.name, channels, labels, list })
    }
}

/// Channels as number and name, from 0 on.
fn channel_names(file: &Path, entries: &Entries) -> Result<Vec<String>> {
    let mut channels = Vec::new();
    for (key, value) in &entries.0 {
        let refuse = || {
            Error::file(
                file,
                format!("the channel {key:?}: {value}"),
                "channels numbered from \"0\", each with its name",
                FORMS,
            )
        };
        let number: usize = key.trim().parse().map_err(|_| refuse())?;
        channels.push((number, value.as_str().ok_or_else(refuse)?.to_string()));
    }
    channels.sort();
    let whole = channels.iter().enumerate().all(|(index, (number, _))| index == *number);
    if channels.is_empty() || !whole {
        let numbers: Vec<String> = channels.iter().map(|(number, _)| number.to_string()).collect();
        let found = format!("channels numbered {}", numbers.join(", "));
        return Err(Error::file(file, found, "channels numbered 0, 1, 2 and on", FORMS));
    }
    Ok(channels.into_iter().map(|(_, name)| name).collect())
}

fn keyed(file: &Path, entries: Entries) -> Result<Vec<(String, Keyed)>> {
    let each = entries.0.into_iter().map(|(key, value)| {
        let files = from_value(&format!("dataset.{key}"), value)
            .map_err(|found| Error::file(file, found, "images and label of each case", FORMS))?;
        Ok((key, files))
    });
    each.collect()
}

/// Endings of images that are read, in small letters.
const ENDINGS: [&str; 6] = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"];

/// Refuses the other formats that nnU-Net reads.
fn check_ending(file: &Path, ending: Option<&str>) -> Result<()> {
    match ending {
        Some(ending) if !ENDINGS.contains(&ending.to_ascii_lowercase().as_str()) => {
            Err(Error::file(
                file,
                format!("file_ending {ending:?}"),
                format!("one of {}", ENDINGS.join(", ")),
                "Convert the images, and correct file_ending.",
            ))
        }
        _ => Ok(()),
    }
}

fn no_description(dir: &Path) -> Error {
    const EXPECTED: &str = "the folder of a Decathlon or nnU-Net v2 dataset";
    if dir.exists() && !dir.is_dir() {
        let remedy = format!("Point `data` at the folder it lies in: {}.", folder(dir).display());
        return Error::file(dir, "a file", "the folder of a dataset", remedy);
    }
    if !dir.exists() {
        let remedy = "Point `data` at a folder with dataset.json, imagesTr and labelsTr.";
        return Error::file(dir, "no such folder", EXPECTED, remedy);
    }
    if let Some(Finding { found, remedy }) = datasets_within(dir) {
        return Error::file(dir, found, EXPECTED, remedy);
    }
    let images = dir.join("imagesTr").is_dir() || dir.join("labelsTr").is_dir();
    if let Some(Finding { found, remedy }) = describe_folder(dir).filter(|_| !images) {
        return Error::file(dir, found, EXPECTED, remedy);
    }
    Error::file(
        dir.join(DESCRIPTION),
        "no such file",
        "the description of a Decathlon or nnU-Net dataset",
        "Point `data` at a folder with dataset.json, imagesTr and labelsTr.",
    )
}

/// The datasets among the folders of a folder, such as nnUNet_raw.
fn datasets_within(dir: &Path) -> Option<Finding> {
    let folders = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let mut datasets: Vec<PathBuf> =
        folders.filter(|folder| folder.join(DESCRIPTION).is_file()).collect();
    datasets.sort();
    let some: Vec<String> =
        datasets.iter().take(2).map(|path| path.display().to_string()).collect();
    let found = match datasets.len() {
        0 => return None,
        1 => "no dataset.json, but a folder that is a dataset".into(),
        count => format!("no dataset.json, but {count} folders that are datasets"),
    };
    let remedy = match some.len() {
        1 => format!("Point `data` at it: {}.", some[0]),
        _ => format!("Point `data` at one or several of them, such as {}.", some.join(" ")),
    };
    Some(Finding { found, remedy })
}
