//! `u2seg adapt`.

use std::path::{Path, PathBuf};

use super::train::{RunArgs, resume, runs, start};
use crate::dataset::Dataset;
use crate::domain::{PlanOptions, Unify};
use crate::engine::gpu::Gpu;
use crate::net::{Mode, Model, part_counts};
use crate::patch::Interpolation;
use crate::train::{ADDED, Freeze, RunConfig, Start, read_plan};
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model to adapt, of the shared or universal mode; or the folder of its run.
    #[arg(short, long, required_unless_present = "resume")]
    model: Option<PathBuf>,
    /// Dataset folder of the new domain.
    #[arg(long, required_unless_present = "resume")]
    data: Option<PathBuf>,
    /// Freeze only what the published code freezes, the convolutions of down and up blocks. The samplers start afresh, so that
    /// the result serves the new domain alone.
    #[arg(long)]
    published: bool,
    /// Folder of the run.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl Args {
    /// The settings of the run, and what is fixed of the new domain's plan.
    fn settings(&self, model: &Path, data: &Path) -> Result<(RunConfig, PlanOptions)> {
        let file = super::args::model_file(model);
        let old = Model::read(&file)?;
        if old.network.mode == Mode::Independent {
            return Err(Error::file(
                file,
                "a model of the independent mode, which shares nothing",
                "one of the shared or universal mode",
                "Train with --mode universal.",
            ));
        }
        let name = Dataset::open(data)?.name;
        if old.domain(Some(&name)).is_ok() {
            return Err(Error::setting(
                "data",
                format!("a dataset named {name}, like a domain of the model"),
                "a name of its own",
                "Change \"name\" in dataset.json.",
            ));
        }
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Error::io(path, e));
        let freeze = if self.published { Freeze::Published } else { Freeze::Shared };
        let mut config = RunConfig {
            downsample: old.network.downsample,
            base: old.network.base,
            start: Some(Start { model: absolute(&file)?, freeze }),
            ..self.run.config(vec![absolute(data)?], old.network.mode, old.network.adapter)?
        };
        let mut options = self.run.options(1)?;
        options.max_pools = Some(old.network.depth() - 1);
        let resized = old.domains.iter().find(|d| d.cut.is_some() && !self.run.unifies());
        if let Some(domain) = resized {
            options.unify = Unify::Resize;
            config.augment.interpolation = Interpolation::Cubic;
            options.patch = options.patch.or(Some(domain.patch));
        }
        Ok((config, options))
    }
}

pub fn run(args: Args) -> Result<()> {
    let gpu = Gpu::open(&args.run.device)?;
    match (&args.model, &args.data) {
        _ if args.run.resume => resume(&gpu, &args.out, &args.run, report),
        (Some(model), Some(data)) => {
            let (config, options) = args.settings(model, data)?;
            let runs = runs(&config, &options.preset, &args.run.fold, &args.out)?;
            start(&gpu, runs, &options, &args.run, report)
        }
        _ => Err(Error::Internal("neither a model nor a run to continue".into())),
    }
}

/// Says what a finished run added, and writes the new domain alone.
fn report(out: &Path, model: Model) -> Result<()> {
    let plans = read_plan(out)?;
    let name = plans.first().map(|plan| plan.name.as_str());
    let index = model.domain(name)?;
    let parts = part_counts(&model.network)?;
    let own: usize = parts.iter().map(|part| part.domains[index]).sum();
    let all: usize = parts.iter().map(|part| part.total()).sum();
    let name = &model.domains[index].name;
    say!("{name}: {own} parameters of its own, of {all} in the model");
    let added = out.join(ADDED);
    if added.exists() {
        // with the clean-up that its validation decided on
        model.export(index)?.write(&added)?;
        say!("{} holds the new domain alone, for `u2seg merge`", added.display());
    }
    Ok(())
}
