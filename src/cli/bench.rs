//! `u2seg bench`.

use std::collections::BTreeMap;

use super::args::{MemoryArgs, TunedDeviceArgs};
use super::say;
use crate::base::{Error, Result};
use crate::bench::{
    CaseReport, Configuration, ConfigurationReport, KernelReport, NAMES, Roofline, Timing, least,
    planned, time_table,
};
use crate::engine::gpu::{AdapterReport, Gpu};
use crate::engine::graph::DType;
use crate::train::Footprint;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg bench
  u2seg bench --config hippo --kernels depthwise
  u2seg bench --dry-run                        # memory alone, nothing runs")]
pub struct Args {
    /// Configurations to time
    ///
    /// By default all on a GPU, hippo and hippo-plain on a software device.
    #[arg(long, num_args = 1.., value_parser = NAMES, value_name = "NAME")]
    config: Vec<String>,
    /// Time each kernel too, or those whose files hold a name
    ///
    /// Kernels of the configurations, and without --config those of the table of cases that `u2seg doctor` checks.
    #[arg(long, num_args = 0.., value_name = "NAME")]
    kernels: Option<Vec<String>>,
    /// Timed runs of each figure; the median counts
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    repeats: usize,
    /// Print what training would take of memory, and run nothing
    ///
    /// In f32 and f16, each also with everything recomputed that pays.
    #[arg(long, conflicts_with_all = ["kernels", "repeats", "json"])]
    dry_run: bool,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    device: TunedDeviceArgs,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Args {
    /// Whether a kernel is to be listed.
    fn wants(&self, file: &str) -> bool {
        let names = self.kernels.as_deref().unwrap_or_default();
        names.is_empty() || names.iter().any(|name| file.contains(name.as_str()))
    }
}

#[derive(serde::Serialize)]
struct Report<'a> {
    adapter: &'a str,
    backend: &'a str,
    driver: &'a str,
    version: &'a str,
    roofline: Roofline,
    configurations: Vec<ConfigurationReport>,
    /// Kernels of the table of cases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cases: Vec<CaseReport>,
}

pub fn run(args: &Args) -> Result<()> {
    if args.repeats == 0 {
        return Err(Error::setting("repeats", "0", "at least 1", "5 is usual."));
    }
    let gpu = Gpu::open(&args.device.device)?;
    let names: Vec<&str> = match (args.config.is_empty(), gpu.is_software()) {
        (false, _) => args.config.iter().map(String::as_str).collect(),
        (true, false) => NAMES.to_vec(),
        (true, true) => vec!["hippo", "hippo-plain"],
    };
    let footprint = args.memory.footprint();
    if args.dry_run {
        let names = if args.config.is_empty() { NAMES.to_vec() } else { names };
        return dry_run(&gpu, &names, footprint);
    }
    let roofline = Roofline::measure(&gpu)?;
    let adapter = gpu.report();
    if !args.json {
        head(adapter, &roofline)?;
    }
    let mut configurations = Vec::new();
    for name in names {
        note!("{name} ...");
        let configuration = Configuration::named(name)?;
        let timing = Timing {
            configuration: &configuration,
            footprint,
            repeats: args.repeats,
            roofline: args.kernels.as_ref().map(|_| &roofline),
            tuning: args.device.tune,
        };
        let mut report = timing.measure(&gpu)?;
        report.kernels.retain(|kernel| args.wants(kernel.command.kernel));
        if args.json {
            note!("{}", summary(&report));
        } else {
            print(&report)?;
        }
        configurations.push(report);
    }
    let mut cases = Vec::new();
    if args.kernels.is_some() && args.config.is_empty() {
        note!("the table of cases ...");
        cases = time_table(&gpu, &roofline, args.repeats, |kernel| args.wants(kernel))?;
        if !args.json {
            print_cases(&cases)?;
        }
    }
    if args.json {
        let report = Report {
            adapter: &adapter.name,
            backend: &adapter.backend,
            driver: &adapter.driver_info,
            version: env!("CARGO_PKG_VERSION"),
            roofline,
            configurations,
            cases,
        };
        say::print_json(&report)?;
    }
    Ok(())
}

/// What the table is of, and its first line.
fn head(adapter: &AdapterReport, roofline: &Roofline) -> Result<()> {
    say!("{} ({}, {})", adapter.name, adapter.backend, adapter.driver_info);
    say!(
        "copy {:.1} GB/s, fused multiply-add {:.1} GFLOP/s\n",
        roofline.copy_bytes_per_second / 1e9,
        roofline.flops_per_second / 1e9
    );
    say!("{}", columns(NAMES_OF_FIGURES.map(String::from)));
    Ok(())
}

