//! The files of a run's folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::base::files::{read_known_json, safe_name, write_atomically};
use crate::base::{Error, Result};
use crate::dataset::Case;
use crate::domain::DomainPlan;
use crate::train::RunConfig;

/// The settings of a run.
pub const CONFIG: &str = "config.toml";
/// The plans of the domains.
pub const PLAN: &str = "plan.json";
/// Weights, moments and where the training stands.
pub const CHECKPOINT: &str = "last.safetensors";
/// The checkpoint before that.
pub const PREVIOUS: &str = "previous.safetensors";
/// A checkpoint that was found damaged.
pub(super) const DAMAGED: &str = "damaged.safetensors";
/// The weights with the best scores of held-out patches so far.
pub const BEST: &str = "best.safetensors";
/// The variants of kernels that the run uses.
pub const TUNING: &str = "tuning.json";
/// Readings of the loss, a JSON object a line.
pub const LOG: &str = "log.jsonl";
/// The loss of each domain over the steps.
pub const PROGRESS: &str = "progress.png";
/// How the run came about, start by start.
pub const RECORD: &str = "run.json";
/// Everything about the run on one page.
pub const REPORT: &str = "report.html";
/// The new domain alone, where a run adapted a model.
pub const ADDED: &str = "domain.safetensors";
/// The model of a finished run.
pub const MODEL: &str = "model.safetensors";
/// Scores of a domain's held-out cases.
pub const SUMMARY: &str = "summary.json";
/// Folder of a run, or of several folds, that holds the scores of held-out cases.
const VALIDATION: &str = "validation";

/// Beginning of the name of a fold's folder.
pub(super) const FOLD: &str = "fold_";

/// A run by its folder.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFolder {
    /// Where its files are, or will be.
    pub folder: PathBuf,
    /// Its settings.
    pub config: RunConfig,
}

impl RunFolder {
    /// The run that a folder holds.
    ///
    /// # Errors
    ///
    /// Where its start was cut short, or `config.toml` cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        Planning::check(folder)?;
        let config = RunConfig::read(&folder.join(CONFIG))?;
        Ok(Self { folder: folder.to_path_buf(), config })
    }
}

/// Files that a run writes into its folder, beside the masks and scores of held-out cases and TensorBoard's events, whose
/// names are new at each start.
pub(super) fn run_files(config: &RunConfig) -> Vec<&'static str> {
    let mut files = vec![CONFIG, PLAN, TUNING, CHECKPOINT, PREVIOUS, DAMAGED, MODEL, LOG, PROGRESS];
    files.extend([RECORD, REPORT]);
    files.extend(config.validation.as_ref().map(|_| BEST));
    files.extend(config.start.as_ref().map(|_| ADDED));
    files
}

/// The folder of a domain's held-out cases, by the domain's name.
pub fn validation_folder(out: &Path, domain: &str) -> PathBuf {
    out.join(VALIDATION).join(safe_name(domain))
}

/// The mask of a held-out case in such a folder.
pub fn mask_file(folder: &Path, case: &Case) -> PathBuf {
    folder.join(format!("{}.nii.gz", safe_name(&case.id)))
}

/// The picture of a held-out case in such a folder.
pub(super) fn picture_file(folder: &Path, case: &Case) -> PathBuf {
    folder.join(format!("{}.png", safe_name(&case.id)))
}

/// Whether a run's kernels are chosen, or it has a checkpoint.
pub fn is_begun(out: &Path) -> bool {
    out.join(TUNING).exists() || has_checkpoint(out)
}

/// Whether a run has a checkpoint: a crash may leave the one before alone.
pub(super) fn has_checkpoint(out: &Path) -> bool {
    [CHECKPOINT, PREVIOUS].iter().any(|file| out.join(file).exists())
}

/// Refuses the folder of a run that has a checkpoint.
pub(super) fn check_new(out: &Path) -> Result<()> {
    if has_checkpoint(out) {
        return Err(Error::file(
            out,
            "a run that was begun before",
            "a new folder",
            "Add `continue` to go on with it, or choose another `out`.",
        ));
    }
    Ok(())
}

/// A file that stands in a folder while plans are written into it and below. Where it was left, not all of them are there.
const PLANNING: &str = "planning";

/// Plans that are being written; without [`Planning::end`] nobody goes on with them.
#[must_use]
pub(super) struct Planning(PathBuf);

impl Planning {
    pub fn begin(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        let file = out.join(PLANNING);
        write_atomically(&file, b"")?;
        Ok(Self(file))
    }

    pub fn end(self) -> Result<()> {
        remove(&self.0)
    }

    /// Refuses a folder whose plans were not written to their end.
    pub fn check(out: &Path) -> Result<()> {
        if !out.join(PLANNING).exists() {
            return Ok(());
        }
        let remedy = "Start it again without `continue`: nothing is trained yet.";
        let found = "a run whose start was cut short before it was planned";
        Err(Error::file(out, found, "the settings and plans of a run", remedy))
    }
}

/// Writes `config.toml` and `plan.json` of a run that is not begun.
pub(super) fn write_plan(config: &RunConfig, plans: &[DomainPlan], out: &Path) -> Result<()> {
    check_new(out)?;
    let planning = Planning::begin(out)?;
    let json = serde_json::to_vec_pretty(plans).map_err(|e| Error::Internal(e.to_string()))?;
    write_atomically(&out.join(PLAN), &json)?;
    config.write(&out.join(CONFIG))?;
    // what an earlier start left, which the new one would go on with
    [TUNING, BEST].iter().try_for_each(|file| remove(&out.join(file)))?;
    planning.end()
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

/// Reads `plan.json` of a run.
///
/// # Errors
///
/// Where the file cannot be read, or holds what nothing can be trained with.
pub fn read_plan(out: &Path) -> Result<Vec<DomainPlan>> {
    let path = out.join(PLAN);
    let remedy = "Correct the file, or start a new run.";
    let plans: Vec<DomainPlan> = read_known_json(&path, "a plan for each domain", remedy)?;
    plans.iter().try_for_each(|plan| plan.check(&path))?;
    Ok(plans)
}

/// Whether a folder holds a run, or runs below it.
pub fn holds_runs(out: &Path) -> bool {
    let mut runs = Vec::new();
    out.is_dir() && find(out, DEPTH, &mut runs).is_ok() && !runs.is_empty()
}

/// How far below a folder its runs lie: those of the folds of independent networks.
pub(super) const DEPTH: usize = 2;

/// Folders with a `config.toml`, down to some depth.
pub(super) fn find(folder: &Path, depth: usize, runs: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join(CONFIG).exists() {
        runs.push(folder.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if depth > 0 && path.is_dir() {
            find(&path, depth - 1, runs)?;
        }
    }
    Ok(())
}
