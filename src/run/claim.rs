//! What runs read and write, known before anything is computed.

use std::path::PathBuf;

use super::folder::{RunFolder, SUMMARY, mask_file, picture_file, run_files, validation_folder};
use super::report::report_file;
use crate::base::Result;
use crate::base::files::{Claim, Paths};
use crate::domain::PresetChoice;
use crate::models::is_shipped;
use crate::train::datasets;

/// What is read and written beside the runs themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    pub reads: Vec<PathBuf>,
    pub writes: Vec<Combined>,
    /// Folders that several runs share.
    pub owns: Vec<PathBuf>,
}

/// Scores of several folds.
#[derive(Debug, Clone)]
pub(super) struct Combined {
    pub file: PathBuf,
    /// The dataset that they are of.
    pub dataset: PathBuf,
}

/// Claims what these runs, each with its folder, will write: nothing of it is what they read, no two of it are one place, all
/// of it can be written, and no other process is at them.
pub(super) fn claim(runs: &[RunFolder], preset: &PresetChoice, beside: &Beside) -> Result<Claim> {
    let mut paths = Paths::of_setting("out");
    for RunFolder { folder: out, config } in runs {
        let models = config.start.iter().map(|start| &start.model).chain(&config.init);
        let files = models.filter(|model| !is_shipped(model));
        files.for_each(|model| paths.reads(model));
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
            for case in &held_out {
                paths.writes(mask_file(&folder, case), &case.label);
                paths.writes(picture_file(&folder, case), &case.label);
            }
        }
    }
    beside.reads.iter().for_each(|file| paths.reads(file));
    beside.writes.iter().for_each(|c| paths.writes(&c.file, &c.dataset));
    runs.iter().for_each(|run| paths.owns(&run.folder));
    for folder in &beside.owns {
        paths.owns(folder);
        paths.writes(report_file(folder), folder);
    }
    paths.claim()
}
