//! Which files make one image: `CASE.nii.gz` with all channels, or `CASE_0000.nii.gz` and on, one a channel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::case::Fault;
use crate::base::Result;
use crate::base::files::file_name;
use crate::imaging::{by_stem, instead, stem};

/// The image files of a folder by case, an `.img` with its header counted once.
#[derive(Debug, Default)]
pub struct ImageFiles {
    cases: BTreeMap<String, Files>,
}

/// The files of one case.
#[derive(Debug, Default)]
struct Files {
    /// Without a number.
    bare: Vec<PathBuf>,
    numbered: BTreeMap<usize, Vec<PathBuf>>,
}

/// A name's case and channel, if it ends in `_` and four digits.
fn numbered(stem: &str) -> Option<(&str, usize)> {
    let (case, number) = stem.rsplit_once('_')?;
    let digits = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
    if case.is_empty() || !digits { None } else { Some((case, number.parse().ok()?)) }
}

impl ImageFiles {
    /// Lists a folder; files whose name starts with a dot are left out.
    pub fn list(folder: &Path) -> Result<Self> {
        let stems = by_stem(folder)?;
        let mut files = Self::default();
        for (stem, paths) in &stems {
            paths.iter().for_each(|path| files.add(stem, path, &stems));
        }
        Ok(files)
    }

    fn add(&mut self, stem: &str, path: &Path, all: &BTreeMap<String, Vec<PathBuf>>) {
        // channels count from CASE_0000; without that one the number belongs to the name
        let first = |case: &str| all.contains_key(&format!("{case}_0000"));
        match numbered(stem).filter(|(case, _)| first(case)) {
            Some((case, channel)) => {
                let files = self.cases.entry(case.to_string()).or_default();
                files.numbered.entry(channel).or_default().push(path.to_path_buf());
            }
            None => {
                let files = self.cases.entry(stem.to_string()).or_default();
                files.bare.push(path.to_path_buf());
            }
        }
    }

    /// The case and channel that a file's name tells, if it ends in `_` and four digits.
    pub fn numbered(path: &Path) -> Option<(String, usize)> {
        let stem = stem(path)?;
        numbered(&stem).map(|(case, channel)| (case.to_string(), channel))
    }

    /// Cases of which one image is there twice, with different endings, and its files.
    pub fn twice(&self) -> impl Iterator<Item = (&String, &[PathBuf])> {
        let each = self.cases.iter().flat_map(|(case, files)| {
            let all = files.numbered.values().chain([&files.bare]);
            all.map(move |paths| (case, paths.as_slice()))
        });
        each.filter(|(_, paths)| paths.len() > 1)
    }

    /// Names of the cases.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.cases.keys()
    }

    /// All files, an `.img` only where it has no header.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.cases
            .values()
            .flat_map(|files| files.bare.iter().chain(files.numbered.values().flatten()))
    }

    /// The files of a case whose images have so many channels: those from 0000 on, or the one with all channels.
    pub fn pick(&self, folder: &Path, case: &str, channels: usize) -> Picked {
        let none = Files::default();
        let files = self.cases.get(case).unwrap_or(&none);
        let mut picked = Picked::default();
        for paths in files.numbered.values().chain([&files.bare]) {
            if let [first, second, ..] = paths.as_slice() {
                let found = format!("the same image beside it, {}", second.display());
                picked.fault(first, found, "one of the two", "Move one of them away.");
            }
        }
        if files.numbered.is_empty() {
            match files.bare.first() {
                Some(file) => picked.files.push(file.clone()),
                None => {
                    let other = instead(folder, case);
                    let found = other.as_ref().map(|o| format!("no such file, but {}", o.found));
                    let remedy = other.map(|other| other.remedy);
                    picked.fault(
                        &folder.join(format!("{case}_0000.nii.gz")),
                        found.unwrap_or_else(|| "no such file".into()),
                        "the image of a case, a file for each channel",
                        remedy.as_deref().unwrap_or("Restore the file, or leave the case out."),
                    );
                }
            }
            return picked;
        }
        files.count(case, channels, &mut picked);
        picked
    }
}

/// The files of a case, as far as they are there, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Picked {
    /// One with all channels, or one a channel in order.
    pub files: Vec<PathBuf>,
    /// What is wrong with them.
    pub faults: Vec<Fault>,
}

impl Picked {
    fn fault(
        &mut self,
        path: &Path,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: &str,
    ) {
        self.faults.push(Fault::new(path, found, expected, remedy));
    }

    /// All files, or the first fault.
    pub fn whole(self) -> std::result::Result<Vec<PathBuf>, Fault> {
        match self.faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(self.files),
        }
    }
}

