//! What runs read and write, known before anything is computed.

use std::path::{Path, PathBuf};

use super::cases::datasets;
use super::config::RunConfig;
use super::trainer::run_files;
use crate::Result;
use crate::base::files::{Claim, Paths, safe_name};
use crate::dataset::Case;
use crate::domain::PresetChoice;

/// Folder of a run, or of several folds, that holds the scores of held-out cases.
const VALIDATION: &str = "validation";
/// Scores of a domain's held-out cases.
pub const SUMMARY: &str = "summary.json";

/// The folder of a domain's held-out cases, by the domain's name.
pub fn validation_folder(out: &Path, domain: &str) -> PathBuf {
    out.join(VALIDATION).join(safe_name(domain))
}

/// The mask of a held-out case in such a folder.
pub fn mask_file(folder: &Path, case: &Case) -> PathBuf {
    folder.join(format!("{}.nii.gz", safe_name(&case.id)))
}

/// What a command reads and writes beside its runs.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    pub reads: Vec<PathBuf>,
    /// Each with what it is made from.
    pub writes: Vec<(PathBuf, PathBuf)>,
}

/// Claims what these runs, each with its folder, will write: nothing of it is what they read, no two of it are one place, and
/// all of it can be written.
pub fn claim(
    runs: &[(PathBuf, RunConfig)],
    preset: &PresetChoice,
    beside: &Beside,
) -> Result<Claim> {
    let mut paths = Paths::of_setting("out");
    for (out, config) in runs {
        if let Some(start) = &config.start {
            paths.reads(&start.model);
        }
        for file in run_files(config) {
            paths.writes(out.join(file), out);
        }
        for dataset in datasets(config, preset)? {
            dataset.files().iter().for_each(|file| paths.reads(file));
            let (_, held_out) = dataset.split(&config.fold, config.seed)?;
            let folder = validation_folder(out, &dataset.name);
            if !held_out.is_empty() {
                paths.writes(folder.join(SUMMARY), &dataset.dir);
            }
            held_out.iter().for_each(|case| paths.writes(mask_file(&folder, case), &case.label));
        }
    }
    beside.reads.iter().for_each(|file| paths.reads(file));
    beside.writes.iter().for_each(|(file, from)| paths.writes(file, from));
    paths.claim()
}
