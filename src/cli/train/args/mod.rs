//! Flags of `u2seg train`, `adapt`, `plan` and `prepare`, and the settings they make.

mod groups;
mod values;

use std::path::{Path, PathBuf};

use groups::{DataArgs, FolderArgs, MemoryArgs, NetworkArgs, PlanArgs, SavingArgs, TrainingArgs};
pub(in crate::cli) use values::place;
use values::{
    AdapterArg, AugmentArg, BudgetArg, DownsampleArg, Folds, LossArg, ModeArg, OptimizerArg,
    RecipeArg, UnifyArg, held_out,
};

use crate::base::{Error, Result};
use crate::cli::args::{TunedDeviceArgs, lasting_model};
use crate::dataset::{Exclusion, Fold, Selection};
use crate::domain::{PlanOptions, PresetChoice, Recipe, Unify};
use crate::engine::ops::{LossWeights, Optimizer};
use crate::engine::tune;
use crate::net::{DomainAdapter, Downsample, Mode};
use crate::patch::{Augment, Interpolation};
use crate::run::{RunRequest, Runs};
use crate::train::{Length, RunConfig, TrainingBudget, Validation};

/// What training and adapting have in common.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    device: TunedDeviceArgs,
    #[command(flatten)]
    saving: SavingArgs,
    /// The flags that the user gave.
    #[arg(skip)]
    pub given: Vec<String>,
    /// Whether the command is `adapt`.
    #[arg(skip)]
    pub adapts: bool,
}

/// Data and network.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NetArgs {
    #[command(flatten)]
    folders: FolderArgs,
    #[command(flatten)]
    network: NetworkArgs,
}

/// What may stand beside `--continue`; `--tune` for runs that were planned and not begun.
const RESUMED: [&str; 10] = [
    "--out",
    "--continue",
    "--steps",
    "--minutes",
    "--device",
    "--cache",
    "--cache-size",
    "--checkpoint-every",
    "--checkpoint-minutes",
    "--tune",
];

impl RunArgs {
    /// The device that is asked for, as the user writes it.
    pub fn device(&self) -> &str {
        &self.device.device
    }

    /// How kernels are to be chosen.
    pub fn tune(&self) -> tune::Mode {
        self.device.tune
    }

    /// Whether a run is to go on.
    pub fn resumes(&self) -> bool {
        self.saving.resume
    }

    fn recipe(&self) -> Recipe {
        match self.training.recipe {
            RecipeArg::Default => Recipe::Default,
            RecipeArg::U2net => Recipe::U2net,
        }
    }

    /// Keeps the prepared cases of runs that go on where this start says, and saves as often as it says.
    pub fn adjust(&self, runs: &mut Runs) {
        runs.keep_prepared(self.data.cache.clone(), self.data.cache_size);
        runs.save_every(self.saving.checkpoint_every, self.saving.checkpoint_minutes);
    }

    /// The length that is asked for, where one is.
    pub fn length(&self) -> Option<Length> {
        self.training.minutes.map(Length::Minutes).or(self.training.steps.map(Length::Steps))
    }

    /// Whether a flag stands on the command line.
    pub fn is_given(&self, flag: &str) -> bool {
        self.given.iter().any(|given| given == flag)
    }

    /// Refuses flags that a run which goes on would ignore: it has its own settings.
    pub fn check_resumed(&self) -> Result<()> {
        let ignored = |flag: &&str| !RESUMED.contains(flag);
        let ignored: Vec<&str> = self.given.iter().map(String::as_str).filter(ignored).collect();
        if ignored.is_empty() { Ok(()) } else { Err(self.ignored(&ignored)) }
    }

    /// Flags that would change nothing.
    pub fn ignored(&self, flags: &[&str]) -> Error {
        Error::setting(
            flags.join(", "),
            "settings beside --continue",
            format!("only what a run that goes on may change: {}", RESUMED.join(", ")),
            "Leave them out: config.toml of the run has its settings. Or start a new run in another `out`.",
        )
    }

    /// Whether `--unify` is given.
    pub fn unifies(&self) -> bool {
        self.plan.unify.is_some()
    }

    /// What is asked for, where files are not written over that flags name.
    pub fn request(&self, config: RunConfig, options: PlanOptions, out: &Path) -> RunRequest {
        let all_folds = self.data.fold == Folds::All;
        let reads = self.data.exclude.iter().cloned().collect();
        RunRequest { config, options, all_folds, out: out.to_path_buf(), reads }
    }

    /// How much work the run is meant to be on an adapter; the published recipe says it itself.
    fn budget(&self, software: bool) -> Result<Option<TrainingBudget>> {
        match (self.training.budget, self.recipe()) {
            (None, Recipe::U2net) => Ok(None),
            (Some(budget), Recipe::U2net) => Err(Error::setting(
                "budget",
                format!("{budget:?} under the recipe u2net").to_lowercase(),
                "the recipe default: the published one has patches and steps of its own",
                "Leave it out, or shorten the run by `steps`, `minutes` or `patch_voxels`.",
            )),
            (given, Recipe::Default) => Ok(Some(match given {
                Some(BudgetArg::Quick) => TrainingBudget::Quick,
                Some(BudgetArg::Standard) => TrainingBudget::Standard,
                Some(BudgetArg::Thorough) => TrainingBudget::Thorough,
                None => TrainingBudget::usual(software, self.memory.vram),
            })),
        }
    }

