//! A DICOM series as an image, a DICOM segmentation as a mask.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use nifti::{Endianness, NiftiType};

use super::archive;
use super::frames::Frames;
use super::item::Item;
use super::lengths::START;
use super::mask::Mask;
use super::series::{EXPECTED, Series};
use super::slice::{Part, contents, is_segmentation, object};
use super::tree::{Tree, all_files, begins_as_dicom};
use crate::base::{Error, Result};
use crate::imaging::opened::Opened;
use crate::imaging::voxels::Stored;

/// Whether a path is a folder, an archive that may hold a series, or a DICOM file, of which these are the first bytes.
pub(in crate::imaging) fn is(path: &Path, start: &[u8]) -> bool {
    let file = start.get(START - 4..START) == Some(b"DICM");
    file || path.is_dir() || archive::is(path, start)
}

/// Opens a series: the one of this UID or number, or the only one below a folder, in an archive or in a file; where there is
/// none, the only segmentation.
pub(in crate::imaging) fn open(path: &Path, series: Option<&str>) -> Result<Opened> {
    let Tree { items, unpacked } = Tree::find(path)?;
    if items.is_empty() {
        let found = if path.is_dir() { "a folder" } else { "an archive" };
        let expected = "an image: a file, or a folder or archive of DICOM files";
        let remedy = "Name a file instead, or the folder of a series.";
        return Err(Error::file(path, format!("{found} without DICOM files"), expected, remedy));
    }
    let Some(Series { slices, grid }) = Series::choose(path, &items, series)? else {
        return Opened::of_mask(path, Mask::read(&only_mask(path, &items)?)?);
    };
    let [i, j, k] = grid.dims;
    let stored = Stored::unscaled(NiftiType::Float32, Endianness::Little, [i, j, k, 1]);
    Opened::of_frames(path, Frames::new(slices, unpacked), stored, grid)
}

/// The only segmentation of files that hold no image.
fn only_mask(path: &Path, items: &[Item]) -> Result<Item> {
    let mut masks = Vec::new();
    for item in items {
        let object = object(&item.file, &item.shown, false)?;
        if is_segmentation(&Part(&object)) {
            masks.push(item);
        }
    }
    match masks.as_slice() {
        [item] => Ok((*item).clone()),
        [] => {
            let remedy = "Point at the folder or archive of a series.";
            Err(Error::file(path, "no DICOM image", EXPECTED, remedy))
        }
        several => {
            let found = format!("{} DICOM segmentations and no image", several.len());
            Err(Error::file(path, found, "one segmentation, or a series", "Name one file."))
        }
    }
}

/// The DICOM segmentations of a folder, where all DICOM files that lie in it are some; else none.
///
/// # Errors
///
/// Where the folder cannot be listed.
pub(in crate::imaging) fn segmentations_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| begins_as_dicom(file));
    files.sort();
    let is = |file: &PathBuf| {
        object(file, file, false).is_ok_and(|object| is_segmentation(&Part(&object)))
    };
    Ok(if files.iter().all(is) { files } else { Vec::new() })
}

/// The folders and archives of DICOM images that a folder stands for: itself, where DICOM files lie in it or where those in its
/// folders are of one study; else those of its folders and archives that hold some. None where there is no such file.
///
/// # Errors
///
/// Where the folder cannot be listed.
pub fn dicom_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    if entries.iter().any(|entry| begins_as_dicom(entry)) {
        return Ok(vec![folder.to_path_buf()]);
    }
    let (mut inner, mut studies) = (Vec::new(), BTreeSet::new());
    for entry in entries {
        if entry.is_dir() {
            let files = all_files(&entry)?;
            let first = files.into_iter().find(|file| begins_as_dicom(file));
            let Some(file) = first else { continue };
            let item = Item { shown: file.clone(), file };
            studies.insert(
                contents(&item)
                    .ok()
                    .flatten()
                    .map(|found| Part(&found.object).text(tags::STUDY_INSTANCE_UID)),
            );
            inner.push(entry);
        } else if archive::is(&entry, &start(&entry)) {
            // what is in it is seen once it is unpacked
            studies.insert(Some(entry.display().to_string()));
            inner.push(entry);
        }
    }
    let one = inner.len() > 1 && studies.len() == 1;
    Ok(if one { vec![folder.to_path_buf()] } else { inner })
}

/// Whether a path is a folder with DICOM files.
pub fn holds_series(path: &Path) -> bool {
    path.is_dir() && dicom_folders(path).is_ok_and(|folders| !folders.is_empty())
}

fn start(file: &Path) -> Vec<u8> {
    use std::io::Read;
    let mut start = Vec::new();
    let opened = file.is_file().then(|| std::fs::File::open(file).ok()).flatten();
    // what cannot be read is no archive
    let _ = opened.map(|file| file.take(512).read_to_end(&mut start));
    start
}

/// Whether a file is a whole DICOM segmentation.
pub fn holds_segmentation(path: &Path) -> bool {
    let read = begins_as_dicom(path).then(|| object(path, path, true).ok()).flatten();
    read.is_some_and(|object| {
        let part = Part(&object);
        is_segmentation(&part) && part.has(tags::PIXEL_DATA)
    })
}

/// The files that a series may lie in: all below a folder, or the file itself.
pub(in crate::imaging) fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() { all_files(path).unwrap_or_default() } else { vec![path.to_path_buf()] }
}
