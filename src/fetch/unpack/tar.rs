//! tar, entry by entry. Long names are read here, and bounded: the crate's own reading takes them whatever their size.

use std::io::Read;

use tar::{Archive, EntryType, Header, PaxExtensions};

use super::tree::Tree;
use crate::base::Result;

/// Bytes of an entry that describes the next one, at most.
const DESCRIPTION: u64 = 1 << 16;

/// What an entry before a file says of it.
#[derive(Default)]
struct Described {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    /// Whether its bytes lie with gaps.
    sparse: bool,
}

/// Whether the first bytes of a file are a tar's.
pub(super) fn is_header(start: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(start) else { return false };
    let header = Header::from_byte_slice(block);
    let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let found = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
    header.cksum().is_ok_and(|told| told == found) && block[0] != 0
}

pub(super) fn unpack(reader: impl Read, tree: &mut Tree) -> Result<()> {
    let mut archive = Archive::new(reader);
    let mut next = Described::default();
    let entries = archive.entries().map_err(|e| tree.broken(e))?;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|e| tree.broken(e))?;
        match entry.header().entry_type() {
            EntryType::GNULongName => next.name = Some(description(&mut entry, tree)?),
            EntryType::XHeader => next.read_pax(&description(&mut entry, tree)?, tree)?,
            // a link's target, and words about the archive
            EntryType::GNULongLink | EntryType::XGlobalHeader => {
                description(&mut entry, tree)?;
            }
            kind => one(&mut entry, kind, std::mem::take(&mut next), tree)?,
        }
    }
    Ok(())
}

/// The bytes of an entry that describes the next one.
fn description(entry: &mut tar::Entry<impl Read>, tree: &Tree) -> Result<Vec<u8>> {
    if entry.size() > DESCRIPTION {
        return Err(tree.refuse(format!("a name of {} bytes", entry.size())));
    }
    let (size, mut bytes) = (entry.size(), Vec::new());
    entry.read_to_end(&mut bytes).map_err(|e| tree.broken(e))?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(tree.broken("it ends in a name")) }
}

/// A file or a folder.
fn one(
    entry: &mut tar::Entry<impl Read>,
    kind: EntryType,
    next: Described,
    tree: &mut Tree,
) -> Result<()> {
    let bytes = next.name.unwrap_or_else(|| entry.path_bytes().into_owned());
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let Ok(name) = std::str::from_utf8(bytes) else {
        let name = String::from_utf8_lossy(bytes);
        return Err(tree.refuse(format!("a name that is no UTF-8, {name:?}")));
    };
    let size = entry.size();
    if next.size.is_some_and(|told| told != size) {
        return Err(tree.refuse(format!("two sizes of one file, {name:?}")));
    }
    let what = match kind {
        EntryType::Directory => return tree.folder(name),
        // files of the first tars have folders by their names
        EntryType::Regular | EntryType::Continuous if name.ends_with('/') => {
            return tree.folder(name);
        }
        EntryType::Regular | EntryType::Continuous if !next.sparse => {
            return tree.file(name, size, entry);
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => "a file with gaps",
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        _ => "an entry of an unknown kind",
    };
    Err(tree.refuse(format!("{what}, {name:?}")))
}

impl Described {
    fn read_pax(&mut self, bytes: &[u8], tree: &Tree) -> Result<()> {
        for field in PaxExtensions::new(bytes) {
            let field = field.map_err(|e| tree.broken(e))?;
            let value = field.value_bytes();
            match field.key_bytes() {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(|| tree.broken("a size that is none"))?);
                }
                key if key.starts_with(b"GNU.sparse") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}
