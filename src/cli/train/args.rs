//! Flags of `u2seg train`, `adapt` and `plan`, and the settings they make.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::base::{Error, Result};
use crate::cli::args::{PrecisionArg, lasting_model, size, triple, window};
use crate::dataset::prepared::Place;
use crate::dataset::{Exclusion, Fold, Selection};
use crate::domain::{PlanOptions, PresetChoice, Recipe, Unify};
use crate::engine::ops::{LossWeights, Optimizer};
use crate::engine::tune;
use crate::imaging::Match;
use crate::net::{DomainAdapter, Downsample, Mode};
use crate::patch::{Augment, Interpolation};
use crate::run::{RunRequest, Runs};
use crate::train::{DomainSampling, Length, RunConfig, TrainingBudget, Validation};

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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RecipeArg {
    /// This program's own settings: soft Dice plus cross-entropy, a rate that falls to zero, small patches.
    Default,
    /// The published training: Lovász-softmax plus focal loss, Adam at 3e-4 halved on plateaus, its oversampling,
    /// augmentation, normalisation and window weights, and for six tasks its plans.
    U2net,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UnifyArg {
    /// Each domain keeps its own patch.
    Native,
    /// Patches are cut at each domain's own size and resized (cubic images, nearest labels) to --patch, or 128,128,128, as
    /// published.
    Resize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AugmentArg {
    /// Rotated, scaled, blurred, coarser, brighter, noisier: what suits most organs.
    Default,
    /// As published: deformed, turned about the depth axis, scaled, mirrored from left to right.
    U2net,
    /// Patches as they are.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BudgetArg {
    /// Minutes on a laptop's GPU: 1,000 steps of small patches, of at most 100,000 voxels.
    Quick,
    /// An evening: 10,000 steps of the largest patches that the GPU's memory allows.
    Standard,
    /// A day: 50,000 steps of such patches.
    Thorough,
}

/// `--fold`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Folds {
    One(Fold),
    All,
}

impl std::str::FromStr for Folds {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse()
            .map(Self::One)
            .map_err(|_| format!("expected a fold such as 0, all, auto or none, found {text}"))
    }
}

/// `--hold-out`: one number of cases, one share of them, or names. What begins with a zero is a name.
fn held_out(words: &[String]) -> Fold {
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
        digits && (text.len() == 1 || !text.starts_with('0'))
    };
    let drawn = match words {
        [one] if number(one) => one.parse().ok().map(Fold::Count),
        [one] => one.strip_suffix('%').filter(|n| number(n)).map(|n| {
            // what is too much for the type is too much for a share
            Fold::Percent(n.parse().unwrap_or(u8::MAX))
        }),
        _ => None,
    };
    drawn.unwrap_or_else(|| Fold::HoldOut(words.to_vec()))
}

/// `--volume-cache`: bytes with a unit, or 0.
fn volume_cache(text: &str) -> std::result::Result<u64, String> {
    if text.trim() == "0" { Ok(0) } else { size(text) }
}

/// `--checkpoint-minutes`.
fn minutes(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|minutes: &f64| *minutes > 0.0 && minutes.is_finite());
    number.ok_or_else(|| format!("expected minutes above 0, found {text}"))
}

/// `--cache`: a folder, made absolute so that a run goes on from anywhere, or a word.
pub(in crate::cli) fn place(text: &str) -> std::result::Result<Place, String> {
    match Place::from(text.to_string()) {
        Place::Folder(folder) if text.is_empty() => {
            Err(format!("expected a folder, auto or none, found {folder:?}"))
        }
        Place::Folder(folder) => {
            std::path::absolute(&folder).map(Place::Folder).map_err(|e| e.to_string())
        }
        word => Ok(word),
    }
}

