//! A folder for prepared cases that goes away with its process.

use std::path::Path;

use tempfile::TempDir;

use crate::base::files::{Lock, file_name};
use crate::base::{Error, Result};

/// What the names of such folders begin with.
const START: &str = "u2seg-prepared-";
/// File in it that its process holds the lock of.
const OWNER: &str = "owner";

/// The folder, and the lock that says that its process lives.
#[derive(Debug)]
pub(super) struct Temporary {
    // goes first
    pub folder: TempDir,
    _owner: Lock,
}

impl Temporary {
    /// A new folder in another one; those of processes that were killed go.
    ///
    /// # Errors
    ///
    /// Where it cannot be made, or its file system has no locks.
    pub fn new(place: &Path) -> Result<Self> {
        sweep(place);
        loop {
            let folder = tempfile::Builder::new().prefix(START).tempdir_in(place);
            let folder = folder.map_err(|e| Error::io(place, e))?;
            let owner = Lock::wait(&folder.path().join(OWNER))?;
            // a sweep may have come between
            if owner.path().exists() {
                return Ok(Self { folder, _owner: owner });
            }
        }
    }
}

/// Removes the folders of dead processes. What cannot be removed, such as other users', stays.
fn sweep(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        let owner = path.join(OWNER);
        if !file_name(&path).starts_with(START) || !owner.is_file() {
            continue;
        }
        if let Ok(Some(_held)) = Lock::take(&owner) {
            match std::fs::remove_dir_all(&path) {
                Ok(()) => {
                    log::info!("{}: left by a process that was killed; removed", path.display())
                }
                Err(e) => log::debug!("{}: {e}", path.display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_processes_go_and_those_of_the_living_stay() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for (name, file) in
            [("u2seg-prepared-dead", OWNER), ("u2seg-prepared-mine", "x"), ("other", OWNER)]
        {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join(file), b"").unwrap();
        }
        let living = Temporary::new(place.path()).unwrap();
        let other = Temporary::new(place.path()).unwrap();
        assert!(living.folder.path().exists() && other.folder.path().exists());
        assert!(!at("u2seg-prepared-dead").exists());
        assert!(at("u2seg-prepared-mine").exists() && at("other").exists());
        drop((living, other));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
    }
}
