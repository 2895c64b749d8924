//! A folder for prepared cases that goes away with its process.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use crate::base::files::{Lock, file_name};
use crate::base::{Error, Result};

/// What the names of such folders begin with, and what is added to the name of the file whose lock its process holds. That file
/// is there before the folder and after it, so that a folder without a held lock is a dead process's.
const START: &str = "u2seg-cases-";
const LOCK: &str = "lock";

/// The folder, and the lock that says that its process lives.
#[derive(Debug)]
pub(super) struct Temporary {
    folder: PathBuf,
    owner: Lock,
}

impl Temporary {
    /// A new folder in another one; those of processes that were killed go.
    ///
    /// # Errors
    ///
    /// Where it cannot be made, or its file system has no locks.
    pub fn new(place: &Path) -> Result<Self> {
        sweep(place);
        let refuse = |e| Error::io(place, e);
        loop {
            let mut name = tempfile::Builder::new();
            let file = name.prefix(START).suffix(&format!(".{LOCK}")).tempfile_in(place);
            let (file, path) = file.map_err(refuse)?.keep().map_err(|e| refuse(e.error))?;
            drop(file);
            let owner = Lock::wait(&path)?;
            // a sweep may have come between
            if !path.exists() {
                continue;
            }
            let folder = path.with_extension("");
            private().create(&folder).map_err(|e| Error::io(&folder, e))?;
            return Ok(Self { folder, owner });
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // what stays is swept at another start
        if std::fs::remove_dir_all(&self.folder).is_ok() {
            let _ = std::fs::remove_file(self.owner.path());
        }
    }
}

/// Makes folders that other users cannot look into.
fn private() -> DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Removes the folders of dead processes, and their locks. What cannot be removed, such as other users', stays.
fn sweep(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        if !file_name(&path).starts_with(START) {
            continue;
        }
        let is_lock = path.extension().is_some_and(|extension| extension == LOCK);
        let folder = if is_lock { path.with_extension("") } else { path };
        let lock = folder.with_extension(LOCK);
        let held = match lock.exists() {
            true => Lock::take(&lock),
            false => Ok(None),
        };
        // a lock that another process holds, or that is another user's
        if lock.exists() && !matches!(held, Ok(Some(_))) {
            continue;
        }
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                log::debug!("{}: {e}", folder.display());
                continue;
            }
            Err(_) => {}
            Ok(()) => {
                log::info!("{}: left by a process that was killed; removed", folder.display())
            }
        }
        let _ = std::fs::remove_file(&lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_processes_go_and_those_of_the_living_stay() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        // killed while it worked, before it made its folder, and while it removed it
        for folder in ["u2seg-cases-1", "u2seg-cases-3", "u2seg-other"] {
            std::fs::create_dir_all(at(folder).join("cases")).unwrap();
        }
        for lock in ["u2seg-cases-1.lock", "u2seg-cases-2.lock"] {
            std::fs::write(at(lock), b"").unwrap();
        }
        let living = Temporary::new(place.path()).unwrap();
        let other = Temporary::new(place.path()).unwrap();
        assert!(living.folder().exists() && other.folder().exists());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 5);
        drop((living, other));
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().flatten().collect();
        assert!(left.len() == 1 && left[0].file_name() == "u2seg-other", "{left:?}");
    }

    #[test]
    fn no_folder_is_swept_that_was_just_made() {
        let place = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                for _ in 0..200 {
                    let made = Temporary::new(place.path()).unwrap();
                    assert!(made.folder().exists());
                }
            });
            while !maker.is_finished() {
                sweep(place.path());
            }
            maker.join().unwrap();
        });
    }
}
