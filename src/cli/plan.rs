//! `u2seg plan`.

use std::path::PathBuf;

use super::flags::Given;
use super::say::{bytes, print_json};
use super::train::{NetArgs, RunArgs, Watch, recomputed};
use super::words::{axes, count, mm};
use crate::base::{Result, Stop};
use crate::domain::{DomainPlan, Limit};
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::imaging::Interpolation;
use crate::run::{RunPlan, Runs};
use crate::train::{Length, MachineBytes, Memory, TrainingBudget};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg plan Task09_Spleen                        # print the plan and its memory
  u2seg plan Task09_Spleen --vram 4G --batch 2    # as it would be in 4 GiB
  u2seg plan Task09_Spleen -o runs/spleen         # write it, edit plan.json, then: u2seg train --continue -o runs/spleen")]
pub struct Args {
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Write plan.json and config.toml to this folder
    ///
    /// Edit them, then begin the run with `u2seg train --continue -o FOLDER`. Without it the plan is printed alone.
    #[arg(short, long, alias = "output", value_name = "FOLDER", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What is planned of one run: a network for one or more domains.
#[derive(serde::Serialize)]
struct Report {
    /// Folder of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
    domains: Vec<DomainPlan>,
    /// What kept the patch of each domain from being larger.
    limits: Vec<Limit>,
    /// What patches were chosen for.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<TrainingBudget>,
    length: Length,
    /// Bytes on the adapter that training may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    vram: Option<u64>,
    /// Bytes on the adapter.
    memory: Memory,
    /// Bytes that cases and patches take at most, about.
    cases: u64,
    /// Bytes of main memory and of the disk.
    machine: MachineBytes,
}

/// Columns of a terminal that a plan keeps to.
const WIDTH: usize = 80;
/// Letters of a domain's name that are told in any case.
const LEAST_NAME: usize = 8;

/// Columns between cells.
const GAP: &str = "  ";

impl Report {
    fn new(plan: RunPlan, written: bool) -> Self {
        let RunPlan { run, domains, limits, memory, case_bytes: cases, machine } = plan;
        let config = run.config;
        Self {
            out: written.then_some(run.folder),
            domains,
            limits,
            budget: config.budget,
            length: config.length,
            vram: config.vram,
            memory,
            cases,
            machine,
        }
    }

    /// What is told of the run, folder apart.
    fn lines(&self, device: &str, verbose: bool) -> Vec<String> {
        let mut lines = table(self.rows());
        lines.extend(self.domains.iter().flat_map(notes));
        lines.push(String::new());
        lines.extend(self.memory_lines(device));
        lines.extend(self.machine_lines());
        lines.push(format!("Length      {}", self.length()));
        if verbose {
            lines.extend(self.details());
        }
        lines
    }

    /// Head and cells of a row for each domain.
    fn rows(&self) -> Vec<[String; 7]> {
        let head = ["domain", "mm (D×H×W)", "patch", "batch", "pools", "GPU", "limited by"];
        let own = self.memory.total() - self.memory.activations;
        let rows = self.domains.iter().zip(&self.limits).zip(&self.memory.domains);
        let rows = rows.map(|((d, limit), activations)| {
            [
                d.name.clone(),
                axes(d.spacing.map(mm)),
                axes(d.patch),
                d.batch.to_string(),
                axes(d.pools),
                bytes(own + activations + self.cases),
                limited(*limit).into(),
            ]
        });
        std::iter::once(head.map(String::from)).chain(rows).collect()
    }

    fn memory_lines(&self, device: &str) -> [String; 4] {
        let Memory { parameters, activations, uniforms, read_back, .. } = &self.memory;
        let of = self.vram.map(|vram| format!(" of {}", bytes(vram))).unwrap_or_default();
        let all = bytes(self.memory.total() + self.cases);
        let (activations, again) = (bytes(*activations), recomputed(&self.memory));
        let (rest, cases) = (bytes(parameters + uniforms + read_back), bytes(self.cases));
        [
            format!("GPU memory  {all}{of} on {device}"),
            format!("            {activations} activations{again}"),
            format!("            {rest} weights, moments, dispatches and checkpoints"),
            format!("            {cases} cases and patches at most"),
        ]
    }

    fn machine_lines(&self) -> [String; 2] {
        let MachineBytes { host, disk, prepared } = self.machine;
        let (host, disk, there) = (bytes(host), bytes(disk), bytes(prepared));
        [
            format!("Host memory about {host}"),
            format!("Disk        at most {disk} of prepared cases, {there} of them there"),
        ]
    }

    fn length(&self) -> String {
        let length = match self.length {
            Length::Steps(steps) => count(steps, "step"),
            Length::Minutes(minutes) => format!("{minutes} minutes"),
        };
        let budget = self.budget.filter(|budget| budget.length() == self.length);
        let budget = budget.map(|budget| format!(" (--budget {})", name(budget)));
        format!("{length}{}", budget.unwrap_or_default())
    }

