//! What runs read and write, known before anything is computed.

use std::path::{Path, PathBuf};

use super::folder::{RunFolder, SUMMARY, mask_file, run_files, validation_folder};
use crate::base::files::{Claim, Lock, Paths};
use crate::base::{Error, Result};
use crate::domain::PresetChoice;
use crate::train::datasets;

/// What is read and written beside the runs themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    pub reads: Vec<PathBuf>,
    pub writes: Vec<Combined>,
}

/// Scores of several folds.
#[derive(Debug, Clone)]
pub(super) struct Combined {
    pub file: PathBuf,
    /// The dataset that they are of.
    pub dataset: PathBuf,
}

/// File of a run's folder that the process which is at the run holds the lock of; it goes away with it.
const LOCK: &str = "lock";

/// Leave to write what runs write, which no other process has meanwhile.
#[must_use = "others may write there once this is dropped"]
pub(super) struct RunClaim {
    // before the folders, which go away where they are empty
    _locks: Vec<RunLock>,
    _claim: Claim,
}

/// The lock of a run's folder.
struct RunLock(Lock);

impl Drop for RunLock {
    fn drop(&mut self) {
        // one that cannot be removed is taken again by the next process
        let _ = std::fs::remove_file(self.0.path());
    }
}

impl RunLock {
    /// None where the file system has no locks, which is no reason not to train.
    fn take(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        loop {
            match Lock::take(&path) {
                Ok(Some(lock)) if path.exists() => return Ok(Some(Self(lock))),
                // another process removed the file in between, and is done
                Ok(Some(_)) => {}
                Ok(None) => {
                    let expected = "a folder of its own for each process";
                    let remedy =
                        "Wait for the other, or give another `out`; a fold's is RUN/fold_K.";
                    let found = "a run that another process is at";
                    return Err(Error::file(folder, found, expected, remedy));
                }
                Err(error) => {
                    log::warn!("{error} Nothing keeps other processes out of {}", folder.display());
                    return Ok(None);
                }
            }
        }
    }
}

/// Claims what these runs, each with its folder, will write: nothing of it is what they read, no two of it are one place, all
/// of it can be written, and no other process is at them.
pub(super) fn claim(
    runs: &[RunFolder],
    preset: &PresetChoice,
    beside: &Beside,
) -> Result<RunClaim> {
    let mut paths = Paths::of_setting("out");
    for RunFolder { folder: out, config } in runs {
        if let Some(start) = &config.start {
            paths.reads(&start.model);
        }
        for file in run_files(config) {
            paths.writes(out.join(file), out);
        }
        for dataset in datasets(config, preset)? {
            dataset.files().iter().for_each(|file| paths.reads(file));
            let held_out = dataset.split(&config.fold, config.seed)?.validation;
            let folder = validation_folder(out, &dataset.name);
            if !held_out.is_empty() {
                paths.writes(folder.join(SUMMARY), &dataset.dir);
            }
            held_out.iter().for_each(|case| paths.writes(mask_file(&folder, case), &case.label));
        }
    }
    beside.reads.iter().for_each(|file| paths.reads(file));
    beside.writes.iter().for_each(|c| paths.writes(&c.file, &c.dataset));
    let claim = paths.claim()?;
    let locks = runs.iter().map(|run| RunLock::take(&run.folder)).collect::<Result<Vec<_>>>()?;
    Ok(RunClaim { _locks: locks.into_iter().flatten().collect(), _claim: claim })
}
