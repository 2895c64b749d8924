//! `u2seg train`.

mod args;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) use args::{Folds, NetArgs, RunArgs};

use super::validate::{combine, validate};
use crate::base::files::{Claim, safe_name};
use crate::dataset::{Dataset, Fold};
use crate::domain::{PlanOptions, PresetChoice};
use crate::engine::exec::LossScale;
use crate::engine::gpu::Gpu;
use crate::net::{Mode, Model};
use crate::train::{
    Beside, CONFIG, MODEL, Memory, RunConfig, SUMMARY, Trainer, check_new, claim, datasets,
    is_begun, plan, validation_folder, write_plan,
};
use crate::{Error, Result};

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
    let (gpu, out) = (Gpu::open(&args.run.device)?, &args.out);
    if args.run.resume {
        return resume(&gpu, out, &args.run, |_, _| Ok(()));
    }
    let options = args.net.options(&args.run)?;
    let runs = runs(&args.net.config(&args.run)?, &options.preset, &args.run.fold, out)?;
    start(&gpu, runs, &options, &args.run, |_, _| Ok(()))
}

/// Starts runs, trains each to its end and calls `finished` with its folder and model.
pub(super) fn start(
    gpu: &Gpu,
    runs: Vec<(PathBuf, RunConfig)>,
    options: &PlanOptions,
    args: &RunArgs,
    finished: impl Fn(&Path, Model) -> Result<()>,
) -> Result<()> {
    let _claim = begin(&runs, &options.preset, args)?;
    if let [(folder, config)] = runs.as_slice() {
        let trainer = Trainer::start(gpu, config.clone(), options, folder)?;
        return finished(folder, train(gpu, trainer, folder)?);
    }
    // all of them first: --continue then finds those that were not begun
    let plans = runs.iter().map(|(_, config)| plan(config, options)).collect::<Result<Vec<_>>>()?;
    for ((folder, config), plans) in runs.iter().zip(&plans) {
        write_plan(config, plans, folder)?;
    }
    go_on(gpu, &runs, finished)
}

/// Claims the files of runs that are not begun.
pub(super) fn begin(
    runs: &[(PathBuf, RunConfig)],
    preset: &PresetChoice,
    args: &RunArgs,
) -> Result<Claim> {
    runs.iter().try_for_each(|(folder, _)| check_new(folder))?;
    let reads = args.exclude.iter().cloned().collect();
    claim(runs, preset, &Beside { reads, writes: combined(runs, preset)? })
}

/// Goes on with the runs in a folder. Those that are not begun are tuned as `--tune` says, if it is given.
pub(super) fn resume(
    gpu: &Gpu,
    out: &Path,
    args: &RunArgs,
    finished: impl Fn(&Path, Model) -> Result<()>,
) -> Result<()> {
    let mut runs = begun(out)?;
    let writes = combined(&runs, &PresetChoice::None)?;
    let _claim = claim(&runs, &PresetChoice::None, &Beside { writes, ..Beside::default() })?;
    let mut kept: Vec<&str> = args.given.iter().map(String::as_str).collect();
    kept.retain(|flag| !["--out", "--continue", "--device"].contains(flag));
    let tunes = kept.contains(&"--tune") && runs.iter().any(|(folder, _)| !is_begun(folder));
    if tunes {
        for (folder, config) in runs.iter_mut().filter(|(folder, _)| !is_begun(folder)) {
            config.tune = args.tune;
            config.write(&folder.join(CONFIG))?;
        }
        kept.retain(|flag| *flag != "--tune");
    }
    if !kept.is_empty() {
        log::warn!(
            "{}: changes nothing with --continue: {} has the settings",
            kept.join(", "),
            out.join(CONFIG).display()
        );
    }
    go_on(gpu, &runs, finished)
}

/// Folders of runs that are folds of one cross-validation, by the folder that they share.
fn folds(runs: &[(PathBuf, RunConfig)]) -> BTreeMap<&Path, Vec<&(PathBuf, RunConfig)>> {
    let mut folds: BTreeMap<&Path, Vec<&(PathBuf, RunConfig)>> = BTreeMap::new();
    for run in runs {
        let (folder, config) = run;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_fold = match config.fold {
            Fold::Index(index) => name == Some(format!("{FOLD}{index}")),
            Fold::None | Fold::HoldOut(_) => false,
        };
        if let Some(parent) = folder.parent().filter(|_| is_fold) {
            folds.entry(parent).or_default().push(run);
        }
    }
    folds.retain(|_, runs| runs.len() > 1);
    folds
}

/// Scores of all folds together, and the dataset that they are of.
fn combined(
    runs: &[(PathBuf, RunConfig)],
    preset: &PresetChoice,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut files = BTreeMap::new();
    for (parent, runs) in folds(runs) {
        for (_, config) in runs {
            for dataset in datasets(config, preset)? {
                let file = validation_folder(parent, &dataset.name).join(SUMMARY);
                files.insert(file, dataset.dir);
            }
        }
    }
    Ok(files.into_iter().collect())
}

