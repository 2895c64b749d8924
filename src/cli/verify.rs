//! `u2seg verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::flags::Given;
use super::say;
use super::words::{axes, count, mm};
use crate::base::files::{Claim, Paths, read_text, write_atomically};
use crate::base::{Error, Result};
use crate::dataset::{
    Contents, Dataset, DatasetReport, Exclusion, Selection, holds_dataset, verify,
};
use crate::domain::PresetChoice;
use crate::imaging::{Match, read_series};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg verify Task09_Spleen
  u2seg verify Task09_Spleen --fix-list bad.txt    # for u2seg train --exclude bad.txt
  u2seg verify scan.nii.gz series.zip")]
pub struct Args {
    /// Dataset folders (Decathlon or nnU-Net v2), images, or DICOM series
    ///
    /// A dataset folder holds a dataset.json. Images are NIfTI, NRRD or MetaImage; a series is a folder, or a .zip or .tar.gz
    /// of it.
    #[arg(value_name = "FOLDER|IMAGE", required_unless_present = "data")]
    images: Vec<PathBuf>,
    /// Dataset folders, as a flag
    #[arg(long, num_args = 1.., required_unless_present = "images", value_name = "FOLDER")]
    data: Vec<PathBuf>,
    /// Which series to look at, where a folder has several
    #[arg(long, value_name = "NUMBER|UID")]
    series: Option<String>,
    /// How to match the files of a case
    #[arg(long = "match", value_enum, default_value = "by-place", value_name = "WAY")]
    matching: Match,
    /// Write the cases with errors to a file, for `u2seg train --exclude`
    #[arg(long, value_name = "FILE")]
    fix_list: Option<PathBuf>,
    /// Do not read the cases listed in this file
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// First line of a fix list.
const HEAD: &str = "# Cases to leave out: the dataset's name, a tab, the case.";

pub fn run(args: &Args, given: &Given) -> Result<()> {
    let (mut folders, images): (Vec<PathBuf>, Vec<PathBuf>) =
        args.images.iter().cloned().partition(|path| holds_dataset(path));
    folders.extend(args.data.iter().cloned());
    let mut looked = Vec::new();
    for image in images {
        let outcome = look_at_image(args, &image);
        let outcome = match outcome.map_err(|error| given.told(error)) {
            // where nothing else is asked for its error says it all
            Err(error) if args.images.len() == 1 && folders.is_empty() => return Err(error),
            Err(error) => Outcome::Refused { error: error.to_string() },
            Ok(contents) => Outcome::Read(contents),
        };
        looked.push(Looked::Image { image, outcome });
    }
    if !folders.is_empty() {
        looked.extend(look_at_folders(args, given, &folders)?.into_iter().map(Looked::Dataset));
    }
    match args.json {
        true => say::print_json(&looked)?,
        false => looked.iter().try_for_each(Looked::print)?,
    }
    refusal(&looked)
}

/// An image or a dataset that was looked at.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
enum Looked {
    Image {
        image: PathBuf,
        #[serde(flatten)]
        outcome: Outcome,
    },
    Dataset(DatasetReport),
}

/// What came of reading an image.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
enum Outcome {
    Read(ImageContents),
    Refused { error: String },
}

/// An image as it was read.
#[derive(Debug, serde::Serialize)]
struct ImageContents {
    /// Voxels, D, H, W.
    shape: [usize; 3],
    /// Millimetres, D, H, W.
    spacing: [f64; 3],
    /// Smallest and largest value of each channel.
    range: Vec<[f32; 2]>,
    warnings: Vec<String>,
}

fn look_at_image(args: &Args, image: &Path) -> Result<ImageContents> {
    let volume = read_series(&[image.to_path_buf()], args.matching, args.series.as_deref())?;
    let bounds = |values: &[f32]| {
        let fold = |[low, high]: [f32; 2], value: &f32| [low.min(*value), high.max(*value)];
        values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], fold)
    };
    Ok(ImageContents {
        shape: volume.shape(),
        spacing: volume.spacing(),
        range: volume.channels().map(bounds).collect(),
        warnings: volume.notes().iter().map(|note| note.describe(&[])).collect(),
    })
}

/// Reads every case of datasets, and writes the fix list where one is wanted.
fn look_at_folders(args: &Args, given: &Given, folders: &[PathBuf]) -> Result<Vec<DatasetReport>> {
    let exclude = args.exclude.as_deref().map(Exclusion::read).transpose()?.unwrap_or_default();
    let opened: Vec<Result<Dataset>> =
        folders.iter().map(|dir| PresetChoice::Auto.open(dir)).collect();
    let known: Vec<&Dataset> = opened.iter().flatten().collect();
    let _claim = args.fix_list.as_ref().map(|file| claim(args, &known, file)).transpose()?;
    // a folder that cannot be opened may be what a line is about
    if known.len() == folders.len() {
        Exclusion::check(&exclude, &known)?;
    }
    let selection = Selection { matching: args.matching, group: None, exclude };
    let bar =
        say::bar(Some(folders.len() as u64), "{bar:30} {pos} of {len} datasets, {elapsed_precise}");
    let look = |(dir, opened): (&PathBuf, Result<Dataset>)| {
        let mut report = match opened {
            Ok(dataset) => verify(&dataset.without(&selection)),
            Err(error) => DatasetReport::unusable(dir, &error),
        };
        let cases = report.cases.iter_mut().flat_map(|case| &mut case.errors);
        cases.chain(&mut report.errors).for_each(|error| *error = given.worded(error));
        bar.inc(1);
        report
    };
    let reports: Vec<DatasetReport> = folders.iter().zip(opened).map(look).collect();
    bar.finish_and_clear();
    if let Some(file) = &args.fix_list {
        write_fix_list(file, &reports)?;
    }
    Ok(reports)
}

