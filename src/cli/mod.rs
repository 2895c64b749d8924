//! Command line: clap, then a typed configuration, then one call. Results go to stdout, progress and logs to stderr.

/// As `println!`, but returns an error from the function around it where stdout cannot be written.
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::cli::write_line(format_args!($($arg)*))?
    };
}

mod adapt;
mod bench;
mod compose;
mod devices;
mod doctor;
mod evaluate;
mod info;
mod plan;
mod predict;
mod train;
mod verify;

use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::engine::graph::DType;
use crate::run::MODEL;
use crate::train::Footprint;
use crate::{Error, Result};

/// Trains and runs 3D U²-Net on any GPU through WebGPU.
#[derive(Debug, Parser)]
#[command(name = "u2seg", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the adapters that can train and segment.
    Devices(devices::Args),
    /// Read every case of dataset folders and say what is wrong: geometry, labels, names.
    Verify(verify::Args),
    /// Plan patch, spacing and pools from the data, and what memory training needs.
    Plan(plan::Args),
    /// Train a network on one or more dataset folders.
    Train(train::Args),
    /// Add a domain to a model; what the domains share stays as it is.
    Adapt(adapt::Args),
    /// Cut one domain out of a model.
    Export(compose::ExportArgs),
    /// Add the domains of a model trained on the same shared weights.
    Merge(compose::MergeArgs),
    /// Read the published PyTorch network's weights.
    Import(compose::ImportArgs),
    /// Segment images with a trained model.
    Predict(predict::Args),
    /// Score predicted masks against references.
    Evaluate(evaluate::Args),
    /// Count a model's parameters: shared, of each domain, of each part.
    Info(info::Args),
    /// Check every kernel and its variants on an adapter against double precision.
    Doctor(doctor::Args),
    /// Time the adapter, the kernels and whole steps.
    Bench(bench::Args),
}

/// Parses the arguments and runs the command; the exit code is 0 when done, 1 on failure, 2 on wrong usage.
pub fn main() -> std::process::ExitCode {
    env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("warn,wgpu_hal=error"),
    )
    .format_timestamp(None)
    .init();
    match run(parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// The arguments; a run that goes on is told which flags it was given, since it keeps its own settings.
fn parse() -> Cli {
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = || match matches.subcommand() {
        Some((name, matches)) => given(name, matches),
        None => Vec::new(),
    };
    match &mut cli.command {
        Command::Train(args) => args.run.given = given(),
        Command::Adapt(args) => args.run.given = given(),
        _ => {}
    }
    cli
}

/// The flags of a command that stand on the command line.
fn given(name: &str, matches: &clap::ArgMatches) -> Vec<String> {
    let command = Cli::command();
    let Some(command) = command.find_subcommand(name) else { return Vec::new() };
    let stands = |arg: &&clap::Arg| {
        let known = matches.ids().any(|id| id == arg.get_id());
        let source = known.then(|| matches.value_source(arg.get_id().as_str())).flatten();
        source == Some(clap::parser::ValueSource::CommandLine)
    };
    let arguments = command.get_arguments().filter(stands);
    arguments.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect()
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Devices(args) => devices::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Train(args) => train::run(args),
        Command::Adapt(args) => adapt::run(args),
        Command::Export(args) => compose::export(&args),
        Command::Merge(args) => compose::merge(&args),
        Command::Import(args) => compose::import_state(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// Writes a line of results; a reader that has had enough, such as `head`, is no failure.
fn write_line(line: std::fmt::Arguments<'_>) -> Result<()> {
    use std::io::{ErrorKind, Write};
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::file(
            "stdout",
            format!("that it cannot be written ({e})"),
            "room for the results",
            "Free some, or send the output elsewhere.",
        )),
        _ => Ok(()),
    }
}

/// How tensors are stored.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PrecisionArg {
    F32,
    /// Activations and their gradients in f16, arithmetic and everything else in f32: half the memory.
    F16,
}

impl From<PrecisionArg> for DType {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::F16 => Self::F16,
        }
    }
}

/// What training may take of the GPU's memory.
#[derive(Debug, clap::Args)]
struct MemoryArgs {
    /// How activations are stored.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// GPU memory that training may take, such as 4GiB or 3500MiB: at most an eighth of it keeps cases, and what does not fit
    /// the rest is computed twice, as little as possible; the results stay the same to the bit.
    #[arg(long, value_parser = size)]
    vram: Option<u64>,
}

impl MemoryArgs {
    fn footprint(&self) -> Footprint {
        Footprint { dtype: self.precision.into(), vram: self.vram, reserved: 0 }
    }
}

/// Bytes with a unit.
fn size(text: &str) -> std::result::Result<u64, String> {
    let fail = || format!("expected a size such as 4GiB or 3500MiB, found {text}");
    let digits = text.trim().find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
    let (number, unit) = text.trim().split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(fail()),
    };
    let bytes = number.parse::<f64>().map_err(|_| fail())? * unit;
    // beyond what any adapter has, and well within u64
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(fail()) }
}

/// The model file that a flag names, itself or by the folder of its run.
fn model_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(MODEL) } else { path.to_path_buf() }
}

/// `LOWER,UPPER` as two numbers.
fn window(text: &str) -> std::result::Result<[f32; 2], String> {
    let parts: Option<Vec<f32>> = text.split(',').map(|p| p.trim().parse().ok()).collect();
    parts
        .and_then(|parts| parts.try_into().ok())
        .ok_or_else(|| format!("expected two numbers LOWER,UPPER such as -160,240, found {text}"))
}

/// `D,H,W` as three numbers.
fn triple<T: std::str::FromStr>(text: &str) -> std::result::Result<[T; 3], String> {
    let parts: Option<Vec<T>> = text.split([',', 'x']).map(|p| p.trim().parse().ok()).collect();
    parts
        .and_then(|parts| parts.try_into().ok())
        .ok_or_else(|| format!("expected three numbers D,H,W such as 40,56,40, found {text}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_units() {
        assert_eq!(super::size("4GiB"), Ok(4 << 30));
        assert_eq!(super::size("3500 mib"), Ok(3500 << 20));
        assert_eq!(super::size("1.5GB"), Ok(1_500_000_000));
        for text in ["", "4", "GiB", "4TiBs", "-1GiB", "0MiB", "1..5GiB", "1e9GiB"] {
            assert!(super::size(text).is_err(), "{text}");
        }
    }
}