/// The figures of a configuration in the order of a line.
const NAMES_OF_FIGURES: [&str; 11] = [
    "configuration",
    "forward ms",
    "step ms",
    "pack ms",
    "upload ms",
    "encode ms",
    "submit ms",
    "start s",
    "tuning s",
    "planned MiB",
    "allocated MiB",
];

fn columns(cells: [String; NAMES_OF_FIGURES.len()]) -> String {
    let width = |(name, cell): (&&str, String)| match *name {
        "configuration" => format!("{cell:<14}"),
        name => format!("{cell:>width$}", width = name.len().max(8) + 2),
    };
    NAMES_OF_FIGURES.iter().zip(cells).map(width).collect()
}

fn line(report: &ConfigurationReport) -> String {
    let optional = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.1}"));
    let figures = [
        Some(report.forward_ms),
        report.step_ms,
        report.pack_ms,
        report.upload_ms,
        report.encode_ms,
        report.submit_ms,
        report.start_s,
        Some(report.tuning.seconds),
        Some(report.planned_mib),
        Some(report.allocated_mib),
    ];
    let [a, b, c, d, e, f, g, h, i, j] = figures.map(optional);
    columns([report.name.into(), a, b, c, d, e, f, g, h, i, j])
}

/// What is most asked for.
fn summary(report: &ConfigurationReport) -> String {
    let ConfigurationReport { name, forward_ms, step_ms, .. } = report;
    let step = step_ms.map_or(String::new(), |ms| format!(", step {ms:.1} ms"));
    format!("{name}: forward {forward_ms:.1} ms{step}")
}

/// Planned mebibytes of each configuration; with a budget also of the plan that keeps to it.
fn dry_run(gpu: &Gpu, names: &[&str], footprint: Footprint) -> Result<()> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    say!(
        "{:<14}{:>12}{:>14}{:>12}{:>14}{}",
        "planned MiB",
        "f32",
        "f32 recomp.",
        "f16",
        "f16 recomp.",
        if footprint.vram.is_some() { "    --vram  computed twice" } else { "" }
    );
    for name in names {
        let configuration = Configuration::named(name)?;
        if !configuration.train {
            continue;
        }
        let mut line = format!("{name:<14}");
        for dtype in [DType::F32, DType::F16] {
            let all = planned(gpu, &configuration, Footprint { dtype, ..Footprint::default() })?;
            let smallest = least(gpu, &configuration, dtype)?;
            line += &format!("{:>12.1}{:>14.1}", mib(all.total()), mib(smallest.total()));
        }
        if footprint.vram.is_some() {
            let fitted = planned(gpu, &configuration, footprint)?;
            line += &format!("{:>10.1}{:>16}", mib(fitted.total()), fitted.recomputed);
        }
        say!("{line}");
    }
    Ok(())
}

fn print(report: &ConfigurationReport) -> Result<()> {
    say!("{}", line(report));
    if report.tuning.timed > 0 {
        say!("{}", report.tuning);
    }
    if report.kernels.is_empty() {
        return Ok(());
    }
    say!("\n{HEAD}  kernel, variant, shape");
    report.kernels.iter().try_for_each(print_kernel)?;
    say!("\n{:>9}  sum by kernel", "ms");
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for kernel in &report.kernels {
        *sums.entry(kernel.command.kernel).or_default() += kernel.milliseconds;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (kernel, ms) in sums {
        say!("{ms:>9.2}  {kernel}");
    }
    say!("");
    Ok(())
}

const HEAD: &str = "       ms     GB/s   GFLOP/s    roof";

fn print_kernel(kernel: &KernelReport) -> Result<()> {
    let command = &kernel.command;
    let (file, variant) = (command.kernel, &command.variant);
    say!("{}  {file} [{variant}] {} {}", figures(kernel), command.shape, command.label);
    Ok(())
}

/// The kernels of each case, forward and backward.
fn print_cases(cases: &[CaseReport]) -> Result<()> {
    say!("{HEAD}  kernel, variant, shape in the table of cases");
    for case in cases {
        say!("{}", case.case);
        case.kernels.iter().try_for_each(print_kernel)?;
    }
    Ok(())
}

fn figures(kernel: &KernelReport) -> String {
    format!(
        "{:>9.3}{:>9.2}{:>10.2}{:>7.0}%",
        kernel.milliseconds,
        kernel.gigabytes_per_second,
        kernel.gigaflops_per_second,
        kernel.roofline_share * 100.0
    )
}
