//! `u2seg evaluate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::flags::Given;
use super::say;
use crate::base::files::{Paths, folder};
use crate::base::{Error, Result};
use crate::dataset::DESCRIPTION;
use crate::domain::{DescribedLabels, described_labels};
use crate::imaging::{Match, files_of};
use crate::run::combine_folds;
use crate::score::summary::names;
use crate::score::{
    EvaluateOptions, LabelMerge, MaskPair, PROBABILITIES, UNCERTAINTY, pair_masks, score_pairs,
};

/// In place of a file: no description, even where there is one.
pub(super) const NONE: &str = "none";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg evaluate -p masks -g Task09_Spleen/labelsTr
  u2seg evaluate -p mask.nii.gz -g reference.nii.gz --labels Task09_Spleen/dataset.json
  u2seg evaluate -p masks -g labels -o scores/summary.json")]
pub struct Args {
    /// Folder of predicted masks, or one mask
    #[arg(short, long, required_unless_present = "folds", value_name = "MASKS")]
    predictions: Option<PathBuf>,
    /// Folder of reference masks, or one mask
    ///
    /// Files belong together whose names are the same without .nii.gz and other endings.
    #[arg(short, long, required_unless_present = "folds", value_name = "MASKS")]
    ground_truth: Option<PathBuf>,
    /// Instead: score the folds of a run together
    ///
    /// For folds that were trained apart, each by `u2seg train --fold K -o RUN/fold_K`. Writes RUN/validation/DOMAIN/summary.json,
    /// as training all folds in one call does.
    #[arg(
        long,
        value_name = "RUN",
        conflicts_with_all = ["predictions", "ground_truth", "output", "labels", "merge", "matching", "probabilities"]
    )]
    folds: Option<PathBuf>,
    /// Write the scores to this JSON file, with nnU-Net's keys
    #[arg(short, long, alias = "out", value_name = "FILE")]
    output: Option<PathBuf>,
    /// The dataset.json with classes, regions and ignore label
    ///
    /// In the Decathlon's form or nnU-Net's; values that it does not name are an error. By default the one in the folder of
    /// references or beside that folder. Without any, or with `none`, every value above 0 that occurs is a class.
    #[arg(long, value_name = "FILE|none")]
    labels: Option<PathBuf>,
    /// Score references without a prediction against an empty mask
    ///
    /// That is Dice 0 for every class that they have. The summary lists them, and has the mean without them. Otherwise they are
    /// an error. With --folds, score the folds that are there.
    #[arg(long)]
    allow_missing: bool,
    /// Count a label as another, such as 2=1
    ///
    /// For example where tumours (2) were trained as part of the organ (1).
    #[arg(long, num_args = 1.., value_parser = merge, value_name = "FROM=TO")]
    merge: Vec<LabelMerge>,
    /// Folder with probabilities/ and uncertainty/, or none
    ///
    /// By default that of the predictions, where `u2seg predict --save-probabilities --uncertainty` wrote them. Adds the calibration
    /// error of each class, and Dice without uncertain voxels.
    #[arg(long, value_name = "FOLDER|none")]
    probabilities: Option<PathBuf>,
    /// Print the scores as JSON, with nnU-Net's keys
    #[arg(long, conflicts_with = "folds")]
    json: bool,
    /// How to match a prediction with its reference, whose grid decides
    #[arg(long = "match", value_enum, default_value_t, value_name = "WAY")]
    matching: Match,
}

pub fn run(args: &Args, given: &Given) -> Result<()> {
    if let Some(run) = &args.folds {
        return folds(run, args.allow_missing);
    }
    let (Some(predictions), Some(references)) = (&args.predictions, &args.ground_truth) else {
        return Err(Error::Internal("neither masks nor folds".into()));
    };
    let mut options = EvaluateOptions {
        labels: None,
        merge: args.merge.clone(),
        matching: args.matching,
        allow_missing: args.allow_missing,
        probabilities: None,
    };
    options.check()?;
    let pairs = pair_masks(predictions, references, options.allow_missing)?;
    options.labels = described(args, references)?;
    options.probabilities = probabilities(args, predictions, options.labels.is_some())?;
    let described = options.labels.as_ref();
    let names = described.map_or_else(BTreeMap::new, |described| names(&described.labels));
    // whatever else is wrong must not come out after all is computed
    let _claim = paths(args, predictions, &pairs, &options).claim()?;
    let summary = score_pairs(&pairs, &options, |error| fault!("{}", given.told(error)))?;
    if let Some(folder) = &args.probabilities
        && options.probabilities.is_some()
        && summary.calibration.is_none()
        && summary.uncertainty.is_none()
    {
        return Err(no_maps(folder));
    }
    // either is worth having without the other
    let printed = match args.json {
        true => say::print_json(&summary),
        false => print(&summary.print_table(&names)),
    };
    if let Some(path) = &args.output {
        summary.write(path)?;
    }
    printed
}

