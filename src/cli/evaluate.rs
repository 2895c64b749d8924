//! `u2seg evaluate`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::files::Paths;
use crate::dataset::DESCRIPTION;
use crate::domain::{DescribedLabels, described_labels};
use crate::imaging::{Match, pair};
use crate::score::summary::names;
use crate::score::{ClassKey, MaskPair, Scoring, evaluate, pair_masks};
use crate::{Error, Result};

/// In place of a file: no description, even where there is one.
const NONE: &str = "none";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of predicted masks, or a single mask.
    #[arg(short, long)]
    predictions: PathBuf,
    /// Folder of true labels, or those of the single mask. Masks belong together whose names are the same without .nii,
    /// .nii.gz, .hdr or .img.
    #[arg(short, long)]
    ground_truth: PathBuf,
    /// Where to write the summary as JSON with nnU-Net's keys; its folders are made.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// The dataset.json whose classes, regions and ignore label are scored, in the Decathlon's form or nnU-Net's; other values
    /// are an error. Without it, one in the folder of true labels or beside that folder is used. Without any, or with `none`,
    /// every value above 0 that occurs is a class.
    #[arg(long, value_name = "FILE|none")]
    labels: Option<PathBuf>,
    /// Score references without a prediction against an empty mask, which is Dice 0 for every class that they have; the
    /// summary lists them and has the mean without them. Otherwise they are an error.
    #[arg(long)]
    allow_missing: bool,
    /// Labels that count as another, FROM=TO, such as 2=1 where tumours (2) were trained as the organ (1).
    #[arg(long, num_args = 1.., value_parser = merge)]
    merge: Vec<(u8, u8)>,
    /// How the voxels of a prediction are matched with those of its reference, whose grid decides.
    #[arg(long = "match", value_enum, default_value_t)]
    matching: Match,
}

pub fn run(args: &Args) -> Result<()> {
    check_merge(&args.merge)?;
    let mut pairs = pair_masks(&args.predictions, &args.ground_truth, args.allow_missing)?;
    let described = described(args)?;
    if let Some((description, _)) = &described {
        pairs.iter_mut().for_each(|pair| pair.unlabelled = unlabelled(description, pair));
    }
    let labels = described.map(|(description, file)| (description.labels, file));
    let names = labels.as_ref().map_or_else(BTreeMap::new, |(labels, _)| names(labels));
    // whatever else is wrong must not come out after all is computed
    let _claim = paths(args, &pairs, labels.as_ref().map(|(_, file)| file.as_path())).claim()?;
    let scoring = Scoring { labels, merge: args.merge.clone(), matching: args.matching };
    let summary = evaluate(&pairs, &scoring, |error| eprintln!("error: {error}"))?;
    // either is worth having without the other
    let printed = print(&summary.print_table(&names));
    if let Some(path) = &args.output {
        summary.write(path)?;
    }
    printed
}

fn print(table: &str) -> Result<()> {
    say!("{}", table.trim_end());
    Ok(())
}

/// What the command reads and writes.
fn paths(args: &Args, pairs: &[MaskPair], description: Option<&Path>) -> Paths {
    let mut paths = Paths::new();
    let Some(output) = &args.output else { return paths };
    for MaskPair { reference, prediction, .. } in pairs {
        pair(reference).into_iter().chain(pair(prediction)).for_each(|file| paths.reads(file));
    }
    if let Some(file) = description {
        paths.reads(file);
    }
    paths.writes(output, &args.predictions);
    paths
}

/// The description that a flag names, or that lies with the references.
fn described(args: &Args) -> Result<Option<(DescribedLabels, PathBuf)>> {
    if let Some(file) = &args.labels {
        return match file.as_os_str() == NONE {
            true => Ok(None),
            false => Ok(Some((described_labels(file)?, file.clone()))),
        };
    }
    let Some(file) = nearby(&args.ground_truth) else { return Ok(None) };
    let labels = described_labels(&file).map_err(|error| match error {
        Error::File { path, found, expected, remedy } => {
            let remedy = format!("{remedy} Or score without it: --labels {NONE}.");
            Error::File { path, found, expected, remedy }
        }
        other => other,
    })?;
    eprintln!("labels as in {} (--labels {NONE} to go without)", file.display());
    Ok(Some((labels, file)))
}

/// What a description says that nobody labelled in a reference.
fn unlabelled(description: &DescribedLabels, pair: &MaskPair) -> BTreeSet<ClassKey> {
    let lacking = description.unlabelled(&pair.reference);
    let classes = description.labels.scored().iter();
    let lacks = classes.filter(|class| lacking.contains(&class.name));
    lacks.map(|class| ClassKey::new(class.values.iter().copied())).collect()
}

/// The description in the folder of the references, or in the folder above.
fn nearby(references: &Path) -> Option<PathBuf> {
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

fn merge(text: &str) -> std::result::Result<(u8, u8), String> {
    let pair =
        text.split_once('=').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    pair.ok_or_else(|| format!("expected two labels FROM=TO such as 2=1, found {text}"))
}

/// A label counts as one other.
fn check_merge(merge: &[(u8, u8)]) -> Result<()> {
    for (index, (from, to)) in merge.iter().enumerate() {
        if let Some((_, other)) = merge[..index].iter().find(|(f, t)| f == from && t != to) {
            let found = format!("{from}={other} and {from}={to}");
            return Err(Error::setting("merge", found, "one label to count as", "Leave one out."));
        }
    }
    Ok(())
}