/// Trains runs one after another, then scores folds together.
fn go_on(
    gpu: &Gpu,
    runs: &[(PathBuf, RunConfig)],
    finished: impl Fn(&Path, Model) -> Result<()>,
) -> Result<()> {
    for (folder, _) in runs {
        finished(folder, train(gpu, Trainer::resume(gpu, folder)?, folder)?)?;
    }
    folds(runs).into_iter().try_for_each(|(parent, runs)| {
        let folders: Vec<&Path> = runs.iter().map(|(folder, _)| folder.as_path()).collect();
        combine(parent, &folders)
    })
}

/// Beginning of the name of a fold's folder.
const FOLD: &str = "fold_";

/// The runs that a configuration asks for, each with its folder: a network for each dataset in the independent mode, and for
/// each fold where all are asked for.
pub(super) fn runs(
    config: &RunConfig,
    preset: &PresetChoice,
    folds: &Folds,
    out: &Path,
) -> Result<Vec<(PathBuf, RunConfig)>> {
    let mut runs = Vec::new();
    if config.mode == Mode::Independent && config.data.len() > 1 {
        for dataset in datasets(config, preset)? {
            // `..` has a name, too
            let dir = dataset.dir.canonicalize().unwrap_or_else(|_| dataset.dir.clone());
            let name =
                dir.file_name().map_or_else(|| safe_name(&dataset.name).into(), PathBuf::from);
            let mut config = RunConfig { data: vec![dataset.dir.clone()], ..config.clone() };
            if let Fold::HoldOut(names) = &mut config.fold {
                names.retain(|name| dataset.named(name).is_ok_and(|case| case.is_some()));
            }
            // those of the other datasets mean nothing here
            let opened = Dataset::open(&dataset.dir)?;
            config
                .selection
                .exclude
                .retain(|e| opened.cases.iter().any(|c| e.means(&opened, &c.id)));
            runs.push((out.join(name), config));
        }
        check_folders(&runs)?;
    } else {
        runs.push((out.to_path_buf(), config.clone()));
    }
    if *folds != Folds::All {
        return Ok(runs);
    }
    let mut each = Vec::new();
    for (folder, config) in runs {
        for index in 0..count(&config, preset)? {
            let config = RunConfig { fold: Fold::Index(index), ..config.clone() };
            each.push((folder.join(format!("{FOLD}{index}")), config));
        }
    }
    Ok(each)
}

/// Refuses networks of their own that would share a folder, which has the name of the dataset's.
fn check_folders(runs: &[(PathBuf, RunConfig)]) -> Result<()> {
    for (index, (folder, config)) in runs.iter().enumerate() {
        if let Some((_, other)) = runs[..index].iter().find(|(other, _)| other == folder) {
            let found = format!("{} and {}", other.data[0].display(), config.data[0].display());
            return Err(Error::setting(
                "data",
                format!("two datasets whose runs would share {}: {found}", folder.display()),
                "folders with names of their own in the independent mode",
                "Rename one of them, or train them one by one.",
            ));
        }
    }
    Ok(())
}

/// Folds of the dataset with most of them.
fn count(config: &RunConfig, preset: &PresetChoice) -> Result<usize> {
    let most = datasets(config, preset)?.iter().map(Dataset::folds).max().unwrap_or(0);
    if most > 0 {
        return Ok(most);
    }
    Err(Error::setting(
        "fold",
        "all",
        "a dataset of at least two cases",
        "Use --fold none to train without validation, or add cases.",
    ))
}

/// Runs in a folder: its own, or those of folds and independent networks below it.
fn begun(out: &Path) -> Result<Vec<(PathBuf, RunConfig)>> {
    let mut folders = Vec::new();
    if out.is_dir() {
        find(out, 2, &mut folders)?;
    }
    folders.sort();
    if folders.is_empty() {
        return Err(Error::file(
            out,
            "no config.toml",
            "a run to continue",
            "Leave --continue out to start one.",
        ));
    }
    let read = |folder: PathBuf| {
        let config = RunConfig::read(&folder.join(CONFIG))?;
        Ok((folder, config))
    };
    folders.into_iter().map(read).collect()
}

fn find(folder: &Path, depth: usize, runs: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join(CONFIG).exists() {
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
    // frees what training took before the predictors take theirs
    let domains = trainer.into_domains();
    validate(gpu, &mut model, &domains, out)?;
    say!("{}", out.join(MODEL).display());
    Ok(model)
}

/// Words for tensors that are made twice, if any are.
pub(super) fn recomputed(memory: &Memory) -> String {
    match memory.recomputed {
        0 => String::new(),
        count => format!(" ({count} tensors computed twice)"),
    }
}
