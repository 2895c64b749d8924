//! The formats that are read: a line each.

use std::path::{Path, PathBuf};

use super::opened::Opened;
use super::{dicom, metaimage, names, nifti, nrrd};
use crate::base::{Error, Result};

/// A format that is read.
struct Format {
    /// Whether a file, of which these are the first bytes, or a folder is of the format.
    is: fn(&Path, &[u8]) -> bool,
    /// Reads all but the voxels; where a path may mean several images, the name or number of the one that is wanted.
    open: fn(&Path, Option<&str>) -> Result<Opened>,
    /// The files that an image of this path lies in.
    files: fn(&Path) -> Vec<PathBuf>,
}

/// The first that takes a file reads it. The last takes them all, and says of those that are no images what they are.
const FORMATS: [Format; 4] = [
    Format { is: |_, start| nrrd::is(start), open: |p, _| nrrd::open(p), files: nrrd::files },
    Format { is: metaimage::is, open: |p, _| metaimage::open(p), files: metaimage::files },
    Format { is: dicom::is, open: dicom::open, files: dicom::files },
    Format { is: |_, _| true, open: |p, _| nifti::open(p), files: names::pair },
];

/// Bytes at the start of a file that tell its format.
const START: u64 = 1 << 10;

fn format(path: &Path) -> &'static Format {
    let start = start(path);
    let found = FORMATS.iter().find(|format| (format.is)(path, &start));
    found.unwrap_or(&FORMATS[FORMATS.len() - 1])
}

/// The first bytes of a file; none of what is no file. A pipe would block, and reading explains what it is.
fn start(path: &Path) -> Vec<u8> {
    use std::io::Read;
    let mut start = Vec::new();
    let file = path.is_file().then(|| std::fs::File::open(path).ok()).flatten();
    // what cannot be read has no first bytes, and is explained where it is opened
    let _ = file.map(|file| file.take(START).read_to_end(&mut start));
    start
}

/// Opens an image of whatever format.
pub(super) fn open(path: &Path, series: Option<&str>) -> Result<Opened> {
    (format(path).open)(path, series)
}

/// Opens an image, which no DICOM segmentation is.
pub(super) fn open_image(path: &Path, series: Option<&str>) -> Result<Opened> {
    let opened = open(path, series)?;
    if opened.segments().is_none() {
        return Ok(opened);
    }
    let remedy = "Name the series that it segments.";
    Err(Error::file(path, "a DICOM segmentation, which is a mask", "an image", remedy))
}

/// Looks whether a path is an image, or has the DICOM series of this number or UID, or only one.
///
/// # Errors
///
/// Where reading it would fail for what its headers say.
pub fn check_series(path: &Path, series: Option<&str>) -> Result<()> {
    open_image(path, series).map(drop)
}

/// The files on disk that reading this path touches: the path, and its other half where there is one; all files of a DICOM
/// folder.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    (format(path).files)(path)
}
