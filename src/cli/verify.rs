//! `u2seg verify`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::data::{Contents, Dataset, DatasetReport, verify};
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Dataset folders (Decathlon or nnU-Net v2 raw).
    #[arg(long, num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let reports: Vec<DatasetReport> =
        args.data.iter().map(|dir| verify(&Dataset::open(dir)?)).collect::<Result<_>>()?;
    if args.json {
        let text =
            serde_json::to_string_pretty(&reports).map_err(|e| Error::Internal(e.to_string()))?;
        say!("{text}");
    } else {
        reports.iter().try_for_each(print)?;
    }
    match reports.iter().find(|report| report.errors() > 0) {
        None => Ok(()),
        Some(report) => Err(Error::file(
            &report.dir,
            format!("{} of {} cases with errors", report.errors(), report.cases.len()),
            "cases that can be trained on",
            "Correct them, or take them out of the dataset.",
        )),
    }
}

fn print(report: &DatasetReport) -> Result<()> {
    let labels: Vec<&str> = report.labels.values().map(String::as_str).collect();
    say!("{}: channels {}; {}", report.name, report.channels.join(", "), labels.join(", "));
    for case in &report.cases {
        match (&case.contents, &case.error) {
            (Some(contents), _) => {
                say!("  {}: {}", case.id, describe(contents, &report.labels));
            }
            (None, error) => {
                say!("  {}: error: {}", case.id, error.as_deref().unwrap_or_default());
            }
        }
        for warning in &case.warnings {
            say!("    warning: {warning}");
        }
    }
    for warning in &report.warnings {
        say!("  warning: {warning}");
    }
    say!(
        "  {} cases, {} with errors, {} warnings",
        report.cases.len(),
        report.errors(),
        report.warnings()
    );
    Ok(())
}

fn describe(contents: &Contents, names: &BTreeMap<u8, String>) -> String {
    let Contents { shape: [d, h, w], spacing: [z, y, x], range, voxels } = contents;
    let ranges: Vec<String> = range.iter().map(|[lo, hi]| format!("{lo} to {hi}")).collect();
    let count = |(value, count): (&u8, &usize)| {
        let name = names.get(value).map_or("unnamed", String::as_str);
        format!("{name} {count}")
    };
    let labels: Vec<String> = voxels.iter().filter(|(value, _)| **value > 0).map(count).collect();
    format!(
        "{d} x {h} x {w} voxels of {z:.3} x {y:.3} x {x:.3} mm (D, H, W); intensities {}; voxels {}",
        ranges.join(", "),
        if labels.is_empty() { "none".into() } else { labels.join(", ") }
    )
}