/// Scores the folds of a run together.
fn folds(run: &Path, allow_missing: bool) -> Result<()> {
    let which = if allow_missing { "the folds that are there" } else { "all folds" };
    for scores in combine_folds(run, allow_missing)? {
        say!("{}, {which}", scores.domain);
        print(&scores.table())?;
    }
    Ok(())
}

fn print(table: &str) -> Result<()> {
    say!("{}", table.trim_end());
    Ok(())
}

/// What the command reads and writes.
fn paths(args: &Args, predictions: &Path, pairs: &[MaskPair], options: &EvaluateOptions) -> Paths {
    let mut paths = Paths::new();
    let Some(output) = &args.output else { return paths };
    for MaskPair { reference, prediction, .. } in pairs {
        files_of(reference)
            .into_iter()
            .chain(files_of(prediction))
            .for_each(|file| paths.reads(file));
    }
    if let Some(described) = &options.labels {
        paths.reads(&described.file);
    }
    if let Some(folder) = &options.probabilities {
        [PROBABILITIES, UNCERTAINTY].iter().for_each(|kind| paths.reads(folder.join(kind)));
    }
    paths.writes(output, predictions);
    paths
}

/// The description that a flag names, or that lies with the references.
fn described(args: &Args, references: &Path) -> Result<Option<DescribedLabels>> {
    if let Some(file) = &args.labels {
        return match file.as_os_str() == NONE {
            true => Ok(None),
            false => described_labels(file).map(Some),
        };
    }
    let Some(file) = nearby(references) else { return Ok(None) };
    let labels = described_labels(&file).map_err(|error| match error {
        Error::File { path, found, expected, remedy } => {
            let remedy = format!("{remedy} Or score without it: --labels {NONE}.");
            Error::File { path, found, expected, remedy }
        }
        other => other,
    })?;
    note!("labels as in {} (--labels {NONE} to go without)", file.display());
    Ok(Some(labels))
}

/// The folder of probabilities that a flag names, or that of the predictions where it has any.
fn probabilities(args: &Args, predictions: &Path, described: bool) -> Result<Option<PathBuf>> {
    if args.probabilities.as_ref().is_some_and(|folder| folder.as_os_str() == NONE) {
        return Ok(None);
    }
    let own = if predictions.is_dir() { predictions } else { folder(predictions) };
    let holds =
        |folder: &Path| [PROBABILITIES, UNCERTAINTY].iter().any(|kind| folder.join(kind).is_dir());
    let usable = described && args.merge.is_empty();
    match &args.probabilities {
        Some(folder) if !holds(folder) => Err(no_maps(folder)),
        Some(folder) if !usable => Err(Error::setting(
            "probabilities",
            folder.display().to_string(),
            "the names of classes, which `labels` describes, and no `merge`",
            "Name the dataset.json by `labels`, or leave one of the flags out.",
        )),
        Some(folder) => Ok(Some(folder.clone())),
        None if !holds(own) => Ok(None),
        None if !usable => {
            note!(
                "the probabilities beside the predictions are not scored: that takes the names of the classes (--labels), and no --merge"
            );
            Ok(None)
        }
        None => Ok(Some(own.to_path_buf())),
    }
}

fn no_maps(folder: &Path) -> Error {
    let found = format!("no {PROBABILITIES}/CASE/CLASS or {UNCERTAINTY}/CASE/entropy of the cases");
    let expected = "a folder that `predict` wrote with `save_probabilities` or `uncertainty`";
    Error::file(folder, found, expected, "Predict with these flags, or name another folder.")
}

/// The description in the folder of the references, or in the folder above.
pub(super) fn nearby(references: &Path) -> Option<PathBuf> {
    let folder = match references.is_dir() {
        true => references.to_path_buf(),
        false => references.parent()?.to_path_buf(),
    };
    let above = match folder.file_name() {
        Some(_) => folder.parent()?.to_path_buf(),
        // `.` and `..` name no folder
        None => folder.join(".."),
    };
    [folder, above].into_iter().map(|folder| folder.join(DESCRIPTION)).find(|file| file.is_file())
}

fn merge(text: &str) -> std::result::Result<LabelMerge, String> {
    let pair = text.split_once('=');
    let merge = pair
        .and_then(|(from, to)| Some(LabelMerge { from: from.parse().ok()?, to: to.parse().ok()? }));
    merge.ok_or_else(|| format!("expected two labels FROM=TO such as 2=1, found {text}"))
}
