//! `u2seg plan`.

use std::path::PathBuf;

use super::train::{NetArgs, RunArgs, Watch, recomputed};
use crate::base::{Error, Result};
use crate::domain::DomainPlan;
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::run::{RunPlan, Runs};
use crate::train::{MachineBytes, Memory};

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

/// What is planned of one run: a network for one or more domains.
#[derive(serde::Serialize)]
struct Report {
    /// Folder of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
    domains: Vec<DomainPlan>,
    /// Bytes on the adapter.
    memory: Memory,
    /// Bytes that cases and patches take at most, about.
    cases: u64,
    /// Bytes of main memory and of the disk.
    machine: MachineBytes,
}

impl Report {
    fn print(&self, adapter: &str) -> Result<()> {
        if let Some(out) = &self.out {
            say!("{}", out.display());
        }
        for d in &self.domains {
            let cut = d.crop.map(|crop| format!(" resized from {crop:?}")).unwrap_or_default();
            let preset = d.preset.as_ref().map(|name| format!("; as published for {name}"));
            say!(
                "{}: {} channels, classes {}; patch {:?}{cut} at {:.3?} mm (D, H, W), batch {}, pools {:?}{}",
                d.name,
                d.channels,
                d.labels.names().join(", "),
                d.patch,
                d.spacing,
                d.batch,
                d.pools,
                preset.unwrap_or_default()
            );
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        say!(
            "memory on {adapter}: {:.1} MiB for weights, gradients and moments, {:.1} MiB for activations, {:.1} MiB for dispatches and checkpoints, {:.1} MiB in all{}; at most about {:.0} MiB more for cases and patches",
            mib(self.memory.parameters),
            mib(self.memory.activations),
            mib(self.memory.uniforms + self.memory.read_back),
            mib(self.memory.total()),
            recomputed(&self.memory),
            mib(self.cases)
        );
        say!(
            "this machine: about {:.0} MiB of memory; at most {:.0} MiB on disk for prepared cases, of which {:.0} MiB are there",
            mib(self.machine.host),
            mib(self.machine.disk),
            mib(self.machine.prepared)
        );
        if self.out.is_some() {
            return Ok(());
        }
        say!("largest where most is in memory:");
        for value in &self.memory.peak {
            say!("{:>10.1} MiB  {}", mib(value.bytes), value.name);
        }
        Ok(())
    }
}

pub fn run(args: &Args) -> Result<()> {
    let gpu = Gpu::open(&args.run.device)?;
    let (config, options) =
        (args.net.config(gpu.is_software(), &args.run)?, args.net.options(&args.run)?);
    let out = args.out.clone().unwrap_or_default();
    let mut runs = Runs::new(args.run.request(config, options, &out))?;
    let caps = caps(&gpu);
    let mut watch = Watch::new(&gpu, |_| Ok(()));
    let plans = match args.out {
        Some(_) => runs.write_plans(&caps, &mut watch),
        None => runs.plan(&caps, &mut watch),
    }?;
    let report = |RunPlan { run, domains, memory, case_bytes: cases, machine, .. }: RunPlan| {
        let out = args.out.is_some().then_some(run.folder);
        Report { out, domains, memory, cases, machine }
    };
    let reports: Vec<Report> = plans.into_iter().map(report).collect();
    if !args.json {
        return reports.iter().try_for_each(|report| report.print(&gpu.report().name));
    }
    let text = match reports.as_slice() {
        [one] => serde_json::to_string_pretty(one),
        several => serde_json::to_string_pretty(several),
    };
    say!("{}", text.map_err(|e| Error::Internal(e.to_string()))?);
    Ok(())
}
