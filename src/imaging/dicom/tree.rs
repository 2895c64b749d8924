//! The DICOM files below a folder or in an archive.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::archive;
use super::item::Item;
use super::lengths::START;
use crate::base::{Error, Result};

/// Files that are looked at, and folders within one another, at most.
const MOST: usize = 200_000;
const DEEPEST: usize = 12;

/// DICOM files, and the folder they are kept in while they are read.
pub(super) struct Tree {
    pub items: Vec<Item>,
    pub unpacked: Option<TempDir>,
}

impl Tree {
    /// The DICOM files of a folder and the folders in it, of an archive, or a file itself.
    pub fn find(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let files = all_files(path)?;
            let items = files.into_iter().filter(|file| begins_as_dicom(file));
            let items = items.map(|file| Item { shown: file.clone(), file }).collect();
            return Ok(Self { items, unpacked: None });
        }
        if begins_as_dicom(path) {
            let item = Item { file: path.to_path_buf(), shown: path.to_path_buf() };
            return Ok(Self { items: vec![item], unpacked: None });
        }
        let (folder, mut items) = archive::unpack(path)?;
        items.retain(|item| begins_as_dicom(&item.file));
        Ok(Self { items, unpacked: Some(folder) })
    }
}

/// All files below a folder, in the order of their paths; links to folders are not followed.
pub(super) fn all_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(folder, 0, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < DEEPEST {
                collect(&path, depth + 1, files)?;
            }
        } else if path.is_file() {
            files.push(path);
        }
        if files.len() > MOST {
            let found = format!("more than {MOST} files");
            let remedy = "Point at the folder of one series.";
            return Err(Error::file(folder, found, "the folder of a DICOM series", remedy));
        }
    }
    Ok(())
}

/// Whether a file begins as DICOM files do. Directories of media begin so, too, and hold no image.
pub(super) fn begins_as_dicom(file: &Path) -> bool {
    use std::io::Read;
    if !file.is_file() {
        return false;
    }
    let mut start = [0; START];
    let whole = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
    whole.is_ok() && start.ends_with(b"DICM")
}
