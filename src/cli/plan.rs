//! `u2seg plan`.

use std::path::PathBuf;

use super::train::{NetArgs, RunArgs, recomputed};
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::exec::caps;
use crate::gpu::Gpu;
use crate::train::{Memory, RunConfig, plan, planned_memory, write_plan};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Folder that gets plan.json and config.toml; edit them, then `u2seg train --continue --out FOLDER`.
    #[arg(long, required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// Print the plan and its memory, write nothing.
    #[arg(long, conflicts_with = "out")]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(serde::Serialize)]
struct Report<'a> {
    domains: &'a [Domain],
    /// Bytes on the adapter.
    memory: Memory,
}

pub fn run(args: &Args) -> Result<()> {
    let gpu = Gpu::open(&args.run.device)?;
    let config: RunConfig = args.net.config(&args.run);
    let domains = plan(&config, &args.run.options())?;
    let memory = planned_memory(&config, &domains, &caps(&gpu))?;
    if let Some(out) = &args.out {
        write_plan(&config, &domains, out)?;
    }
    if args.json {
        let report = Report { domains: &domains, memory };
        let text =
            serde_json::to_string_pretty(&report).map_err(|e| Error::Internal(e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    for d in &domains {
        println!(
            "{}: {} channels, classes {}; patch {:?} at {:.3?} mm (D, H, W), batch {}, pools {:?}",
            d.name,
            d.channels,
            d.classes.join(", "),
            d.patch,
            d.spacing,
            d.batch,
            d.pools
        );
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "memory on {}: {:.1} MiB for weights, gradients and moments, {:.1} MiB for activations, {:.1} MiB for dispatches and checkpoints, {:.1} MiB in all{}",
        gpu.report().name,
        mib(memory.parameters),
        mib(memory.activations),
        mib(memory.uniforms + memory.read_back),
        mib(memory.total()),
        recomputed(&memory)
    );
    if args.dry_run {
        println!("largest where most is in memory:");
        for value in &memory.peak {
            println!("{:>10.1} MiB  {}", mib(value.bytes), value.name);
        }
    }
    Ok(())
}
