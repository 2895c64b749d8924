//! Command line: clap, then a typed configuration, then one call. Results go to stdout, progress and logs to stderr.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod say;

mod adapt;
mod args;
mod bench;
mod cache;
mod command;
mod compose;
mod convert;
mod devices;
mod doctor;
mod evaluate;
mod fetch;
mod flags;
mod info;
mod models;
mod page;
mod plan;
mod predict;
mod preparation;
mod prepare;
mod preview;
mod report;
mod signals;
mod statistics;
mod train;
mod verify;
mod view;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::base::{Error, Result, Stop};

/// Trains and runs 3D U²-Net on any GPU through WebGPU.
#[derive(Debug, Parser)]
#[command(name = "u2seg", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch a dataset of the Decathlon, or a file with a checksum: goes on where it was cut, unpacks safely.
    Fetch(fetch::Args),
    /// List the adapters that can train and segment.
    Devices(devices::Args),
    /// Read every case of dataset folders, or single images, and say what is wrong: geometry, labels, names.
    Verify(verify::Args),
    /// Convert images between DICOM, NIfTI, NRRD and MetaImage, and datasets between the Decathlon's form and nnU-Net v2's.
    Convert(convert::Args),
    /// Plan patch, spacing and pools from the data, and what memory training needs.
    Plan(plan::Args),
    /// Prepare the cases of dataset folders ahead of training: crop, resample, normalise and keep them.
    Prepare(prepare::Args),
    /// Look at the prepared cases that are kept, or remove them.
    Cache(cache::Args),
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
    /// List the models that `-m` takes by name: what they segment, how well, and their licence.
    Models(models::Args),
    /// Draw slices of an image with its masks outlined, as a PNG.
    View(view::Args),
    /// Write one HTML page about a training run or a folder of predictions: scores, pictures, curves, settings.
    Report(page::Args),
    /// Count a model's parameters: shared, of each domain, of each part.
    Info(info::Args),
    /// Check every kernel and its variants on an adapter against double precision.
    Doctor(doctor::Args),
    /// Time the adapter, the kernels and whole steps.
    Bench(bench::Args),
}

/// Parses the arguments and runs the command; the exit code is 0 when done, 1 on failure, 2 on wrong usage, and 128 and the number
/// of the signal that stopped it.
pub fn main() -> std::process::ExitCode {
    env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("warn,wgpu_hal=error"),
    )
    .format_timestamp(None)
    .init();
    leave_lost_devices_to_errors();
    let program = Cli::command();
    let matches = program.clone().get_matches();
    let command = matches.subcommand_name().and_then(|name| program.find_subcommand(name));
    let given = flags::Given { program: &program, command: command.unwrap_or(&program) };
    let stop = Stop::default();
    match run(parse(&matches), &given, &stop) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // the command told where it stopped
            if let Some(code) = matches!(error, Error::Stopped).then(|| stopped(&stop)).flatten() {
                return code;
            }
            note!("error: {}", given.told(error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// wgpu panics where it finds a device lost while it waits. That becomes an error, which is all that a user should see of it.
fn leave_lost_devices_to_errors() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if !text.is_some_and(|text| text.starts_with("Error in Device::poll")) {
            usual(panic);
        }
    }));
}

/// The exit code of work that a signal stopped.
fn stopped(stop: &Stop) -> Option<std::process::ExitCode> {
    let signal = i32::try_from(stop.cause()?).ok()?;
    Some(u8::try_from(signals::code(signal)).ok()?.into())
}

/// The arguments; a run that goes on is told which flags it was given, since it keeps its own settings.
fn parse(matches: &clap::ArgMatches) -> Cli {
    let mut cli = Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let given = || match matches.subcommand() {
        Some((name, matches)) => given(name, matches),
        None => Vec::new(),
    };
    match &mut cli.command {
        Command::Train(args) => args.run.given = given(),
        Command::Adapt(args) => (args.run.given, args.run.adapts) = (given(), true),
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

fn run(cli: Cli, given: &flags::Given, stop: &Stop) -> Result<()> {
    match cli.command {
        Command::Fetch(args) => fetch::run(&args, stop),
        Command::Devices(args) => devices::run(&args),
        Command::Verify(args) => verify::run(&args, given),
        Command::Convert(args) => convert::run(&args, given),
        Command::Plan(args) => plan::run(&args),
        Command::Prepare(args) => prepare::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Train(args) => train::run(&args, stop),
        Command::Adapt(args) => adapt::run(&args, stop),
        Command::Export(args) => compose::export(&args),
        Command::Merge(args) => compose::merge(&args),
        Command::Import(args) => compose::import_state(&args),
        Command::Predict(args) => predict::run(&args, given, stop),
        Command::Evaluate(args) => evaluate::run(&args, given),
        Command::Models(args) => models::run(&args),
        Command::View(args) => view::run(&args),
        Command::Report(args) => page::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