/// What training and adapting have in common.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RunArgs {
    /// Settings where no flag says otherwise; all of them are in the run's config.toml.
    #[arg(long, value_enum, default_value = "default")]
    recipe: RecipeArg,
    /// Plan as published: heart, liver, hippocampus, prostate, pancreas or spleen; auto takes the one that the dataset's or
    /// folder's name tells, under the recipe u2net; none plans from the data.
    #[arg(long, default_value = "auto")]
    preset: PresetChoice,
    /// What domains of different patch sizes do in one network; by default native, and when adapting as the model's domains do.
    #[arg(long, value_enum)]
    unify: Option<UnifyArg>,
    /// How much work the run is meant to be: what patches are chosen for and, unless --steps or --minutes says, how many steps
    /// there are. By default standard; quick on adapters that compute on the CPU, unless --vram is given. Patches of standard
    /// and thorough grow in the proportions of the median case until they cover it or memory is full.
    #[arg(long, value_enum)]
    budget: Option<BudgetArg>,
    /// Training steps, by default those of --budget; the rate falls to zero over them. Under the recipe u2net at most so many,
    /// by default 90000, and the rate falls on plateaus. With --continue the run becomes so long in all, and its rate follows that
    /// length.
    #[arg(long, conflicts_with = "minutes")]
    steps: Option<u64>,
    /// Minutes to train instead of steps; with --continue in all.
    #[arg(long)]
    minutes: Option<f64>,
    /// Samples a step, by default what the published plan says, else 2, and more where patches can grow no further (they cover
    /// the median case) and memory is left, up to a twentieth of the dataset's voxels.
    #[arg(long)]
    batch: Option<usize>,
    /// Patch of the network in voxels, D,H,W.
    #[arg(long, value_parser = triple::<usize>)]
    patch: Option<[usize; 3]>,
    /// Voxels that a domain's own patch has at most; by default 100000 for --budget quick, what memory allows for the others, and
    /// 2097152 under the recipe u2net.
    #[arg(long)]
    patch_voxels: Option<usize>,
    /// Halvings of D,H,W, 0 to 6 each.
    #[arg(long, value_parser = triple::<usize>)]
    pools: Option<[usize; 3]>,
    /// Millimetres of the network's voxels, D,H,W.
    #[arg(long, value_parser = triple::<f64>)]
    spacing: Option<[f64; 3]>,
    /// Intensities to which a one-channel image is clipped, LOWER,UPPER, such as -160,240 for soft tissue in a CT; by
    /// default those found inside the labels of a CT (at least -160,240 where there are few cases), and each image's own
    /// otherwise, or always under the recipe u2net.
    #[arg(long, value_parser = window, allow_hyphen_values = true)]
    window: Option<[f32; 2]>,
    /// Cases that are left out of training and scored. auto: one case in ten, at most 20, where a dataset has 10 or more. 0 to 4:
    /// those of a fold, of five or of the dataset's splits_final.json. all: every fold, one run after another, in fold_0 to fold_4
    /// of --out. none: no case; then nothing is scored.
    #[arg(short, long, default_value = "auto")]
    fold: Folds,
    /// Cases that are left out and scored, instead of a fold: a number such as 5, a share such as 10%, or names of cases.
    #[arg(long, num_args = 1.., value_name = "CASES", conflicts_with = "fold")]
    hold_out: Vec<String>,
    /// Steps from one look at the held-out cases to the next while training: 24 patches of them are scored, and the best weights
    /// so far are kept. By default so many steps that this takes less than 5 % of the time; 0 for never.
    #[arg(long, value_name = "STEPS")]
    validate_every: Option<u64>,
    /// Regular expression of what keeps cases together, such as "^(pat\d+)" for patients with several scans: cases of which
    /// its first group captures the same stay on one side of every split.
    #[arg(long, value_name = "REGEX")]
    group: Option<String>,
    /// File of cases to leave out, as `u2seg verify --fix-list` writes it: a case a line, or DATASET, a tab and the case.
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// How the files of a case are matched.
    #[arg(long = "match", value_enum, default_value = "by-place")]
    matching: Match,
    /// How domains share the steps: turns, size (training cases), loss, or a number for each such as 2,1,1.
    #[arg(long, default_value = "turns")]
    schedule: DomainSampling,
    /// Seed of weights, splits and patches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Learning rate at the start, by default 3e-2 with separable adapters and 1e-2 without, or 3e-4 under the recipe u2net.
    #[arg(long)]
    lr: Option<f64>,
    /// What is minimised, by default dice-ce, or u2net under the recipe u2net.
    #[arg(long, value_enum)]
    loss: Option<LossArg>,
    /// Update rule, by default adam.
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerArg>,
    /// Random changes of patches, by default the recipe's; probabilities and ranges are in the run's config.toml.
    #[arg(long, value_enum)]
    augment: Option<AugmentArg>,
    /// GPU memory for whole cases, such as 4GiB or 300MiB, 0 for none, by default 1GiB, and 128MiB on
    /// adapters that compute on the CPU; of cases that find no room the part
    /// that a patch needs is sent each time.
    #[arg(long, value_parser = volume_cache)]
    volume_cache: Option<u64>,
    /// Where cases are kept once they are cropped, resampled and normalised, for every run that prepares them alike: a folder,
    /// auto for the user's cache folder, or none for a temporary folder (of TMPDIR) that goes away at the end. With --continue
    /// it counts for this start.
    #[arg(long, value_name = "DIR", value_parser = place)]
    cache: Option<Place>,
    /// Disk space for kept cases, such as 200GiB, by default 100GiB; the least recently used leave first, those that a running
    /// program uses never.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    cache_size: Option<u64>,
    /// How the variants of kernels are chosen at the start of a run; the run then keeps them, also with --continue.
    #[arg(long, value_enum, default_value = "cached")]
    pub tune: tune::Mode,
    /// How activations are stored.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// GPU memory that training may take, such as 4GiB or 3500MiB, by default seven eighths of what the adapter has (`u2seg
    /// devices`). Plans use it: at most an eighth keeps cases, patches grow into the rest. What of a fixed patch does not fit is
    /// computed twice, as little as possible, and the results stay the same to the bit.
    #[arg(long, value_parser = size)]
    vram: Option<u64>,
    /// Steps between checkpoints, by default 50. With --continue it counts for this start.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: Option<u64>,
    /// Minutes after which there is a checkpoint in any case, by default 10. With --continue it counts for this start.
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    checkpoint_minutes: Option<f64>,
    /// Go on with the run in --out from its last checkpoint, or begin one that `u2seg plan` wrote; its settings stay as they
    /// were, and flags that would change them are refused, but for --steps and --minutes, which make it longer.
    #[arg(long = "continue")]
    pub resume: bool,
    /// Adapter: auto, an index of `u2seg devices`, or part of a name.
    #[arg(long, default_value = "auto")]
    pub device: String,
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
    /// Model whose weights training starts from, or the folder of its run; all of them are trained. They are taken by name, where
    /// they fit: a first layer with more channels and a last one with more classes are extended. What did not fit is listed.
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
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
    fn recipe(&self) -> Recipe {
        match self.recipe {
            RecipeArg::Default => Recipe::Default,
            RecipeArg::U2net => Recipe::U2net,
        }
    }

    /// Keeps the prepared cases of runs that go on where this start says, and saves as often as it says.
    pub fn adjust(&self, runs: &mut Runs) {
        runs.keep_prepared(self.cache.clone(), self.cache_size);
        runs.save_every(self.checkpoint_every, self.checkpoint_minutes);
    }

    /// The length that is asked for, where one is.
    pub fn length(&self) -> Option<Length> {
        self.minutes.map(Length::Minutes).or(self.steps.map(Length::Steps))
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
        self.unify.is_some()
    }

    /// What is asked for, where files are not written over that flags name.
    pub fn request(&self, config: RunConfig, options: PlanOptions, out: &Path) -> RunRequest {
        let all_folds = self.fold == Folds::All;
        let reads = self.exclude.iter().cloned().collect();
        RunRequest { config, options, all_folds, out: out.to_path_buf(), reads }
    }

    /// How much work the run is meant to be on an adapter; the published recipe says it itself.
    fn budget(&self, software: bool) -> Result<Option<TrainingBudget>> {
        match (self.budget, self.recipe()) {
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
                None => TrainingBudget::usual(software, self.vram),
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
        if let Some(loss) = self.loss {
            config.loss = match loss {
                LossArg::DiceCe => LossWeights::dice_ce(),
                LossArg::Ce => LossWeights::ce(),
                LossArg::U2net => LossWeights::u2net(),
            };
        }
        if let Some(optimizer) = self.optimizer {
            config.optimizer = match optimizer {
                OptimizerArg::Adam => Optimizer::adam(),
                OptimizerArg::Sgd => Optimizer::Sgd { momentum: 0.99, weight_decay: 5e-4 },
            };
        }
        config.length = self.length().unwrap_or(config.length);
        config.lr = self.lr.unwrap_or(config.lr);
        if let Some(augment) = self.augment {
            config.augment = match augment {
                AugmentArg::Default => Augment::default(),
                AugmentArg::U2net => Augment::u2net(),
                AugmentArg::None => Augment::none(),
            };
        }
        config.checkpoint_every = self.checkpoint_every.unwrap_or(config.checkpoint_every);
        config.checkpoint_minutes = self.checkpoint_minutes.or(config.checkpoint_minutes);
        config.volume_cache = self.volume_cache;
        config.cache = self.cache.clone().unwrap_or_default();
        config.cache_size = self.cache_size;
        config.seed = self.seed;
        if matches!(self.unify, Some(UnifyArg::Resize)) {
            config.augment.interpolation = Interpolation::Cubic;
        }
        (config.dtype, config.vram) = (self.precision.into(), self.vram);
        config.tune = self.tune;
        config.domain_sampling = self.schedule.clone();
        config.fold = match &self.fold {
            _ if !self.hold_out.is_empty() => held_out(&self.hold_out),
            Folds::One(fold) => fold.clone(),
            Folds::All => Fold::Index(0),
        };
        config.validation = match self.validate_every {
            Some(0) => None,
            every => Some(Validation { every, ..Validation::default() }),
        };
        config.selection = Selection {
            matching: self.matching,
            group: self.group.clone(),
            exclude: self.exclude.as_deref().map(Exclusion::read).transpose()?.unwrap_or_default(),
        };
        Ok(config)
    }

    /// What the user fixes of the plans of `datasets` domains.
    pub fn options(&self, datasets: usize) -> Result<PlanOptions> {
        let unify = match self.unify {
            Some(UnifyArg::Native) | None => Unify::Native,
            Some(UnifyArg::Resize) => Unify::Resize,
        };
        if let (Some(voxels), Some(_), Unify::Native) = (self.patch_voxels, self.patch, unify) {
            return Err(Error::setting(
                "patch_voxels",
                format!("{voxels} beside --patch"),
                "one of the two, or --unify resize",
                "Leave one out.",
            ));
        }
        if let (PresetChoice::Named(preset), 2..) = (&self.preset, datasets) {
            return Err(Error::setting(
                "preset",
                format!("{} for {datasets} datasets", preset.name),
                "one dataset, or auto or none",
                "Under --recipe u2net auto takes the one of each dataset's name.",
            ));
        }
        Ok(PlanOptions {
            recipe: self.recipe(),
            preset: self.preset.clone(),
            unify,
            patch: self.patch,
            max_voxels: self.patch_voxels,
            batch: self.batch,
            pools: self.pools,
            spacing: self.spacing,
            window: self.window,
            max_pools: None,
        })
    }
}