    /// What the table has no room for.
    fn details(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        lines.extend(self.domains.iter().map(|d| {
            let classes = d.labels.names().join(", ");
            let channels = count(d.channels as u64, "channel");
            format!("{}: {channels}; classes {classes}; {:?}", d.name, d.normalisation)
        }));
        lines.extend(["".into(), "largest where most is in memory:".into()]);
        let peak = self.memory.peak.iter();
        lines.extend(peak.map(|value| format!("{:>10}  {}", bytes(value.bytes), value.name)));
        lines
    }
}

/// What else is to know of how a domain's patches are made.
fn notes(d: &DomainPlan) -> Vec<String> {
    let crop = d.crop.map(|crop| format!("{}: patches are resized from {}", d.name, axes(crop)));
    let preset = d.preset.as_ref().map(|preset| format!("{}: as published for {preset}", d.name));
    let along = d.resampling.axes(d.spacing, d.spacing).into_iter().zip(["D", "H", "W"]);
    let across = along.filter_map(|(by, axis)| match by {
        Interpolation::Cubic => None,
        Interpolation::Linear => {
            Some(format!("{}: images are resampled linearly along {axis}", d.name))
        }
        Interpolation::Nearest => {
            Some(format!("{}: images are resampled along {axis} by the nearest slice", d.name))
        }
    });
    crop.into_iter().chain(preset).chain(across).collect()
}

/// Prints runs, those of which the same is told together: so folds are, mostly.
fn print(reports: &[Report], device: &str, verbose: bool) -> Result<()> {
    let told: Vec<_> =
        reports.iter().map(|report| (report, report.lines(device, verbose))).collect();
    for (index, alike) in told.chunk_by(|(_, a), (_, b)| a == b).enumerate() {
        if index > 0 {
            say!("");
        }
        for out in alike.iter().filter_map(|(report, _)| report.out.as_ref()) {
            say!("{}", out.display());
        }
        for line in alike.iter().take(1).flat_map(|(_, lines)| lines) {
            say!("{line}");
        }
    }
    Ok(())
}

fn name(budget: TrainingBudget) -> &'static str {
    match budget {
        TrainingBudget::Quick => "quick",
        TrainingBudget::Standard => "standard",
        TrainingBudget::Thorough => "thorough",
    }
}

/// What kept a patch from being larger, in a few letters.
fn limited(by: Limit) -> &'static str {
    match by {
        Limit::MedianCase => "median case",
        Limit::Memory => "memory",
        Limit::Buffer => "buffer size",
        Limit::Quick => "quick budget",
        Limit::Patch => "--patch",
        Limit::Voxels => "--patch-voxels",
        Limit::Published => "as published",
    }
}

/// Lines of cells under each other; long names are cut so that lines fit a terminal.
fn table(mut rows: Vec<[String; 7]>) -> Vec<String> {
    let widest = |rows: &[[String; 7]], column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let rest: usize = (1..7).map(|column| GAP.len() + widest(&rows, column)).sum();
    let most = WIDTH.saturating_sub(rest).max(LEAST_NAME);
    for [name, ..] in &mut rows {
        if name.chars().count() > most {
            *name = name.chars().take(most - 1).chain(['…']).collect();
        }
    }
    let widths: Vec<usize> = (0..7).map(|column| widest(&rows, column)).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            3 | 5 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

pub fn run(args: &Args, given: &Given) -> Result<()> {
    let gpu = Gpu::open(args.run.device())?;
    let (config, options) =
        (args.net.config(gpu.is_software(), &args.run)?, args.net.options(&args.run)?);
    let out = args.out.clone().unwrap_or_default();
    let mut runs = Runs::new(args.run.request(config, options, &out))?;
    let caps = caps(&gpu);
    let written = args.out.is_some();
    let mut watch = Watch::new(&gpu, &Stop::default(), |_| Ok(()));
    let plans = match written {
        true => runs.write_plans(&caps, &mut watch),
        false => runs.plan(&caps, &mut watch),
    }?;
    let reports: Vec<Report> = plans.into_iter().map(|plan| Report::new(plan, written)).collect();
    if !args.json {
        return print(&reports, &gpu.report().name, given.verbose);
    }
    match reports.as_slice() {
        [one] => print_json(one),
        several => print_json(&several),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_a_terminal_whatever_domains_are_called() {
        let long = ["A very long name of a domain", "400x0.75x0.75", "192x192x224", "16", "5x5x5"];
        let [name, mm, patch, batch, pools] = long.map(String::from);
        let row = [name, mm, patch, batch, pools, "23.98 GiB".into(), "--patch-voxels".into()];
        let head = ["domain", "mm", "patch", "batch", "pools", "GPU", "limited by"];
        let lines = table(vec![head.map(String::from), row]);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        assert!(lines[1].starts_with("A very lo") && lines[1].contains('…'), "{lines:#?}");
    }
}
