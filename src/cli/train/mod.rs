//! `u2seg train`.

mod args;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) use args::{Folds, NetArgs, RunArgs};

use super::validate::{combine, validate};
use crate::data::{Dataset, Fold};
use crate::domain::PlanOptions;
use crate::error::{Error, Result};
use crate::exec::LossScale;
use crate::gpu::Gpu;
use crate::nn::{Mode, Model};
use crate::train::{MODEL, Memory, RunConfig, Trainer, check_held_out, plan, write_plan};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    net: NetArgs,
    /// Folder of the run.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: Args) -> Result<()> {
    let (gpu, out) = (Gpu::open(&args.run.device)?, &args.out);
    if args.run.resume {
        return resume(&gpu, out, |_, _| Ok(()));
    }
    let options = args.net.options(&args.run)?;
    let runs = runs(&args.net.config(&args.run), &args.run.fold, out)?;
    start(&gpu, runs, &options, |_, _| Ok(()))
}

/// Starts runs, trains each to its end and calls `finished` with its folder and model.
pub(super) fn start(
    gpu: &Gpu,
    runs: Vec<(PathBuf, RunConfig)>,
    options: &PlanOptions,
    finished: impl Fn(&Path, Model) -> Result<()>,
) -> Result<()> {
    if let [(folder, config)] = runs.as_slice() {
        let trainer = Trainer::start(gpu, config.clone(), options, folder)?;
        finished(folder, train(gpu, trainer, folder)?)?;
        return Ok(());
    }
    // all of them first: --continue then finds those that were not begun
    for (folder, config) in &runs {
        write_plan(config, &plan(config, options)?, folder)?;
    }
    let folders: Vec<PathBuf> = runs.into_iter().map(|(folder, _)| folder).collect();
    go_on(gpu, &folders, finished)
}

/// Goes on with the runs in a folder.
pub(super) fn resume(
    gpu: &Gpu,
    out: &Path,
    finished: impl Fn(&Path, Model) -> Result<()>,
) -> Result<()> {
    go_on(gpu, &begun(out)?, finished)
}

/// Trains runs one after another, then scores folds together.
fn go_on(
    gpu: &Gpu,
    folders: &[PathBuf],
    finished: impl Fn(&Path, Model) -> Result<()>,
) -> Result<()> {
    for folder in folders {
        finished(folder, train(gpu, Trainer::resume(gpu, folder)?, folder)?)?;
    }
    let is_fold = |folder: &&PathBuf| {
        folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLD))
    };
    let parents: BTreeSet<&Path> =
        folders.iter().filter(is_fold).filter_map(|folder| folder.parent()).collect();
    parents.into_iter().try_for_each(combine)
}

/// Beginning of the name of a fold's folder.
pub(super) const FOLD: &str = "fold_";

/// The runs that a configuration asks for, each with its folder: a network for each dataset in the independent mode, and for
/// each fold where all are asked for.
pub(super) fn runs(
    config: &RunConfig,
    folds: &Folds,
    out: &Path,
) -> Result<Vec<(PathBuf, RunConfig)>> {
    let mut runs = Vec::new();
    if config.mode == Mode::Independent && config.data.len() > 1 {
        check_held_out(config)?;
        for dir in &config.data {
            let name = dir.file_name().map(PathBuf::from).unwrap_or_default();
            let mut config = RunConfig { data: vec![dir.clone()], ..config.clone() };
            if let Fold::HoldOut(ids) = &mut config.fold {
                let dataset = Dataset::open(dir)?;
                ids.retain(|id| dataset.has(id));
            }
            runs.push((out.join(name), config));
        }
    } else {
        runs.push((out.to_path_buf(), config.clone()));
    }
    if *folds != Folds::All {
        return Ok(runs);
    }
    let mut each = Vec::new();
    for (folder, config) in runs {
        for index in 0..count(&config)? {
            let config = RunConfig { fold: Fold::Index(index), ..config.clone() };
            each.push((folder.join(format!("{FOLD}{index}")), config));
        }
    }
    Ok(each)
}

/// Folds of the dataset with most cases.
fn count(config: &RunConfig) -> Result<usize> {
    let folds = config.data.iter().map(|dir| Ok(Dataset::open(dir)?.folds()));
    let most = folds.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
    if most > 0 {
        return Ok(most);
    }
    Err(Error::flag(
        "--fold",
        "all",
        "a dataset of at least two cases",
        "Use --fold none to train without validation, or add cases.",
    ))
}

/// Runs in a folder: its own, or those of folds and independent networks below it.
fn begun(out: &Path) -> Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    find(out, 2, &mut runs)?;
    runs.sort();
    if runs.is_empty() {
        return Err(Error::file(
            out,
            "no config.toml",
            "a run to continue",
            "Leave --continue out to start one.",
        ));
    }
    Ok(runs)
}

fn find(folder: &Path, depth: usize, runs: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join("config.toml").exists() {
        runs.push(folder.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if depth > 0 && path.is_dir() {
            find(&path, depth - 1, runs)?;
        }
    }
    Ok(())
}

/// Trains to the end, says where the model is, and scores the held-out cases.
fn train(gpu: &Gpu, mut trainer: Trainer, out: &Path) -> Result<Model> {
    for cases in trainer.domains() {
        let d = &cases.domain;
        let preset = d.preset.as_ref().map(|name| format!("; planned as published for {name}"));
        let cut = d.cut.map(|cut| format!(" resized from {cut:?}"));
        eprintln!(
            "{}: {} cases, {} held out; patch {:?}{}, batch {}, pools {:?}, spacing {:.3?} mm{}",
            d.name,
            cases.cases.len(),
            cases.held_out.len(),
            d.patch,
            cut.unwrap_or_default(),
            d.batch,
            d.pools,
            d.spacing,
            preset.unwrap_or_default()
        );
    }
    let memory = trainer.memory();
    eprintln!(
        "{}: {} MiB of GPU memory{} and at most {} MiB for cases and patches, from step {}",
        gpu.report().name,
        memory.total() >> 20,
        recomputed(memory),
        trainer.patch_bytes().div_ceil(1 << 20),
        trainer.step()
    );
    let mut model = trainer.run()?;
    if let Some(LossScale { scale, skipped, .. }) = trainer.loss_scale()? {
        eprintln!(
            "loss scale {scale}; gradients overflowed in {skipped} steps, which changed nothing"
        );
    }
    say!("{}", out.join(MODEL).display());
    // frees what training took before the predictors take theirs
    let domains = trainer.into_domains();
    validate(gpu, &mut model, &domains, out)?;
    Ok(model)
}

/// Words for tensors that are made twice, if any are.
pub(super) fn recomputed(memory: &Memory) -> String {
    match memory.recomputed {
        0 => String::new(),
        count => format!(" ({count} tensors computed twice)"),
    }
}
