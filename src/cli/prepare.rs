//! `u2seg prepare`.

use super::preparation::PreparationBar;
use super::say::bytes;
use super::train::{NetArgs, RunArgs};
use super::words::{axes, count, mm};
use crate::base::Result;
use crate::run::{PreparedDomain, Runs};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg prepare Task09_Spleen
  u2seg prepare Task04_Hippocampus Task09_Spleen --cache /fast/prepared
  u2seg prepare Task09_Spleen --spacing 3,1.5,1.5    # as the training that follows is given")]
pub struct Args {
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: &Args) -> Result<()> {
    // how cases are prepared does not depend on the adapter, so that none is needed
    let config = args.net.config(false, &args.run)?;
    let options = args.net.options(&args.run)?;
    let mut runs = Runs::new(args.run.request(config, options, std::path::Path::new("")))?;
    let prepared = runs.prepare(&mut PreparationBar::default())?;
    for PreparedDomain { plan, cases, folder } in prepared {
        say!(
            "{}: {} at {} mm (D×H×W), {} in {}",
            plan.name,
            count(cases.cases as u64, "case"),
            axes(plan.spacing.map(mm)),
            bytes(cases.bytes),
            folder.display()
        );
    }
    Ok(())
}
