//! `u2seg adapt`.

use std::path::{Path, PathBuf};

use super::train::{RunArgs, begin};
use crate::base::{Error, Result, Stop};
use crate::engine::gpu::Gpu;
use crate::net::{Model, part_counts};
use crate::run::{ADDED, Adaptation, MODEL, RunRequest, Runs, read_plan};
use crate::train::Freeze;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg adapt -m runs/organs --data Task09_Spleen -o runs/spleen
  u2seg adapt -m runs/organs --data Task09_Spleen -o runs/spleen --minutes 15 --hold-out 10
  u2seg adapt --continue -o runs/spleen")]
pub struct Args {
    /// Model to adapt, of the shared or universal mode
    ///
    /// A model file, the folder of a run, or a name of `u2seg models`. What its domains share stays as it is.
    #[arg(short, long, required_unless_present = "resume", help_heading = "Data")]
    model: Option<PathBuf>,
    /// Dataset folder of the new domain (Decathlon or nnU-Net v2)
    #[arg(long, required_unless_present = "resume", value_name = "FOLDER", help_heading = "Data")]
    data: Option<PathBuf>,
    /// Freeze only what the published code freezes
    ///
    /// That is the convolutions of down and up blocks. The layers that down- and upsample start afresh, so the result serves
    /// the new domain alone.
    #[arg(long, help_heading = "Training")]
    published: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Folder of the run
    #[arg(short, long, alias = "output", value_name = "FOLDER", help_heading = "Output")]
    out: PathBuf,
}

impl Args {
    /// The run that is asked for.
    fn request(&self, gpu: &Gpu, model: &Path, data: &Path) -> Result<RunRequest> {
        let old = Adaptation::new(&super::args::lasting_model(model)?, data)?;
        let data = std::path::absolute(data).map_err(|e| Error::io(data, e))?;
        let network = old.network();
        let mut config =
            self.run.config(gpu.is_software(), vec![data], network.mode, network.adapter)?;
        let mut options = self.run.options(1)?;
        let freeze = if self.published { Freeze::Published } else { Freeze::Shared };
        old.apply(freeze, &mut config, &mut options);
        if !self.run.unifies() {
            old.resize_alike(&mut config, &mut options);
        }
        Ok(self.run.request(config, options, &self.out))
    }
}

pub fn run(args: &Args, stop: &Stop) -> Result<()> {
    begin(&args.out, &args.run, stop, report, |gpu| match (&args.model, &args.data) {
        (Some(model), Some(data)) => Runs::new(args.request(gpu, model, data)?),
        _ => Err(Error::Internal("neither a model nor a run to continue".into())),
    })
}

/// Says what a finished run added.
fn report(folder: &Path) -> Result<()> {
    let model = Model::read(&folder.join(MODEL))?;
    let plans = read_plan(folder)?;
    let name = plans.first().map(|plan| plan.name.as_str());
    let index = model.domain(name)?;
    let parts = part_counts(&model.network)?;
    let own: usize = parts.iter().map(|part| part.domains[index]).sum();
    let all: usize = parts.iter().map(|part| part.total()).sum();
    let name = &model.domains[index].name;
    say!("{name}: {own} parameters of its own, of {all} in the model");
    let added = folder.join(ADDED);
    if added.exists() {
        say!("{} holds the new domain alone, for `u2seg merge`", added.display());
    }
    Ok(())
}