impl NetArgs {
    /// What the user fixes of the plans.
    pub fn options(&self, run: &RunArgs) -> Result<PlanOptions> {
        run.options(self.data.len())
    }

    /// The settings of a run, on an adapter that computes on the CPU or another.
    pub fn config(&self, software: bool, run: &RunArgs) -> Result<RunConfig> {
        // absolute, so that the run goes on from any folder
        let absolute = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let mode = match self.mode {
            ModeArg::Independent => Mode::Independent,
            ModeArg::Shared => Mode::Shared,
            ModeArg::Universal => Mode::Universal,
        };
        let adapter = match self.adapter {
            AdapterArg::Separable => DomainAdapter::Separable,
            AdapterArg::Series => DomainAdapter::Series,
            AdapterArg::Parallel => DomainAdapter::Parallel,
        };
        let data = self.data.iter().map(absolute).collect();
        let mut config = run.config(software, data, mode, adapter)?;
        config.downsample = match self.downsample {
            DownsampleArg::Full => Downsample::Full,
            DownsampleArg::Separable => Downsample::Separable,
        };
        config.base = self.base;
        config.init = self.init.as_deref().map(lasting_model).transpose()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_held_out_by_number_share_or_name() {
        let of =
            |words: &[&str]| held_out(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        let names = |words: &[&str]| Fold::HoldOut(words.iter().map(|w| w.to_string()).collect());
        assert_eq!(of(&["5"]), Fold::Count(5));
        assert_eq!(of(&["10%"]), Fold::Percent(10));
        assert_eq!(of(&["900%"]), Fold::Percent(u8::MAX));
        for words in [&["case_5"][..], &["005"], &["5", "6"], &["a%"]] {
            assert_eq!(of(words), names(words));
        }
    }
}