/// A fix list takes the place of an earlier one, and of nothing else that may belong to the data.
fn claim(args: &Args, datasets: &[&Dataset], file: &Path) -> Result<Claim> {
    let empty = std::fs::metadata(file).map_or(true, |about| about.is_file() && about.len() == 0);
    if !empty && !read_text(file).is_ok_and(|text| text.starts_with(HEAD)) {
        let remedy = "Choose another --fix-list, or move the file away.";
        let expected = "an earlier fix list, or nothing yet";
        return Err(Error::file(file, "a file that is no fix list", expected, remedy));
    }
    let mut paths = Paths::of_setting("fix_list");
    datasets.iter().flat_map(|dataset| dataset.files()).for_each(|file| paths.reads(file));
    args.exclude.iter().for_each(|file| paths.reads(file));
    paths.writes(file, "the datasets in --data");
    paths.claim()
}

fn write_fix_list(file: &Path, reports: &[DatasetReport]) -> Result<()> {
    let mut text = format!("{HEAD}\n");
    reports.iter().for_each(|report| text.push_str(&report.fix_list()));
    write_atomically(file, text.as_bytes())?;
    let cases: usize = reports.iter().map(DatasetReport::broken).sum();
    note!("{}: {cases} cases to leave out, for --exclude", file.display());
    Ok(())
}

/// Why the first that has errors, or images that have, cannot be used.
fn refusal(looked: &[Looked]) -> Result<()> {
    let refused = looked.iter().filter_map(|looked| match looked {
        Looked::Image { image, outcome: Outcome::Refused { .. } } => Some(image),
        _ => None,
    });
    let refused: Vec<&PathBuf> = refused.collect();
    if let Some(first) = refused.first() {
        let images = looked.iter().filter(|looked| matches!(looked, Looked::Image { .. }));
        let found = format!(
            "{} of {} that cannot be used",
            refused.len(),
            count(images.count() as u64, "image")
        );
        return Err(Error::file(
            first,
            found,
            "images that can be read",
            "Correct them as said above.",
        ));
    }
    let broken = looked.iter().find_map(|looked| match looked {
        Looked::Dataset(report) if report.errors() > 0 => Some(report),
        _ => None,
    });
    let Some(report) = broken else { return Ok(()) };
    let cases = report.cases.len();
    let found = match report.errors.len() {
        0 => format!("{} of {cases} cases with errors", report.broken()),
        whole => format!("{} of {cases} cases with errors, {whole} of the whole", report.broken()),
    };
    Err(Error::file(
        &report.dir,
        found,
        "a dataset that can be trained on",
        "Correct it, or leave cases out: --fix-list FILE, then train --exclude FILE.",
    ))
}

impl Looked {
    fn print(&self) -> Result<()> {
        match self {
            Self::Dataset(report) => print(report)?,
            Self::Image { image, outcome: Outcome::Refused { error } } => {
                say!("{}: error: {error}", image.display());
            }
            Self::Image { image, outcome: Outcome::Read(contents) } => {
                let ImageContents { shape, spacing, range, warnings } = contents;
                let voxels = voxels_of(*shape, *spacing);
                say!("{}: {voxels}; intensities {}", image.display(), ranges(range));
                for warning in warnings {
                    say!("  warning: {warning}");
                }
            }
        }
        Ok(())
    }
}

fn print(report: &DatasetReport) -> Result<()> {
    let label = |(value, name): (&u8, &String)| format!("{value} {name}");
    let labels: Vec<String> = report.labels.iter().map(label).collect();
    match report.name.is_empty() {
        true => say!("{}", report.dir.display()),
        false => {
            say!(
                "{}: channels {}; labels {}",
                report.name,
                report.channels.join(", "),
                labels.join("; ")
            );
        }
    }
    for case in &report.cases {
        if let Some(contents) = &case.contents {
            say!("  {}: {}", case.id, describe(contents, &report.labels));
        }
        for error in &case.errors {
            say!("  {}: error: {error}", case.id);
        }
        for warning in &case.warnings {
            say!("    warning: {warning}");
        }
    }
    for error in &report.errors {
        say!("  error: {error}");
    }
    for warning in &report.warnings {
        say!("  warning: {warning}");
    }
    say!(
        "  {}, {} with errors, {}",
        count(report.cases.len() as u64, "case"),
        report.broken(),
        count(report.warnings() as u64, "warning")
    );
    Ok(())
}

/// Voxels and their edges, in words.
fn voxels_of(shape: [usize; 3], spacing: [f64; 3]) -> String {
    format!("{} voxels of {} mm (D×H×W)", axes(shape), axes(spacing.map(mm)))
}

/// Smallest and largest value of each channel, in words.
fn ranges(range: &[[f32; 2]]) -> String {
    let ranges: Vec<String> = range.iter().map(|[lo, hi]| format!("{lo} to {hi}")).collect();
    ranges.join(", ")
}

fn describe(contents: &Contents, names: &BTreeMap<u8, String>) -> String {
    let Contents { shape, spacing, range, voxels, .. } = contents;
    let named = |(value, count): (&u8, &usize)| {
        let name = names.get(value).map_or("unnamed", String::as_str);
        format!("{name} {count}")
    };
    let labels: Vec<String> = voxels.iter().filter(|(value, _)| **value > 0).map(named).collect();
    format!(
        "{}; intensities {}; voxels {}",
        voxels_of(*shape, *spacing),
        ranges(range),
        if labels.is_empty() { "none".into() } else { labels.join(", ") }
    )
}
