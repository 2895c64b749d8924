//! `u2seg doctor`.

use crate::base::{Error, GpuFault, Result};
use crate::engine::check::{Extent, OPERATIONS, Row, by_kernel};
use crate::engine::gpu::Gpu;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only as the adapter is: leave out small bindings, few groups, tensors in f16.
    #[arg(long)]
    quick: bool,
    /// Print every case and variant, not the failed ones alone.
    #[arg(long)]
    all: bool,
    /// Print JSON: a list of rows.
    #[arg(long)]
    json: bool,
    /// Adapter: auto, an index of `u2seg devices`, or part of a name.
    #[arg(long, default_value = "auto")]
    device: String,
}

pub fn run(args: &Args) -> Result<()> {
    let gpu = Gpu::open(&args.device)?;
    let adapter = gpu.report();
    if !args.json {
        say!("{} ({}, {})", adapter.name, adapter.backend, adapter.driver_info);
    }
    let extent = if args.quick { Extent::Quick } else { Extent::Adapter };
    let mut rows: Vec<Row> = Vec::new();
    for operation in OPERATIONS {
        let (before, mut told) = (rows.len(), Ok(()));
        operation.examine(&gpu, extent, &mut |row| {
            let printed = !args.json && (args.all || !row.passed());
            if printed && told.is_ok() {
                told = tell(&row);
            }
            rows.push(row);
        });
        told?;
        eprintln!("{}: {} checks", operation.name, rows.len() - before);
    }
    let failed = rows.iter().filter(|row| !row.passed()).count();
    if args.json {
        let json = serde_json::to_string_pretty(&rows);
        say!("{}", json.map_err(|e| Error::Internal(e.to_string()))?);
    } else {
        say!(
            "\n{:<36}{:>8}{:>8}{:>15}{:>12}",
            "kernel",
            "checks",
            "failed",
            "largest error",
            "of allowed"
        );
        for (kernel, summary) in by_kernel(&rows) {
            let (checks, failed, share) = (summary.checks, summary.failed, summary.share * 100.0);
            say!("{kernel:<36}{checks:>8}{failed:>8}{:>15.1e}{share:>11.0}%", summary.error);
        }
        say!("\n{} checks, {failed} failed", rows.len());
    }
    if failed > 0 {
        let message = format!(
            "{}: {failed} of {} checks failed; update the driver, or choose another --device",
            adapter.name,
            rows.len()
        );
        return Err(Error::gpu(GpuFault::Wrong, message));
    }
    Ok(())
}

fn tell(row: &Row) -> Result<()> {
    let Row { case, planning, variant, .. } = row;
    let gradients = if row.inference { ", without gradients" } else { "" };
    let verdict = if row.passed() { "pass" } else { "FAIL" };
    let why = row.failure.as_deref().unwrap_or_default();
    say!(
        "{verdict}  {:>8.1e}  {case}; planned for {planning}{gradients}, variant {variant} {why}",
        row.error
    );
    Ok(())
}
