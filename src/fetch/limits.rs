//! How much may come.

use std::path::Path;

use crate::base::{Error, Result};

/// What a download and what is unpacked of it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the download, and bytes of all files that are unpacked.
    pub bytes: u64,
    /// Files and folders that are unpacked.
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 200 << 30, files: 1_000_000 }
    }
}

/// Bytes of a disk that stay free.
const SPARE: u64 = 256 << 20;

impl Limits {
    /// Refuses more bytes than are allowed.
    pub(super) fn check_bytes(&self, bytes: u64, of: &str) -> Result<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        Err(Error::setting(
            "max_size",
            format!("{bytes} bytes or more in {of}"),
            format!("at most {}", self.bytes),
            "Raise `max_size` where so much is meant to come.",
        ))
    }

    /// Refuses more files and folders than are allowed.
    pub(super) fn check_files(&self, files: u64, of: &str) -> Result<()> {
        if files <= self.files {
            return Ok(());
        }
        Err(Error::setting(
            "max_files",
            format!("{files} files and folders or more in {of}"),
            format!("at most {}", self.files),
            "Raise `max_files` where so many are meant to come.",
        ))
    }
}

/// Refuses what a folder's disk has no room for, but for a spare.
pub(super) fn check_room(folder: &Path, bytes: u64, of: &str) -> Result<()> {
    let free = fs4::available_space(folder).map_err(|e| Error::io(folder, e))?;
    if bytes.saturating_add(SPARE) <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::file(
        folder,
        format!("{} MiB free on its disk", mib(free)),
        format!("room for {} MiB of {of}, and 256 MiB to spare", mib(bytes)),
        "Free some, or choose another `output`.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_room(folder.path(), 1, "a").is_ok());
        for bytes in [1 << 60, u64::MAX] {
            let message = check_room(folder.path(), bytes, "a").unwrap_err().to_string();
            assert!(message.contains("MiB free on its disk"), "{message}");
        }
        let limits = Limits { bytes: 10, files: 2 };
        assert!(limits.check_bytes(10, "a").is_ok() && limits.check_bytes(11, "a").is_err());
        assert!(limits.check_files(2, "a").is_ok() && limits.check_files(3, "a").is_err());
    }
}
