//! Folds of a cross-validation that were trained apart: checked whether they belong together, and scored together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::folder::{DEPTH, FOLD, MODEL, RunFolder, SUMMARY, find, mask_file, validation_folder};
use super::scores::{DomainScores, combine};
use crate::base::files::Paths;
use crate::base::{Error, Result};
use crate::dataset::{Dataset, Fold};
use crate::domain::PresetChoice;
use crate::score::listed;
use crate::score::summary::Summary;
use crate::train::{RunConfig, datasets};

/// Settings that may differ between folds: which fold it is, and what says how to compute and not what.
const FREE: [&str; 9] = [
    "fold",
    "tune",
    "vram",
    "volume_cache",
    "cache",
    "cache_size",
    "log_every",
    "checkpoint_every",
    "checkpoint_minutes",
];

/// The folds of one network.
struct Network {
    /// The folder that they share.
    parent: PathBuf,
    /// Ascending by the number of the fold.
    folds: BTreeMap<usize, RunFolder>,
}

/// Scores the folds under a folder together, as training all of them in one call does at its end: `fold_0`, `fold_1`, … of the
/// folder itself, or of the folder of each dataset in the independent mode. With `allow_missing` folds may be missing.
///
/// # Errors
///
/// Where there are no folds, one is missing, not at its end, twice there or of other settings or data than the first, or a
/// file cannot be read or written.
pub fn combine_folds(out: &Path, allow_missing: bool) -> Result<Vec<DomainScores>> {
    let networks = networks(out)?;
    let mut paths = Paths::of_setting("folds");
    for network in &networks {
        let datasets = network.check(allow_missing)?;
        for dataset in &datasets {
            let file = |folder: &Path| validation_folder(folder, &dataset.name).join(SUMMARY);
            network.folds.values().for_each(|run| paths.reads(file(&run.folder)));
            dataset.files().iter().for_each(|file| paths.reads(file));
            paths.writes(file(&network.parent), &dataset.dir);
        }
        paths.owns(&network.parent);
    }
    let _claim = paths.claim()?;
    let combined = networks.iter().map(|network| {
        let folders: Vec<&Path> = network.folds.values().map(|run| run.folder.as_path()).collect();
        combine(&network.parent, &folders)
    });
    Ok(combined.collect::<Result<Vec<_>>>()?.concat())
}

/// The number in the name of a fold's folder.
fn number(folder: &Path) -> Option<usize> {
    folder.file_name()?.to_str()?.strip_prefix(FOLD)?.parse().ok()
}

fn networks(out: &Path) -> Result<Vec<Network>> {
    let mut folders = Vec::new();
    find(out, DEPTH, &mut folders)?;
    let mut networks: BTreeMap<PathBuf, BTreeMap<usize, RunFolder>> = BTreeMap::new();
    for folder in folders {
        let Some((index, parent)) = number(&folder).zip(folder.parent().map(Path::to_path_buf))
        else {
            continue;
        };
        let run = RunFolder::read(&folder)?;
        if run.config.fold != Fold::Index(index) {
            let found = run.config.fold.described();
            let remedy = "Take the folder out, or give it the name of its fold if that is missing.";
            return Err(Error::file(
                folder,
                found,
                format!("fold {index}, as its name says"),
                remedy,
            ));
        }
        let folds = networks.entry(parent).or_default();
        if let Some(other) = folds.insert(index, run) {
            let found = format!("fold {index} a second time, beside {}", other.folder.display());
            return Err(Error::file(folder, found, "each fold once", "Take one of them out."));
        }
    }
    // what lies elsewhere below is other work
    networks.retain(|parent, _| parent == out || parent.parent() == Some(out));
    if networks.is_empty() {
        let expected = "folders fold_0, fold_1 and so on, each the run of a fold";
        let remedy = "Train each by `train` with its `fold` and that folder as `out`.";
        return Err(Error::file(out, "no fold", expected, remedy));
    }
    Ok(networks.into_iter().map(|(parent, folds)| Network { parent, folds }).collect())
}

