//! `u2seg train`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{MemoryArgs, triple, window};
use crate::data::{Case, Dataset, Fold, read_labels, write_mask};
use crate::domain::{CleanUp, DEFAULT_VOXELS, PlanOptions};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::infer::metrics::{DEFAULT_TOLERANCE_MM, Pair};
use crate::infer::postprocess::clean_up;
use crate::infer::summary::{CaseScores, Summary};
use crate::infer::{Decision, Kept, Predictor};
use crate::nn::{Adapter, Downsample, Mode, Model};
use crate::ops::{LossWeights, Optimizer};
use crate::train::{
    DomainCases, Length, MODEL, Memory, RunConfig, Schedule, Trainer, check_held_out,
};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArg {
    /// One run trains each dataset on its own, with plain convolutions.
    Independent,
    /// Shared plain convolutions; norms, first and last layers belong to a domain.
    Shared,
    /// Shared convolutions with an adapter for each domain.
    Universal,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DownsampleArg {
    /// A shared strided 3³ convolution, as published.
    Full,
    /// Depthwise 3³ of the domain, then a shared strided pointwise convolution (universal mode): far fewer parameters.
    Separable,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AdapterArg {
    Separable,
    Series,
    Parallel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LossArg {
    /// Cross-entropy plus soft Dice.
    DiceCe,
    /// Cross-entropy.
    Ce,
    /// Lovász-softmax plus focal loss, as published.
    U2net,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OptimizerArg {
    /// Adam with L2 weight decay 5e-4.
    Adam,
    /// Stochastic gradient descent with Nesterov momentum 0.99.
    Sgd,
}

/// What training and adapting have in common.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Training steps; the rate falls to zero over them.
    #[arg(long, conflicts_with = "minutes", default_value_t = 1000)]
    steps: u64,
    /// Minutes to train instead of steps.
    #[arg(long)]
    minutes: Option<f64>,
    /// Samples a step.
    #[arg(long)]
    batch: Option<usize>,
    /// Patch in voxels, D,H,W.
    #[arg(long, value_parser = triple::<usize>)]
    patch: Option<[usize; 3]>,
    /// Voxels that a patch has at most, where --patch does not say.
    #[arg(long, default_value_t = DEFAULT_VOXELS, conflicts_with = "patch")]
    patch_voxels: usize,
    /// Halvings of D,H,W, 0 to 6 each.
    #[arg(long, value_parser = triple::<usize>)]
    pools: Option<[usize; 3]>,
    /// Millimetres of the network's voxels, D,H,W.
    #[arg(long, value_parser = triple::<f64>)]
    spacing: Option<[f64; 3]>,
    /// Intensities to which a one-channel image is clipped, LOWER,UPPER, such as -160,240 for soft tissue in a CT; by
    /// default those found inside the labels of a CT (at least -160,240 where there are few cases), and each image's own
    /// otherwise.
    #[arg(long, value_parser = window, allow_hyphen_values = true)]
    window: Option<[f32; 2]>,
    /// Fold whose cases are left out and scored at the end: 0 to 4, or all to train on every case.
    #[arg(short, long, default_value = "all")]
    fold: Fold,
    /// Cases left out and scored at the end, by name, instead of a fold.
    #[arg(long, num_args = 1.., conflicts_with = "fold")]
    hold_out: Vec<String>,
    /// How domains share the steps: turns, size (training cases), loss, or a number for each such as 2,1,1.
    #[arg(long, default_value = "turns")]
    schedule: Schedule,
    /// Seed of weights, splits and patches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Learning rate at the start.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// What is minimised.
    #[arg(long, value_enum, default_value = "dice-ce")]
    loss: LossArg,
    /// Update rule.
    #[arg(long, value_enum, default_value = "adam")]
    optimizer: OptimizerArg,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Go on with the run in --out from its last checkpoint; its settings stay as they were.
    #[arg(long = "continue")]
    pub resume: bool,
    /// Adapter: auto, an index of `u2seg devices`, or part of a name.
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// Data and network.
#[derive(Debug, clap::Args)]
pub(super) struct NetArgs {
    /// Dataset folders (Decathlon or nnU-Net v2 raw), one a domain.
    #[arg(long, num_args = 1.., required_unless_present = "resume")]
    data: Vec<PathBuf>,
    /// How domains share the network.
    #[arg(long, value_enum, default_value = "universal")]
    mode: ModeArg,
    /// A domain's own part in the universal mode.
    #[arg(long, value_enum, default_value = "separable")]
    adapter: AdapterArg,
    /// What halves the grid from a level to the next.
    #[arg(long, value_enum, default_value = "full")]
    downsample: DownsampleArg,
    /// Channels of the first level.
    #[arg(long, default_value_t = 16)]
    base: usize,
}

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

impl RunArgs {
    /// The settings of a run on these folders.
    pub fn config(&self, data: Vec<PathBuf>) -> RunConfig {
        let mut config = RunConfig::new(data);
        config.loss = match self.loss {
            LossArg::DiceCe => LossWeights::dice_ce(),
            LossArg::Ce => LossWeights::ce(),
            LossArg::U2net => LossWeights::u2net(),
        };
        config.optimizer = match self.optimizer {
            OptimizerArg::Adam => Optimizer::adam(),
            OptimizerArg::Sgd => Optimizer::Sgd { momentum: 0.99, weight_decay: 5e-4 },
        };
        config.length = self.minutes.map_or(Length::Steps(self.steps), Length::Minutes);
        config.seed = self.seed;
        config.schedule = self.schedule.clone();
        config.fold = if self.hold_out.is_empty() {
            self.fold.clone()
        } else {
            Fold::HoldOut(self.hold_out.clone())
        };
        config.lr = self.lr;
        let footprint = self.memory.footprint();
        (config.precision, config.vram) = (footprint.element, footprint.vram);
        config
    }

    /// What the user fixes of the plans.
    pub fn options(&self) -> PlanOptions {
        PlanOptions {
            patch: self.patch,
            max_voxels: Some(self.patch_voxels),
            batch: self.batch,
            pools: self.pools,
            spacing: self.spacing,
            window: self.window,
            ..PlanOptions::default()
        }
    }
}

impl NetArgs {
    /// The settings of a run.
    pub fn config(&self, run: &RunArgs) -> RunConfig {
        // absolute, so that the run goes on from any folder
        let absolute = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let mut config = run.config(self.data.iter().map(absolute).collect());
        config.mode = match self.mode {
            ModeArg::Independent => Mode::Independent,
            ModeArg::Shared => Mode::Shared,
            ModeArg::Universal => Mode::Universal,
        };
        config.adapter = match self.adapter {
            AdapterArg::Separable => Adapter::Separable,
            AdapterArg::Series => Adapter::Series,
            AdapterArg::Parallel => Adapter::Parallel,
        };
        config.downsample = match self.downsample {
            DownsampleArg::Full => Downsample::Full,
            DownsampleArg::Separable => Downsample::Separable,
        };
        config.base = self.base;
        config
    }
}

pub fn run(args: Args) -> Result<()> {
    let (gpu, out) = (Gpu::open(&args.run.device)?, &args.out);
    if args.run.resume {
        if out.join("config.toml").exists() {
            return train(&gpu, Trainer::resume(&gpu, out)?, out).map(drop);
        }
        let runs = independent_runs(out)?;
        for run in &runs {
            train(&gpu, Trainer::resume(&gpu, run)?, run)?;
        }
        return Ok(());
    }
    let config = args.net.config(&args.run);
    let options = args.run.options();
    if config.mode == Mode::Independent && config.data.len() > 1 {
        check_held_out(&config)?;
        for dir in &config.data {
            let name = dir.file_name().map(PathBuf::from).unwrap_or_default();
            let out = out.join(name);
            let mut config = RunConfig { data: vec![dir.clone()], ..config.clone() };
            if let Fold::HoldOut(ids) = &mut config.fold {
                let dataset = Dataset::open(dir)?;
                ids.retain(|id| dataset.has(id));
            }
            train(&gpu, Trainer::start(&gpu, config, &options, &out)?, &out)?;
        }
        return Ok(());
    }
    train(&gpu, Trainer::start(&gpu, config, &options, out)?, out).map(drop)
}

/// Runs of an independent training: a folder each.
fn independent_runs(out: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(out).map_err(|e| Error::io(out, e))?;
    let mut runs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("config.toml").exists())
        .collect();
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

/// Trains to the end, says where the model is, and scores the held-out cases.
pub(super) fn train(gpu: &Gpu, mut trainer: Trainer, out: &Path) -> Result<Model> {
    for cases in trainer.domains() {
        let d = &cases.domain;
        eprintln!(
            "{}: {} cases, {} held out; patch {:?}, batch {}, pools {:?}, spacing {:.3?} mm",
            d.name,
            cases.cases.len(),
            cases.held_out.len(),
            d.patch,
            d.batch,
            d.pools,
            d.spacing
        );
    }
    let memory = trainer.memory();
    eprintln!(
        "{}: {} MiB of GPU memory{}, from step {}",
        gpu.report().name,
        memory.total() >> 20,
        recomputed(memory),
        trainer.step()
    );
    let mut model = trainer.run()?;
    println!("{}", out.join(MODEL).display());
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

/// Segments the held-out cases of each domain, keeps the clean-up that helps in the model, and scores.
fn validate(gpu: &Gpu, model: &mut Model, domains: &[DomainCases], out: &Path) -> Result<()> {
    for cases in domains.iter().filter(|d| !d.held_out.is_empty()) {
        let index = model.domain(Some(&cases.domain.name))?;
        let folder = out.join("validation").join(&cases.domain.name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let predictor = Predictor::new(gpu, model, index)?;
        let classes: Vec<u8> = (1..cases.domain.classes.len() as u8).collect();
        let mut decision = Decision::new(&classes);
        for case in &cases.held_out {
            let (image, truth) = cases.dataset.load(case)?;
            let labels = predictor.raw_labels(&image)?;
            decision.add(&truth.data, &labels, truth.shape)?;
            write_mask(&mask(&folder, case), &labels, &image.grid)?;
        }
        let kept = decision.kept();
        for Kept { clean_up, before, after } in &kept {
            let class = &cases.domain.classes[usize::from(clean_up.class)];
            let steps = &clean_up.steps;
            println!("clean-up of {class}: {steps:?}, mean Dice {before:.4} to {after:.4}");
        }
        model.domains[index].clean_up = kept.into_iter().map(|k| k.clean_up).collect();
        let summary = score(cases, &classes, &model.domains[index].clean_up, &folder)?;
        summary.write(folder.join("summary.json"))?;
        println!("{}\n{}", cases.domain.name, summary.print_table(&cases.domain.classes));
    }
    if domains.iter().any(|d| !d.held_out.is_empty()) {
        model.write(&out.join(MODEL))?;
    }
    Ok(())
}

fn mask(folder: &Path, case: &Case) -> PathBuf {
    folder.join(format!("{}.nii.gz", case.id))
}

/// Cleans the masks in `folder` up and scores them.
fn score(cases: &DomainCases, classes: &[u8], steps: &[CleanUp], folder: &Path) -> Result<Summary> {
    let mut scores = Vec::new();
    for case in &cases.held_out {
        let (image, truth) = cases.dataset.load(case)?;
        let file = mask(folder, case);
        let all: Vec<u8> = (0..cases.domain.classes.len() as u8).collect();
        let mut labels = read_labels(&file, &all, &[])?.data;
        if !steps.is_empty() {
            clean_up(&mut labels, truth.shape, steps)?;
            write_mask(&file, &labels, &image.grid)?;
        }
        let pair = Pair::new(&truth.data, &labels, truth.shape, truth.spacing)?;
        let metrics = pair.all_scores(classes, DEFAULT_TOLERANCE_MM);
        scores.push(CaseScores {
            metrics: classes.iter().copied().zip(metrics).collect(),
            prediction_file: file.display().to_string(),
            reference_file: case.label.display().to_string(),
        });
    }
    Ok(Summary::new(scores))
}
