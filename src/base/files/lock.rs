//! Locks between processes. The system frees them when a process ends, however it ends.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

/// A lock that is held until it is dropped.
#[derive(Debug)]
#[must_use = "the lock is free once this is dropped"]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits until no other process holds the lock of a file, which is made where there is none.
    ///
    /// # Errors
    ///
    /// Where the file cannot be made or the file system has no locks.
    pub fn wait(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock().map_err(|e| unlockable(path, &e))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Takes the lock of a file unless another process holds it.
    ///
    /// # Errors
    ///
    /// As [`Lock::wait`].
    pub fn take(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path: path.to_path_buf() })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(unlockable(path, &e)),
        }
    }

    /// The file, open to read and write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file still lies at its path: a holder before may have removed it, and another one made it anew.
    pub fn is_at_its_path(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let identity = |file: std::fs::Metadata| (file.dev(), file.ino());
            let there = std::fs::metadata(&self.path).ok().map(identity);
            there.is_some() && there == self.file.metadata().ok().map(identity)
        }
        #[cfg(not(unix))]
        self.path.exists()
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(|e| Error::io(path, e))
}

fn unlockable(path: &Path, e: &std::io::Error) -> Error {
    let found = format!("a file system without locks ({e})");
    let remedy = "Choose a folder on another disk.";
    Error::file(path, found, "locks, which keep several processes apart", remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::wait(&path).unwrap();
        assert!(Lock::take(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::take(&path).unwrap().is_some());
    }
}
