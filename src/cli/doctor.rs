//! `u2seg doctor`.

use std::collections::BTreeMap;
use std::time::Instant;

use super::args::DeviceArgs;
use super::report::Report;
use crate::base::{Error, GpuFault, Result};
use crate::engine::check::{Extent, OPERATIONS, Picked, Row, by_kernel, examine};
use crate::engine::gpu::{Gpu, Use};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg doctor
  u2seg doctor --device NVIDIA --quick
  u2seg doctor --only pointwise --all")]
pub struct Args {
    /// Check kernels only as this device runs them
    ///
    /// Leaves out what other devices need: small bindings, few workgroups, tensors in f16.
    #[arg(long)]
    quick: bool,
    /// Check only cases whose name or operation holds this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Print every variant of a case, not only failed ones
    #[arg(long)]
    all: bool,
    /// Use only what every WebGPU device has, as in a browser
    #[arg(long)]
    portable: bool,
    /// Print JSON: versions, device, limits, features, and a row a variant
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(serde::Serialize)]
struct Examined<'a> {
    #[serde(flatten)]
    report: &'a Report,
    seconds: f64,
    rows: &'a [Row],
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let how = if args.portable { Use::Portable } else { Use::Passing };
    let gpu = Gpu::open_with(&args.device.device, how)?;
    let adapter = gpu.report();
    if !args.json {
        say!("{} ({}, {})", adapter.name, adapter.backend, adapter.driver_info);
    }
    let rows = rows(args, &gpu)?;
    let report = Report::of(&gpu);
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let json =
            serde_json::to_string_pretty(&Examined { report: &report, seconds, rows: &rows });
        say!("{}", json.map_err(|e| Error::Internal(e.to_string()))?);
    } else {
        tell_kernels(&rows)?;
        tell_report(&report, seconds, &rows)?;
    }
    match failed(&rows) {
        0 => Ok(()),
        failed => {
            let (name, all) = (&adapter.name, rows.len());
            let remedy = "update the driver, or choose another --device";
            let message = format!("{name}: {failed} of {all} checks failed; {remedy}");
            Err(Error::gpu(GpuFault::Wrong, message))
        }
    }
}

fn failed(rows: &[Row]) -> usize {
    rows.iter().filter(|row| !row.passed()).count()
}

/// Runs the table and tells each case as it ends.
fn rows(args: &Args, gpu: &Gpu) -> Result<Vec<Row>> {
    let extent = if args.quick { Extent::Quick } else { Extent::Adapter };
    let (mut rows, mut counts): (Vec<Row>, BTreeMap<&str, usize>) = Default::default();
    let picked = Picked { extent, part: &args.only };
    examine(OPERATIONS, gpu, picked, |of_case| {
        *counts.entry(of_case[0].operation).or_default() += of_case.len();
        if !args.json {
            tell_case(&of_case)?;
            let told = of_case.iter().filter(|row| args.all || !row.passed());
            told.map(line).try_for_each(|line| {
                say!("      {line}");
                Ok(())
            })?;
        }
        rows.extend(of_case);
        Ok(())
    })?;
    if rows.is_empty() {
        let remedy = "`only` is part of a name that u2seg doctor prints.";
        return Err(Error::setting("only", &args.only, "part of a case's name", remedy));
    }
    for (operation, count) in counts {
        log::info!("{operation}: {count} checks");
    }
    Ok(rows)
}

/// A case over all ways in which it ran.
fn tell_case(rows: &[Row]) -> Result<()> {
    let (failed, error) = (failed(rows), rows.iter().fold(0.0, |most, row| row.error.max(most)));
    let share = rows.iter().fold(0.0, |most, row| row.share.max(most)) * 100.0;
    let verdict = if failed == 0 { "pass" } else { "FAIL" };
    let Row { operation, case, .. } = &rows[0];
    let checks = rows.len();
    say!("{verdict}  {error:>8.1e}  {share:>4.0}%  {checks:>4}  {operation}: {case}");
    Ok(())
}

/// What one variant found.
fn line(row: &Row) -> String {
    let Row { case, planning, variant, error, .. } = row;
    let gradients = if row.inference { ", without gradients" } else { "" };
    let verdict = if row.passed() { "pass" } else { "FAIL" };
    let why = row.failure.as_deref().unwrap_or_default();
    format!(
        "{verdict}  {error:>8.1e}  {case}; planned for {planning}{gradients}, variant {variant} {why}"
    )
}

fn tell_kernels(rows: &[Row]) -> Result<()> {
    let heads = ["checks", "failed", "largest error", "of allowed"];
    say!("\n{:<36}{:>8}{:>8}{:>15}{:>12}", "kernel", heads[0], heads[1], heads[2], heads[3]);
    for (kernel, summary) in by_kernel(rows) {
        let (checks, failed, share) = (summary.checks, summary.failed, summary.share * 100.0);
        say!("{kernel:<36}{checks:>8}{failed:>8}{:>15.1e}{share:>11.0}%", summary.error);
    }
    Ok(())
}

/// What an issue needs: it can be pasted as it is.
fn tell_report(report: &Report, seconds: f64, rows: &[Row]) -> Result<()> {
    say!("\nReport, for an issue:\n```");
    say!("{report}");
    say!("doctor: {} checks, {} failed, in {seconds:.0} s", rows.len(), failed(rows));
    for row in rows.iter().filter(|row| !row.passed()) {
        say!("{}: {}", row.operation, line(row));
    }
    say!("```");
    Ok(())
}
