//! Temporary files beside the ones that they become. The process that writes one holds its lock, so that whoever finds one that
//! is free knows that its writer is dead.

use std::fs::TryLockError;
use std::io::{self, ErrorKind};
use std::path::Path;

use tempfile::NamedTempFile;

/// What names of temporary files begin and end with. A letter is a capital: the probe of a folder tells by it whether names of
/// other letter case are the same there.
const START: &str = ".u2seg-Aside-";
const END: &str = ".tmp";
/// How often a name is drawn before the folder counts as one that takes none.
const TRIES: usize = 100;

/// A new temporary file in a folder, with its lock where the file system has any. It goes away with its handle unless it is
/// renamed.
pub(super) fn create(folder: &Path) -> io::Result<NamedTempFile> {
    for _ in 0..TRIES {
        let mut builder = tempfile::Builder::new();
        let file = builder.prefix(START).suffix(END).rand_bytes(10).tempfile_in(folder)?;
        // without locks nobody sweeps either
        let locked = file.as_file().lock().is_ok();
        // a sweep may have come between
        if !locked || file.path().exists() {
            return Ok(file);
        }
    }
    Err(ErrorKind::Interrupted.into())
}

fn is_ours(name: &str) -> bool {
    let middle = name.strip_prefix(START).and_then(|name| name.strip_suffix(END));
    middle.is_some_and(|m| m.len() == 10 && m.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Removes the temporary files of dead processes from a folder. What cannot be read or removed stays: it is in nobody's way.
pub fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !plain || !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = std::fs::File::options().read(true).write(true).open(&path) else {
            continue;
        };
        match file.try_lock() {
            Ok(()) if std::fs::remove_file(&path).is_ok() => {
                log::info!("{}: left by a process that ended early; removed", path.display());
            }
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_processes_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let living = create(folder.path()).unwrap();
        let dead = create(folder.path()).unwrap();
        // its lock goes, as that of a dead process
        let dead = dead.into_temp_path().keep().unwrap();
        let others =
            [".tmpAb3dEf", ".u2seg-Aside-short.tmp", "u2seg-Aside-0123456789.tmp", "a.tmp"];
        others.iter().for_each(|name| std::fs::write(at(name), b"mine").unwrap());
        std::fs::create_dir(at(".u2seg-Aside-0123456789.tmp")).unwrap();
        sweep(folder.path());
        assert!(living.path().exists() && !dead.exists());
        assert!(others.iter().all(|name| at(name).exists()));
        assert!(at(".u2seg-Aside-0123456789.tmp").exists());
        sweep(&at("no such folder"));
    }

    #[test]
    fn no_file_is_swept_that_was_just_made() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..300 {
                    let file = create(folder.path()).unwrap();
                    file.persist(folder.path().join("whole")).unwrap();
                }
            });
            while !writer.is_finished() {
                sweep(folder.path());
            }
            writer.join().unwrap();
        });
        assert!(folder.path().join("whole").exists());
    }
}
