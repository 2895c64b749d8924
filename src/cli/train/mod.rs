//! `u2seg train`.

mod args;
mod watch;

use std::path::{Path, PathBuf};

use super::command::quoted;
use super::signals;

pub(super) use args::{NetArgs, RunArgs, place};
pub(super) use watch::{Watch, recomputed};

use crate::base::{Error, Result, Stop};
use crate::engine::gpu::Gpu;
use crate::run::{Runs, holds_runs};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg train Task04_Hippocampus -o runs/hippocampus --minutes 30
  u2seg train Task04_Hippocampus Task09_Spleen -o runs/organs --hold-out 10%
  u2seg train --continue -o runs/organs --steps 20000")]
pub struct Args {
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Folder of the run
    #[arg(short, long, alias = "output", value_name = "FOLDER", help_heading = "Output")]
    out: PathBuf,
}

pub fn run(args: &Args, stop: &Stop) -> Result<()> {
    begin(
        &args.out,
        &args.run,
        stop,
        |_| Ok(()),
        |gpu| {
            let options = args.net.options(&args.run)?;
            let config = args.net.config(gpu.is_software(), &args.run)?;
            Runs::new(args.run.request(config, options, &args.out))
        },
    )
}

/// Begins runs, or goes on with those in `out`, and follows them to their end; `report` has the last word on each.
pub(super) fn begin(
    out: &Path,
    args: &RunArgs,
    stop: &Stop,
    report: fn(&Path) -> Result<()>,
    new: impl FnOnce(&Gpu) -> Result<Runs>,
) -> Result<()> {
    if args.resumes() {
        args.check_resumed()?;
    }
    signals::listen(stop)?;
    let gpu = Gpu::open(args.device())?;
    let mut watch = Watch::new(&gpu, stop, report);
    let runs = if args.resumes() { resume(out, args) } else { new(&gpu) };
    match runs.and_then(|mut runs| runs.complete(&gpu, &mut watch)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(Error::Stopped) => {
            tell_stopped(out, args, stop, &watch.place());
            Err(Error::Stopped)
        }
        Err(error) => Err(error),
    }
}

/// The runs in a folder as this start goes on with them. Those that are not begun are tuned as `--tune` says, if it is given.
fn resume(out: &Path, args: &RunArgs) -> Result<Runs> {
    let mut runs = Runs::open(out)?;
    // first, since it writes settings, which what counts for this start alone must not change
    if args.is_given("--tune") && !runs.retune(args.tune())? {
        return Err(args.ignored(&["--tune"]));
    }
    if let Some(length) = args.length() {
        runs.extend(length)?;
    }
    args.adjust(&mut runs);
    Ok(runs)
}

/// Says where a signal stopped the runs in a folder, and the command that goes on.
fn tell_stopped(out: &Path, args: &RunArgs, stop: &Stop, at: &str) {
    let name = signals::name(stop);
    if !holds_runs(out) {
        note!("{name}: stopped before the first step; nothing is written yet");
        return;
    }
    let device = match args.is_given("--device") {
        true => format!(" --device {}", quoted(args.device())),
        false => String::new(),
    };
    let command = if args.adapts { "adapt" } else { "train" };
    let out = quoted(&out.display().to_string());
    note!("{name}: stopped {at}. Go on with: u2seg {command} --continue --out {out}{device}");
}
