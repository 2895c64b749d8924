//! `u2seg adapt`.

use std::path::PathBuf;

use super::train::{RunArgs, train};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::{Mode, Model, part_counts};
use crate::train::{ADDED, Freeze, RunConfig, Start, Trainer};

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
    run: RunArgs,
}

impl Args {
    fn start(&self, gpu: &Gpu, model: PathBuf, data: PathBuf) -> Result<Trainer> {
        let file = super::model_file(&model);
        let old = Model::read(&file)?;
        if old.network.mode == Mode::Independent {
            return Err(Error::file(
                file,
                "a model of the independent mode, which shares nothing",
                "one of the shared or universal mode",
                "Train with --mode universal.",
            ));
        }
        let absolute = |path| std::path::absolute(&path).map_err(|e| Error::io(&path, e));
        let (file, data) = (absolute(file)?, absolute(data)?);
        let freeze = if self.published { Freeze::Published } else { Freeze::Shared };
        let config = RunConfig {
            mode: old.network.mode,
            adapter: old.network.adapter,
            downsample: old.network.downsample,
            base: old.network.base,
            start: Some(Start { model: file, freeze }),
            ..self.run.config(vec![data])
        };
        let mut options = self.run.options();
        options.max_pools = Some(old.network.depth() - 1);
        let trainer = Trainer::start(gpu, config, &options, &self.out)?;
        let name = &trainer.domains()[0].domain.name;
        match old.domain(Some(name)) {
            Err(_) => Ok(trainer),
            Ok(_) => Err(Error::flag(
                "--data",
                format!("a dataset named {name}, like a domain of the model"),
                "a name of its own",
                "Change \"name\" in dataset.json.",
            )),
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    let gpu = Gpu::open(&args.run.device)?;
    let trainer = match (&args.model, &args.data) {
        _ if args.run.resume => Trainer::resume(&gpu, &args.out)?,
        (Some(model), Some(data)) => args.start(&gpu, model.clone(), data.clone())?,
        _ => return Err(Error::Internal("neither a model nor a run to continue".into())),
    };
    let name = trainer.domains()[0].domain.name.clone();
    let model = train(&gpu, trainer, &args.out)?;
    let index = model.domain(Some(&name))?;
    let parts = part_counts(&model.network)?;
    let own: usize = parts.iter().map(|part| part.domains[index]).sum();
    let all: usize = parts.iter().map(|part| part.total()).sum();
    println!("{name}: {own} parameters of its own, of {all} in the model");
    let added = args.out.join(ADDED);
    if added.exists() {
        // with the clean-up that its validation decided on
        model.export(index)?.write(&added)?;
        println!("{} holds the new domain alone, for `u2seg merge`", added.display());
    }
    Ok(())
}