impl Files {
    /// Takes exactly the numbers from 0 on, and tells of every other file.
    fn count(&self, case: &str, channels: usize, picked: &mut Picked) {
        let range = match channels {
            1 => format!("{case}_0000 alone, as there is one channel"),
            _ => format!("{case}_0000 to {case}_{:04}", channels - 1),
        };
        for file in &self.bare {
            let found = format!("a file without a channel's number beside {case}_0000");
            let remedy = "Move it away, or give it its channel's number.";
            picked.fault(file, found, &range, remedy);
        }
        let like = &self.numbered[&0][0];
        for channel in 0..channels {
            match self.numbered.get(&channel) {
                Some(paths) => picked.files.push(paths[0].clone()),
                None => picked.fault(
                    &like.with_file_name(sibling(like, case, channel)),
                    "no such file",
                    format!("a file for each channel: {range}"),
                    "Restore the file, or take the case away.",
                ),
            }
        }
        for (_, paths) in self.numbered.iter().filter(|(channel, _)| **channel >= channels) {
            let found = format!("{} channel files, this one too many", self.numbered.len());
            let remedy = "Move the file away, or correct the number of channels.";
            picked.fault(&paths[0], found, &range, remedy);
        }
    }
}

/// The name of another channel's file, with the ending of that of channel 0.
fn sibling(first: &Path, case: &str, channel: usize) -> String {
    let name = file_name(first);
    let ending = name.get(case.len() + "_0000".len()..).unwrap_or(".nii.gz");
    format!("{case}_{channel:04}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(
        names: &[&str],
        case: &str,
        channels: usize,
    ) -> std::result::Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let files = ImageFiles::list(folder.path()).unwrap();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        match files.pick(folder.path(), case, channels).whole() {
            Ok(paths) => Ok(paths.iter().map(name).collect()),
            Err(fault) => {
                Err(format!("{}: {}; {}", name(&fault.path), fault.found, fault.expected))
            }
        }
    }

    #[test]
    fn exactly_the_channels_are_taken() {
        let two = ["a_0001.nii.gz", "a_0000.nii.gz", "b.nii"];
        assert_eq!(picked(&two, "a", 2).unwrap(), ["a_0000.nii.gz", "a_0001.nii.gz"]);
        assert_eq!(picked(&two, "b", 2).unwrap(), ["b.nii"]);
        let error = |names: &[&str], channels| picked(names, "a", channels).unwrap_err();
        assert!(error(&two, 1).starts_with("a_0001.nii.gz: 2 channel files, this one too"));
        assert!(error(&two, 3).starts_with("a_0002.nii.gz: no such file"));
        // the gap is told before the surplus
        assert!(error(&["a_0000.nii", "a_0002.nii"], 2).starts_with("a_0001.nii: no such file"));
        let gap = error(&["a_0000.NII", "a_0002.NII"], 3);
        assert!(gap.starts_with("a_0001.NII: no such file") && gap.contains("a_0000 to a_0002"));
        let bare = error(&["a.nii.gz", "a_0000.nii.gz"], 2);
        assert!(bare.starts_with("a.nii.gz: a file without"), "{bare}");
        let twice = error(&["a_0000.nii.gz", "a_0000.nii"], 1);
        assert!(twice.contains("a_0000.nii.gz") && twice.contains("beside it"), "{twice}");
        assert!(error(&["a.nii", "a.nii.gz"], 1).contains("the same image beside it"));
    }

    #[test]
    fn every_gap_and_surplus_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for channel in ["0000", "0002", "0005"] {
            std::fs::write(folder.path().join(format!("a_{channel}.nii")), b"").unwrap();
        }
        let files = ImageFiles::list(folder.path()).unwrap();
        let picked = files.pick(folder.path(), "a", 4);
        assert_eq!((picked.files.len(), picked.faults.len()), (2, 3));
    }

    #[test]
    fn a_pair_is_one_image_and_a_cohort_may_be_numbered() {
        assert_eq!(picked(&["a.img", "a.hdr"], "a", 1).unwrap(), ["a.hdr"]);
        assert_eq!(picked(&["A.IMG", "A.HDR"], "A", 1).unwrap(), ["A.HDR"]);
        let cohort = ["s_0001.nii.gz", "s_0002.nii.gz", ".s_0000.nii.gz"];
        assert_eq!(picked(&cohort, "s_0002", 1).unwrap(), ["s_0002.nii.gz"]);
        assert!(picked(&["a.img", "a.hdr", "a.nii"], "a", 1).is_err());
    }
}