impl Network {
    /// Refuses folds that do not belong together; gives their datasets.
    fn check(&self, allow_missing: bool) -> Result<Vec<Dataset>> {
        let runs: Vec<&RunFolder> = self.folds.values().collect();
        let Some((first, others)) = runs.split_first() else { return Ok(Vec::new()) };
        others.iter().try_for_each(|other| check_alike(first, other))?;
        let all = datasets(&first.config, &PresetChoice::None)?;
        self.check_count(all.iter().map(Dataset::folds).max().unwrap_or(0), allow_missing)?;
        for run in runs {
            // which groups are held out depends on the fold
            for dataset in datasets(&run.config, &PresetChoice::None)? {
                check_scores(run, &dataset)?;
            }
        }
        Ok(all)
    }

    fn check_count(&self, count: usize, allow_missing: bool) -> Result<()> {
        if let Some((index, run)) = self.folds.iter().find(|(index, _)| **index >= count) {
            let expected =
                format!("a fold below {count}, the number of folds that the data has now");
            let remedy = "The data changed since: train the folds again.";
            return Err(Error::file(&run.folder, format!("fold {index}"), expected, remedy));
        }
        let missing = (0..count).filter(|index| !self.folds.contains_key(index));
        let missing: Vec<String> = missing.map(|index| index.to_string()).collect();
        if missing.is_empty() || allow_missing {
            return Ok(());
        }
        let found =
            format!("{} of {count} folds, without {}", self.folds.len(), missing.join(", "));
        let remedy = "Train what is missing, or add `allow_missing` to score the others.";
        Err(Error::file(&self.parent, found, "every fold", remedy))
    }
}

/// Settings by name, those that matter for what is learned.
fn settings(config: &RunConfig) -> Result<toml::Table> {
    let table = toml::Table::try_from(config).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(table.into_iter().filter(|(name, _)| !FREE.contains(&name.as_str())).collect())
}

/// Refuses two folds of other settings or data.
fn check_alike(first: &RunFolder, other: &RunFolder) -> Result<()> {
    let (a, b) = (settings(&first.config)?, settings(&other.config)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    if let Some(name) = names.into_iter().find(|name| a.get(*name) != b.get(*name)) {
        let told = |table: &toml::Table| {
            table
                .get(name)
                .map_or_else(|| format!("no {name}"), |value| format!("{name} = {value}"))
        };
        let expected = format!("{}, as {} has", told(&a), first.folder.display());
        let remedy =
            "Folds of one cross-validation have the same settings: train one of them again.";
        return Err(Error::file(&other.folder, told(&b), expected, remedy));
    }
    if first.config.vram != other.config.vram {
        log::warn!(
            "{} and {} were planned for other amounts of memory: their patches may differ; --vram makes them alike",
            first.folder.display(),
            other.folder.display()
        );
    }
    Ok(())
}

/// Refuses a fold that is not at its end, or that scored other cases than it holds out now.
fn check_scores(run: &RunFolder, dataset: &Dataset) -> Result<()> {
    let folder = &run.folder;
    let held_out = dataset.split(&run.config.fold, run.config.seed)?.validation;
    let scores = validation_folder(folder, &dataset.name);
    let file = scores.join(SUMMARY);
    let scored = file.exists() || held_out.is_empty();
    if !folder.join(MODEL).exists() || !scored {
        let remedy = "Go on with it by `train` with `continue` and the folder as `out`.";
        return Err(Error::file(
            folder,
            "a fold that is not at its end",
            "a trained and scored one",
            remedy,
        ));
    }
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let expected: BTreeSet<_> =
        held_out.iter().filter_map(|case| name(&mask_file(&scores, case))).collect();
    let found: BTreeSet<_> = match file.exists() {
        true => Summary::read(&file)?.metric_per_case,
        false => Vec::new(),
    }
    .iter()
    .filter_map(|case| name(Path::new(&case.prediction_file)))
    .collect();
    if found == expected {
        return Ok(());
    }
    let list = |names: BTreeSet<String>| listed(&names.into_iter().collect::<Vec<_>>());
    let expected = format!("those of {}: {}", dataset.dir.display(), list(expected));
    let remedy = "The data or its folds changed since: train the folds again.";
    Err(Error::file(file, format!("scores of {}", list(found)), expected, remedy))
}
