//! `u2seg prepare`.

use super::preparation::PreparationBar;
use super::say::bytes;
use super::train::{NetArgs, RunArgs};
use crate::base::Result;
use crate::run::{PreparedDomain, Runs};

#[derive(Debug, clap::Args)]
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
            "{}: {} cases at {:.3?} mm (D, H, W), {} in {}",
            plan.name,
            cases.cases,
            plan.spacing,
            bytes(cases.bytes),
            folder.display()
        );
    }
    Ok(())
}