    /// The settings of a run of a network on these folders, with the first fold where all are asked for.
    pub fn config(
        &self,
        software: bool,
        data: Vec<PathBuf>,
        mode: Mode,
        adapter: DomainAdapter,
    ) -> Result<RunConfig> {
        let mut config = RunConfig::of(self.recipe(), data, mode, adapter);
        config.budget = self.budget(software)?;
        config.length = config.budget.map_or(config.length, TrainingBudget::length);
        if let Some(loss) = self.training.loss {
            config.loss = match loss {
                LossArg::DiceCe => LossWeights::dice_ce(),
                LossArg::Ce => LossWeights::ce(),
                LossArg::U2net => LossWeights::u2net(),
            };
        }
        // Adam is what both recipes have, each with its own decay
        if let Some(OptimizerArg::Sgd) = self.training.optimizer {
            config.optimizer = Optimizer::Sgd { momentum: 0.99, weight_decay: 5e-4 };
        }
        if let Some(decay) = self.training.weight_decay {
            config.optimizer = config.optimizer.with_decay(decay);
        }
        config.length = self.length().unwrap_or(config.length);
        config.lr = self.training.lr.unwrap_or(config.lr);
        if let Some(augment) = self.training.augment {
            config.augment = match augment {
                AugmentArg::Default => Augment::default(),
                AugmentArg::U2net => Augment::u2net(),
                AugmentArg::None => Augment::none(),
            };
        }
        config.checkpoint_every = self.saving.checkpoint_every.unwrap_or(config.checkpoint_every);
        config.checkpoint_minutes = self.saving.checkpoint_minutes.or(config.checkpoint_minutes);
        config.volume_cache = self.memory.volume_cache;
        config.cache = self.data.cache.clone().unwrap_or_default();
        config.cache_size = self.data.cache_size;
        config.seed = self.training.seed;
        if matches!(self.plan.unify, Some(UnifyArg::Resize)) {
            config.augment.interpolation = Interpolation::Cubic;
        }
        (config.dtype, config.vram) = (self.memory.precision.into(), self.memory.vram);
        config.tune = self.device.tune;
        config.domain_sampling = self.training.schedule.clone();
        config.fold = match &self.data.fold {
            _ if !self.data.hold_out.is_empty() => held_out(&self.data.hold_out),
            Folds::One(fold) => fold.clone(),
            Folds::All => Fold::Index(0),
        };
        config.validation = match self.training.validate_every {
            Some(0) => None,
            every => Some(Validation { every, ..Validation::default() }),
        };
        config.selection = Selection {
            matching: self.data.matching,
            group: self.data.group.clone(),
            exclude: self
                .data
                .exclude
                .as_deref()
                .map(Exclusion::read)
                .transpose()?
                .unwrap_or_default(),
        };
        Ok(config)
    }

    /// What the user fixes of the plans of `datasets` domains.
    pub fn options(&self, datasets: usize) -> Result<PlanOptions> {
        let unify = match self.plan.unify {
            Some(UnifyArg::Native) | None => Unify::Native,
            Some(UnifyArg::Resize) => Unify::Resize,
        };
        if let (Some(voxels), Some(_), Unify::Native) =
            (self.plan.patch_voxels, self.plan.patch, unify)
        {
            return Err(Error::setting(
                "patch_voxels",
                format!("{voxels} beside --patch"),
                "one of the two, or --unify resize",
                "Leave one out.",
            ));
        }
        if let (PresetChoice::Named(preset), 2..) = (&self.plan.preset, datasets) {
            return Err(Error::setting(
                "preset",
                format!("{} for {datasets} datasets", preset.name),
                "one dataset, or auto or none",
                "Under --recipe u2net auto takes the one of each dataset's name.",
            ));
        }
        Ok(PlanOptions {
            recipe: self.recipe(),
            preset: self.plan.preset.clone(),
            unify,
            patch: self.plan.patch,
            max_voxels: self.plan.patch_voxels,
            batch: self.training.batch,
            pools: self.plan.pools,
            spacing: self.plan.spacing,
            window: self.plan.window,
            max_pools: None,
        })
    }
}

impl NetArgs {
    /// The dataset folders, however they were given.
    fn folders(&self) -> &[PathBuf] {
        let FolderArgs { folders, data } = &self.folders;
        if data.is_empty() { folders } else { data }
    }

    /// What the user fixes of the plans.
    pub fn options(&self, run: &RunArgs) -> Result<PlanOptions> {
        run.options(self.folders().len())
    }

    /// The settings of a run, on an adapter that computes on the CPU or another.
    pub fn config(&self, software: bool, run: &RunArgs) -> Result<RunConfig> {
        // absolute, so that the run goes on from any folder
        let absolute = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let mode = match self.network.mode {
            ModeArg::Independent => Mode::Independent,
            ModeArg::Shared => Mode::Shared,
            ModeArg::Universal => Mode::Universal,
        };
        let adapter = match self.network.adapter {
            AdapterArg::Separable => DomainAdapter::Separable,
            AdapterArg::Series => DomainAdapter::Series,
            AdapterArg::Parallel => DomainAdapter::Parallel,
        };
        let data = self.folders().iter().map(absolute).collect();
        let mut config = run.config(software, data, mode, adapter)?;
        config.downsample = match self.network.downsample {
            DownsampleArg::Full => Downsample::Full,
            DownsampleArg::Separable => Downsample::Separable,
        };
        config.base = self.network.base;
        config.init = self.network.init.as_deref().map(lasting_model).transpose()?;
        Ok(config)
    }
}
