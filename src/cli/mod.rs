//! Command line: clap, then a typed configuration, then one call. Results go to stdout, progress and logs to stderr.

#[macro_use]
mod say;

mod adapt;
mod args;
mod bench;
mod cache;
mod command;
mod complete;
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
mod words;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::base::{Error, Result, Stop};

/// What this program is, for reports of faults.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit ",
    env!("U2SEG_COMMIT"),
    "\nwgpu ",
    env!("U2SEG_WGPU_VERSION"),
    ", naga ",
    env!("U2SEG_NAGA_VERSION"),
);

/// Trains and runs 3D U²-Net, one network for many organs, on any GPU
#[derive(Debug, Parser)]
#[command(
    name = "u2seg",
    version,
    long_version = VERSION,
    max_term_width = 100,
    after_help = "\
Examples:
  u2seg predict -m hippocampus -i scan.nii.gz -o mask.nii.gz     # a model that comes along
  u2seg fetch Task09_Spleen
  u2seg train Task09_Spleen -o runs/spleen --minutes 60"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print details
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Download a Decathlon dataset, or a file with a checksum
    Fetch(fetch::Args),
    /// List the devices that can train and segment
    Devices(devices::Args),
    /// Read every case of dataset folders, or images, and say what is wrong
    Verify(verify::Args),
    /// Convert images and datasets between formats
    Convert(convert::Args),
    /// Plan patch, spacing and network from the data, and the memory it takes
    Plan(plan::Args),
    /// Crop, resample and normalise cases ahead of training
    Prepare(prepare::Args),
    /// List or remove prepared cases
    Cache(cache::Args),
    /// Train a network on one or more datasets
    Train(train::Args),
    /// Add a domain to a model, without touching its others
    Adapt(adapt::Args),
    /// Cut one domain out of a model
    Export(compose::ExportArgs),
    /// Put the domains of two models into one
    Merge(compose::MergeArgs),
    /// Read the weights of the published PyTorch network
    Import(compose::ImportArgs),
    /// Segment images with a trained model
    Predict(predict::Args),
    /// Score predicted masks against reference masks
    Evaluate(evaluate::Args),
    /// List the models that -m takes by name
    Models(models::Args),
    /// Draw an image with its masks outlined, as a PNG
    View(view::Args),
    /// Write an HTML page about a run or a folder of predictions
    Report(page::Args),
    /// Say what a model segments, how it was trained, and how well it does
    Info(info::Args),
    /// Check every kernel on a device against double precision
    Doctor(doctor::Args),
    /// Time the device, the kernels and whole training steps
    Bench(bench::Args),
    /// Print completions for a shell
    Completions(complete::CompletionsArgs),
    /// Write manual pages
    Man(complete::ManArgs),
}

/// Parses the arguments and runs the command; the exit code is 0 when done, 1 on failure, 2 on wrong usage, and 128 and the number
/// of the signal that stopped it.
pub fn main() -> std::process::ExitCode {
    leave_lost_devices_to_errors();
    let program = Cli::command();
    let matches = program.clone().get_matches();
    let cli = parse(&matches);
    say::log(cli.quiet, cli.verbose);
    let command = matches.subcommand_name().and_then(|name| program.find_subcommand(name));
    let command = command.unwrap_or(&program);
    let given = flags::Given { program: &program, command, verbose: cli.verbose };
    let stop = Stop::default();
    match run(cli.command, &given, &stop) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // the command told where it stopped
            if let Some(code) = matches!(error, Error::Stopped).then(|| stopped(&stop)).flatten() {
                return code;
            }
            let code = if given.is_usage(&error) { 2 } else { 1 };
            fault!("{}", given.told(error));
            code.into()
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
    let written = |arg: &clap::Arg| match (arg.get_long(), arg.get_value_names()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some([name, ..])) => name.to_string(),
        (None, _) => arg.get_id().to_string(),
    };
    arguments.map(written).collect()
}

fn run(command: Command, given: &flags::Given, stop: &Stop) -> Result<()> {
    match command {
        Command::Fetch(args) => fetch::run(&args, stop),
        Command::Devices(args) => devices::run(&args, given),
        Command::Verify(args) => verify::run(&args, given),
        Command::Convert(args) => convert::run(&args, given),
        Command::Plan(args) => plan::run(&args, given),
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
        Command::Info(args) => info::run(&args, given),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => complete::completions(&args, given),
        Command::Man(args) => complete::man(&args, given),
    }
}
