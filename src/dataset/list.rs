//! How a description lists its cases: one by one, by name, or by what lies in imagesTr and labelsTr.

use std::path::{Component, Path, PathBuf};

use super::case::{Case, Cases, DESCRIPTION, Fault};
use super::channels::ImageFiles;
use crate::base::files::from_object;
use crate::base::{Error, Result};
use crate::imaging::{by_stem, files_of, holds_series, stem};

/// One file or several.
#[derive(Debug)]
enum ImagePaths {
    One(String),
    Several(Vec<String>),
}

impl<'de> serde::Deserialize<'de> for ImagePaths {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> serde::de::Visitor<'de> for OneOrMore {
            type Value = ImagePaths;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E>(self, path: &str) -> std::result::Result<ImagePaths, E> {
                Ok(ImagePaths::One(path.into()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<ImagePaths, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = list.next_element()? {
                    paths.push(path);
                }
                Ok(ImagePaths::Several(paths))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// An entry of the Decathlon's `training`.
#[derive(Debug, serde::Deserialize)]
#[serde(remote = "Self")]
pub(super) struct Listed {
    image: ImagePaths,
    label: String,
    #[serde(default)]
    unlabelled: Vec<String>,
}
from_object!(Listed, "an object with image and label");

/// An entry of nnU-Net v2's `dataset`.
#[derive(Debug, serde::Deserialize)]
#[serde(remote = "Self")]
pub(super) struct Keyed {
    images: Vec<String>,
    label: String,
    #[serde(default)]
    unlabelled: Vec<String>,
}
from_object!(Keyed, "an object with images and label");

#[derive(Debug)]
pub(super) enum List {
    /// The Decathlon's.
    Training(Vec<Listed>),
    /// nnU-Net v2's, by name.
    Keyed(Vec<(String, Keyed)>),
    /// nnU-Net v2 raw: `imagesTr/CASE_0000.nii.gz` a channel, `labelsTr/CASE.nii.gz`.
    Folders,
    /// Another one, whose cases all lack the labels of these classes.
    Lacking(Vec<String>, Box<Self>),
}

impl List {
    /// With classes that no case has labels of.
    pub fn lacking(self, unlabelled: Vec<String>) -> Self {
        if unlabelled.is_empty() { self } else { Self::Lacking(unlabelled, Box::new(self)) }
    }

    /// The cases, and what is wrong with their files.
    pub fn cases(self, dir: &Path, channels: usize) -> Result<Cases> {
        let mut cases = Cases::default();
        match self {
            Self::Training(list) => {
                for Listed { image, label, unlabelled } in list {
                    let images = match image {
                        ImagePaths::One(image) => vec![image],
                        ImagePaths::Several(images) => images,
                    };
                    let id = case_id(&label);
                    cases.add(dir, channels, id, Keyed { images, label, unlabelled });
                }
            }
            Self::Keyed(list) => {
                for (id, files) in list {
                    cases.add(dir, channels, id, files);
                }
            }
            Self::Folders => cases.folders(dir, channels)?,
            Self::Lacking(unlabelled, list) => {
                cases = list.cases(dir, channels)?;
                for case in &mut cases.cases {
                    case.unlabelled.extend(unlabelled.iter().cloned());
                }
            }
        }
        Ok(cases)
    }
}

/// A label's path within the dataset, or within labelsTr, without its ending.
fn case_id(label: &str) -> String {
    let path = PathBuf::from(label.replace('\\', "/"));
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    let mut parts: Vec<String> = path.components().filter_map(normal).collect();
    if parts.len() > 1 && parts[0] == "labelsTr" {
        parts.remove(0);
    }
    if let Some(last) = parts.last_mut() {
        *last = stem(Path::new(last)).unwrap_or_else(|| last.clone());
    }
    parts.join("/")
}

impl Cases {
    fn add(&mut self, dir: &Path, channels: usize, id: String, files: Keyed) {
        let Keyed { images, label, unlabelled } = files;
        let mut resolve = |text: &String| {
            let path = dir.join(text.trim_start_matches("./"));
            if let Some(fault) = absent(dir, text, &path) {
                self.faults.push(fault.of(&id));
            }
            path
        };
        let images: Vec<PathBuf> = images.iter().map(&mut resolve).collect();
        let label = resolve(&label);
        if images.len() != 1 && images.len() != channels || images.is_empty() {
            let found = format!("{} image files for the case {id}", images.len());
            let expected = format!("one with all channels, or {channels}, one a channel");
            let file = dir.join(DESCRIPTION);
            let fault = Fault::new(file, found, expected, "Correct the case in dataset.json.");
            self.faults.push(fault.of(&id));
        }
        self.cases.push(Case { id, images, label, unlabelled });
    }

    fn folders(&mut self, dir: &Path, channels: usize) -> Result<()> {
        let (labels, images) = (dir.join("labelsTr"), dir.join("imagesTr"));
        for folder in [&labels, &images] {
            if !folder.is_dir() {
                let remedy = "Put images into imagesTr and labels into labelsTr, or list the cases in dataset.json.";
                let expected = "a folder of NIfTI files, as nnU-Net v2 has it";
                return Err(Error::file(folder, "no such folder", expected, remedy));
            }
        }
        let files = ImageFiles::list(&images)?;
        for (id, paths) in by_stem(&labels)? {
            let mut picked = files.pick(&images, &id, channels);
            if is_bare(&picked.files, &id) {
                picked.faults.push(Fault::new(
                    &picked.files[0],
                    format!("an image without a channel's number; no {id}_0000 beside it"),
                    "nnU-Net v2's names, CASE_0000.nii.gz for the first channel",
                    "Rename it, or list the cases under \"training\" in dataset.json.",
                ));
            }
            self.faults.extend(picked.faults.into_iter().map(|fault| fault.of(&id)));
            let images = picked.files;
            if let [first, second, ..] = paths.as_slice() {
                let found = format!("the same label beside it, {}", second.display());
                let fault = Fault::new(first, found, "one of the two", "Move one of them away.");
                self.faults.push(fault.of(&id));
            }
            let label = paths[0].clone();
            self.cases.push(Case { id, images, label, unlabelled: Vec::new() });
        }
        Ok(())
    }
}

/// Whether the picked file is the case's only one and has no number.
fn is_bare(picked: &[PathBuf], id: &str) -> bool {
    picked.len() == 1 && stem(&picked[0]).as_deref() == Some(id)
}

/// What is wrong with a listed file that is not there.
fn absent(dir: &Path, text: &str, path: &Path) -> Option<Fault> {
    let half = || !path.exists() && files_of(path).iter().any(|part| part.is_file());
    if path.is_file() || half() || holds_series(path) {
        return None;
    }
    let expected = "a file that dataset.json lists";
    let drive = text.as_bytes().get(1) == Some(&b':');
    if text.contains('\\') || drive && !cfg!(windows) {
        let found = format!("no such file; dataset.json has the Windows path {text:?}");
        let remedy = "Write paths relative to the folder and with /, such as imagesTr/case.nii.gz.";
        return Some(Fault::new(dir.join(DESCRIPTION), found, expected, remedy));
    }
    if path.exists() {
        let remedy = "List the file itself.";
        return Some(Fault::new(path, "a folder or a device", expected, remedy));
    }
    if let (Some(stem), Some(folder)) = (stem(path), path.parent()) {
        let first = folder.join(format!("{stem}_0000.nii.gz"));
        if first.is_file() {
            return Some(Fault::new(
                path,
                format!("an nnU-Net v1 folder: no such file, but {stem}_0000.nii.gz"),
                "a Decathlon folder, whose names dataset.json lists, or an nnU-Net v2 one",
                "Convert it with nnUNetv2_convert_old_nnUNet_dataset; or write channel_names instead of modality and training.",
            ));
        }
    }
    let remedy = "Restore the file, or take the case out of the dataset.";
    Some(Fault::new(path, "no such file", expected, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_called_by_its_path() {
        assert_eq!(case_id("./labelsTr/case_00.nii.gz"), "case_00");
        assert_eq!(case_id("labelsTr/sub/A.NII"), "sub/A");
        assert_eq!(case_id("./patA/segmentation.nii.gz"), "patA/segmentation");
        assert_eq!(case_id("labelsTr\\case.nii"), "case");
        assert_eq!(case_id("../other/a.hdr"), "../other/a");
        assert_eq!(case_id("/data/a.nii"), "data/a");
    }
}
