//! Archives: tar, plain or in gzip, and zip.

mod tar;
mod tree;
mod zip;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use self::tree::Tree;
use super::limits::Limits;
use super::progress::Watch;
use crate::base::files::open_file;
use crate::base::{Error, Result};

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tar,
    TarGz,
    Zip,
    /// No archive that is unpacked here.
    Plain,
}

/// Bytes that tell a tar.
const BLOCK: u64 = 512;

fn begin(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    reader.take(BLOCK).read_to_end(&mut start)?;
    Ok(start)
}

fn open(path: &Path) -> Result<File> {
    open_file(path, "an archive")
}

impl Kind {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let start = begin(open(path)?).map_err(|e| Error::io(path, e))?;
        Ok(match start.as_slice() {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            // what is broken inside is told when it is unpacked
            [0x1f, 0x8b, ..] => match begin(MultiGzDecoder::new(open(path)?)) {
                Ok(start) if tar::is_header(&start) => Self::TarGz,
                _ => Self::Plain,
            },
            start if tar::is_header(start) => Self::Tar,
            _ => Self::Plain,
        })
    }
}

/// Unpacks an archive into a folder that is made for it.
pub(super) fn unpack(
    archive: &Path,
    kind: Kind,
    into: &Path,
    limits: &Limits,
    watch: &mut Watch,
) -> Result<()> {
    let file = open(archive)?;
    let bytes = file.metadata().map_err(|e| Error::io(archive, e))?.len();
    let mut tree = Tree::new(archive, into, limits, watch)?;
    let file = BufReader::with_capacity(1 << 17, file);
    match kind {
        Kind::Tar => {
            tree.expect(bytes)?;
            tar::unpack(file, &mut tree)
        }
        Kind::TarGz => tar::unpack(MultiGzDecoder::new(file), &mut tree),
        Kind::Zip => zip::unpack(file, &mut tree),
        Kind::Plain => Err(Error::Internal("a file that is no archive".into())),
    }
}
