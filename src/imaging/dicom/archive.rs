//! Archives of DICOM files, unpacked into a folder that goes away again. Names of members become names of files in it, so that
//! none leaves it; links and devices are passed over.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use tempfile::TempDir;

use super::item::Item;
use crate::base::files::{file_name, open_file, safe_name};
use crate::base::{Error, Result};

/// Bytes that an archive may unpack to whatever its size, and how many for each of its bytes.
const ROOMY: u64 = 1 << 30;
const DENSE: u64 = 64;
/// Members at most.
const MOST: usize = 200_000;

const EXPECTED: &str = "an archive (.zip, .tar or .tar.gz) of the files of a DICOM series";

/// Whether a file is such an archive, told by its first bytes and its name.
pub(super) fn is(path: &Path, start: &[u8]) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    let packed = [".tar.gz", ".tgz"].iter().any(|ending| name.ends_with(ending));
    is_zip(start) || is_tar(start) || packed && start.starts_with(&[0x1f, 0x8b])
}

fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04")
}

fn is_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

/// Unpacks the files of an archive; the folder goes with its handle.
pub(super) fn unpack(path: &Path) -> Result<(TempDir, Vec<Item>)> {
    let refuse = |e| Error::io(path, e);
    let mut file = open_file(path, EXPECTED)?;
    let size = file.metadata().map_err(refuse)?.len();
    let mut start = Vec::new();
    file.by_ref().take(512).read_to_end(&mut start).map_err(refuse)?;
    file.rewind().map_err(refuse)?;
    let folder = tempfile::Builder::new().prefix("u2seg-dicom-").tempdir();
    let folder = folder.map_err(|e| Error::io(std::env::temp_dir(), e))?;
    let left = ROOMY.max(size.saturating_mul(DENSE));
    let mut unpacking = Unpacking { path, folder: folder.path(), left, items: Vec::new() };
    if is_zip(&start) {
        unpacking.zip(file)?;
    } else if is_tar(&start) {
        unpacking.tar(BufReader::new(file))?;
    } else {
        unpacking.tar(MultiGzDecoder::new(BufReader::new(file)))?;
    }
    let items = unpacking.items;
    Ok((folder, items))
}

struct Unpacking<'a> {
    path: &'a Path,
    folder: &'a Path,
    /// Bytes that there is still room for.
    left: u64,
    items: Vec<Item>,
}

impl Unpacking<'_> {
    fn broken(&self, e: impl std::fmt::Display) -> Error {
        let found = format!("an archive that cannot be read ({e})");
        Error::file(self.path, found, EXPECTED, "Copy or download the file again.")
    }

    fn zip(&mut self, file: File) -> Result<()> {
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| self.broken(e))?;
        for index in 0..archive.len().min(MOST) {
            let member = archive.by_index(index).map_err(|e| self.broken(e))?;
            if member.is_file() {
                let name = member.name().map_err(|e| self.broken(e))?.into_owned();
                self.add(&name, member)?;
            }
        }
        Ok(())
    }

    fn tar(&mut self, bytes: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().map_err(|e| self.broken(e))?;
        for entry in entries.take(MOST) {
            let entry = entry.map_err(|e| self.broken(e))?;
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                self.add(&name, entry)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, member: impl Read) -> Result<()> {
        // two members of one name are two files
        let file = self.folder.join(format!("{:06} {}", self.items.len(), safe_name(name)));
        let refuse = |e| Error::io(&file, e);
        let mut to = File::create_new(&file).map_err(refuse)?;
        let copied = io::copy(&mut member.take(self.left + 1), &mut to);
        let copied = copied.map_err(|e| self.broken(format!("{name}: {e}")))?;
        if copied > self.left {
            let found = "an archive that unpacks to far more than a series";
            let remedy = "If it is as it should be, unpack it and point at the folder.";
            return Err(Error::file(self.path, found, EXPECTED, remedy));
        }
        self.left -= copied;
        self.items.push(Item { shown: self.path.join(name.trim_start_matches('/')), file });
        Ok(())
    }
}
