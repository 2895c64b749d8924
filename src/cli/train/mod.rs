//! `u2seg train`.

mod args;
mod watch;

use std::path::{Path, PathBuf};

pub(super) use args::{NetArgs, RunArgs, place};
pub(super) use watch::{Watch, recomputed};

use crate::base::Result;
use crate::engine::gpu::Gpu;
use crate::run::{CONFIG, Observer, Runs};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Folder of the run.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

pub fn run(args: Args) -> Result<()> {
    let gpu = Gpu::open(&args.run.device)?;
    let mut watch = Watch::new(&gpu, |_| Ok(()));
    if args.run.resume {
        return resume(&gpu, &args.out, &args.run, &mut watch);
    }
    let options = args.net.options(&args.run)?;
    let config = args.net.config(gpu.is_software(), &args.run)?;
    Runs::new(args.run.request(config, options, &args.out))?.complete(&gpu, &mut watch).map(|_| ())
}

/// Goes on with the runs in a folder. Those that are not begun are tuned as `--tune` says, if it is given.
pub(super) fn resume(
    gpu: &Gpu,
    out: &Path,
    args: &RunArgs,
    observer: &mut dyn Observer,
) -> Result<()> {
    let mut runs = Runs::open(out)?;
    args.keep_prepared(&mut runs);
    let mut kept: Vec<&str> = args.given.iter().map(String::as_str).collect();
    kept.retain(|flag| {
        !["--out", "--continue", "--device", "--cache", "--cache-size"].contains(flag)
    });
    if kept.contains(&"--tune") && runs.retune(args.tune)? {
        kept.retain(|flag| *flag != "--tune");
    }
    if !kept.is_empty() {
        log::warn!(
            "{}: changes nothing with --continue: {} has the settings",
            kept.join(", "),
            out.join(CONFIG).display()
        );
    }
    runs.complete(gpu, observer).map(|_| ())
}
