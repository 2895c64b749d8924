//! zip, by its directory.

use std::io::{Read, Seek};

use zip::ZipArchive;

use super::tree::Tree;
use crate::base::Result;

/// The kind of a file in the bits of its mode, and the two that are unpacked.
const KIND: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

pub(super) fn unpack(reader: impl Read + Seek, tree: &mut Tree) -> Result<()> {
    let mut archive = ZipArchive::new(reader).map_err(|e| tree.broken(e))?;
    tree.expect_files(archive.len() as u64)?;
    let bytes = archive.decompressed_size().map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    if let Some(bytes) = bytes {
        tree.expect(bytes)?;
    }
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(|e| tree.broken(e))?;
        let name = file.name().map_err(|e| tree.broken(e))?.into_owned();
        match file.unix_mode().map(|mode| mode & KIND) {
            None | Some(0 | FILE | FOLDER) => {}
            Some(0o120_000) => return Err(tree.refuse(format!("a symbolic link, {name:?}"))),
            Some(_) => return Err(tree.refuse(format!("a device or a pipe, {name:?}"))),
        }
        if file.is_dir() {
            tree.folder(&name)?;
        } else {
            let size = file.size();
            tree.file(&name, size, &mut file)?;
        }
    }
    Ok(())
}
