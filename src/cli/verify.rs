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
    let (folders, images) = args.images.iter().cloned().partition(|path| holds_dataset(path));
    let (images, mut folders): (Vec<PathBuf>, Vec<PathBuf>) = (images, folders);
    folders.extend(args.data.iter().cloned());
    look_at_images(args, &images)?;
    if folders.is_empty() {
        return Ok(());
    }
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
    if args.json {
        say::print_json(&reports)?;
    } else {
        reports.iter().try_for_each(print)?;
    }
    match reports.iter().find(|report| report.errors() > 0) {
        None => Ok(()),
        Some(report) => Err(refusal(report)),
    }
}

/// An image as it was read.
#[derive(Debug, serde::Serialize)]
struct ImageReport {
    image: PathBuf,
    /// Voxels, D, H, W.
    shape: [usize; 3],
    /// Millimetres, D, H, W.
    spacing: [f64; 3],
    /// Smallest and largest value of each channel.
    range: Vec<[f32; 2]>,
    warnings: Vec<String>,
}

/// Reads images and tells of them.
fn look_at_images(args: &Args, images: &[PathBuf]) -> Result<()> {
    let mut reports = Vec::new();
    for image in images {
        let one = [image.clone()];
        let volume = read_series(&one, args.matching, args.series.as_deref())?;
        let bounds = |values: &[f32]| {
            let fold = |[low, high]: [f32; 2], value: &f32| [low.min(*value), high.max(*value)];
            values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], fold)
        };
        reports.push(ImageReport {
            image: image.clone(),
            shape: volume.shape(),
            spacing: volume.spacing(),
            range: volume.channels().map(bounds).collect(),
            warnings: volume.notes().iter().map(|note| note.describe(&[])).collect(),
        });
    }
    if args.json && !reports.is_empty() {
        return say::print_json(&reports);
    }
    for ImageReport { image, shape, spacing, range, warnings } in &reports {
        let ranges: Vec<String> = range.iter().map(|[lo, hi]| format!("{lo} to {hi}")).collect();
        let voxels = voxels_of(*shape, *spacing);
        say!("{}: {voxels}; intensities {}", image.display(), ranges.join(", "));
        for warning in warnings {
            say!("  warning: {warning}");
        }
    }
    Ok(())
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

fn refusal(report: &DatasetReport) -> Error {
    let cases = report.cases.len();
    let found = match report.errors.len() {
        0 => format!("{} of {cases} cases with errors", report.broken()),
        whole => format!("{} of {cases} cases with errors, {whole} of the whole", report.broken()),
    };
    Error::file(
        &report.dir,
        found,
        "a dataset that can be trained on",
        "Correct it, or leave cases out: --fix-list FILE, then train --exclude FILE.",
    )
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

fn describe(contents: &Contents, names: &BTreeMap<u8, String>) -> String {
    let Contents { shape, spacing, range, voxels, .. } = contents;
    let ranges: Vec<String> = range.iter().map(|[lo, hi]| format!("{lo} to {hi}")).collect();
    let named = |(value, count): (&u8, &usize)| {
        let name = names.get(value).map_or("unnamed", String::as_str);
        format!("{name} {count}")
    };
    let labels: Vec<String> = voxels.iter().filter(|(value, _)| **value > 0).map(named).collect();
    format!(
        "{}; intensities {}; voxels {}",
        voxels_of(*shape, *spacing),
        ranges.join(", "),
        if labels.is_empty() { "none".into() } else { labels.join(", ") }
    )
}
