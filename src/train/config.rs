//! Everything needed to repeat a run; written to `config.toml` of its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::config_file;
use super::domain_sampling::DomainSampling;
use super::learning_rate::LrSchedule;
use super::session::Freeze;
use crate::base::files::{read_toml, write_atomically};
use crate::base::{Error, Result};
use crate::dataset::prepared::{DEFAULT_SIZE, Place, Store};
use crate::dataset::{Fold, Selection};
use crate::domain::Recipe;
use crate::engine::graph::{Caps, DType};
use crate::engine::ops::{LossWeights, Optimizer};
use crate::engine::tune;
use crate::net::{DomainAdapter, Downsample, Mode};
use crate::patch::{Augment, Focus};

/// How long to train; the learning rate's schedule is fitted to it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// So many steps.
    Steps(u64),
    /// So many minutes, over all starts of the run.
    Minutes(f64),
}

/// How much work a run is meant to be: the settings of patches and steps that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingBudget {
    /// Minutes on the GPU of a laptop: 1,000 steps of patches of at most [`DEFAULT_VOXELS`](crate::domain::DEFAULT_VOXELS).
    Quick,
    /// An evening: 10,000 steps of the largest patches that the memory allows.
    Standard,
    /// A day: 50,000 steps of such patches.
    Thorough,
}

impl TrainingBudget {
    /// The steps that it stands for.
    pub fn length(self) -> Length {
        Length::Steps(match self {
            Self::Quick => 1000,
            Self::Standard => 10_000,
            Self::Thorough => 50_000,
        })
    }

    /// What is meant where the user says nothing: quick on adapters that compute on the CPU, unless they plan for a given memory.
    pub fn usual(software: bool, vram: Option<u64>) -> Self {
        if software && vram.is_none() { Self::Quick } else { Self::Standard }
    }
}

/// Where the patches of a batch lie.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PatchSampling {
    /// Share of a batch, rounded up, that is centred on foreground.
    pub foreground_share: f64,
    /// Probability that any other patch is, too.
    pub foreground_prob: f64,
    /// Probability that a patch is centred on the smallest class of its case instead.
    pub smallest_prob: f64,
}

impl Default for PatchSampling {
    fn default() -> Self {
        Self { foreground_share: 1.0 / 3.0, foreground_prob: 0.0, smallest_prob: 0.0 }
    }
}

impl PatchSampling {
    /// The published oversampling.
    pub fn u2net() -> Self {
        Self { foreground_prob: 0.3, smallest_prob: 0.3, ..Self::default() }
    }

    /// What patch `index` of a batch of `count` is centred near.
    pub(super) fn focus(&self, index: usize, count: usize, rng: &mut impl Rng) -> Focus {
        let mut happens = |prob: f64| prob > 0.0 && rng.random::<f64>() < prob;
        let share = ((self.foreground_share * count as f64).ceil() as usize).min(count);
        if happens(self.smallest_prob) {
            Focus::Smallest
        } else if index >= count - share || happens(self.foreground_prob) {
            Focus::Foreground
        } else {
            Focus::Anywhere
        }
    }

    /// Whether these are probabilities.
    fn good(&self) -> bool {
        let all = [self.foreground_share, self.foreground_prob, self.smallest_prob];
        all.iter().all(|p| (0.0..=1.0).contains(p))
    }
}

/// A model whose shared weights a run starts from and keeps.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Start {
    /// The model file.
    pub model: PathBuf,
    /// Which of its weights stand still.
    pub freeze: Freeze,
}

/// What is done with held-out cases while a run trains.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Validation {
    /// Steps between scores of held-out patches; none for so many that they take at most a twentieth of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Patches of each domain that are scored, rounded up to whole batches.
    pub patches: usize,
    /// Decay of the exponential moving average of weights that is kept beside them.
    pub average: f64,
}

impl Default for Validation {
    fn default() -> Self {
        Self { every: None, patches: 24, average: 0.999 }
    }
}

impl Validation {
    fn good(&self) -> bool {
        let patches = (1..=MOST_PATCHES).contains(&self.patches);
        self.every != Some(0) && patches && (0.0..1.0).contains(&self.average)
    }
}

/// Held-out patches of a domain at most.
const MOST_PATCHES: usize = 10_000;

/// Settings of a run. Fields whose names here say more than those in the file are written as they ever were.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunConfig {
    /// Dataset folders, one a domain.
    pub data: Vec<PathBuf>,
    /// How domains share the network.
    pub mode: Mode,
    /// A domain's own part in the universal mode.
    pub adapter: DomainAdapter,
    /// What halves the grid from a level to the next.
    #[serde(default)]
    pub downsample: Downsample,
    /// Channels of the first level.
    pub base: usize,
    /// What patches were chosen for, and the length unless the user gave another; none where only memory counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<TrainingBudget>,
    /// How long to train.
    pub length: Length,
    /// Of weights, splits and patches.
    pub seed: u64,
    /// Which cases are left out of training and scored at the end.
    pub fold: Fold,
    /// What is done with those cases while training; none for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Which cases are used, how their files are matched and which belong together.
    #[serde(default)]
    pub selection: Selection,
    /// How domains share the steps; `schedule` in the file.
    #[serde(default, rename = "schedule")]
    pub domain_sampling: DomainSampling,
    /// Learning rate at the start.
    pub lr: f64,
    /// How it falls; `rate` in the file.
    #[serde(default, rename = "rate")]
    pub lr_schedule: LrSchedule,
    /// What is minimised.
    pub loss: LossWeights,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Where patches lie; `sampling` in the file.
    #[serde(default, rename = "sampling")]
    pub patch_sampling: PatchSampling,
    /// Random changes of patches.
    pub augment: Augment,
    /// Bytes of GPU memory for whole cases; none for as much as suits the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "config_file::bytes")]
    pub volume_cache: Option<u64>,
    /// Where prepared cases are kept: `auto` for the user's cache folder, `none`, or a folder.
    #[serde(default)]
    pub cache: Place,
    /// Bytes that prepared cases may take; none for the usual.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "config_file::bytes")]
    pub cache_size: Option<u64>,
    /// How the variants of kernels are chosen where the run starts; `tuning.json` then holds them.
    #[serde(default)]
    pub tune: tune::Mode,
    /// Model whose weights training starts from, all of them trained; none where they are drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Where adapting starts from.
    #[serde(default)]
    pub start: Option<Start>,
    /// How activations are stored; `precision` in the file.
    #[serde(default, rename = "precision")]
    pub dtype: DType,
    /// Bytes of GPU memory that training may take.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "config_file::bytes")]
    pub vram: Option<u64>,
    /// Steps between readings of the loss.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Minutes after which there is a checkpoint in any case; none where only steps count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_minutes: Option<f64>,
}

/// GPU memory for whole cases: a quarter of what small GPUs have; little where it is the machine's own and boxes come from the
/// disk's cache as fast.
fn volume_cache(software: bool) -> u64 {
    if software { 128 << 20 } else { 1 << 30 }
}

/// Steps of an epoch of the published training.
const PUBLISHED_EPOCH: u64 = 300;

fn coprime(a: u64, b: u64) -> bool {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a <= 1
}

/// Learning rate of the default recipe at the start. Adam moves every weight alike; pointwise weights begin five times as large
/// (√2/C) as those of a 3³ convolution (√2/27C), and a separable network learns slowly unless its steps are larger, too.
pub fn own_rate(mode: Mode, adapter: DomainAdapter) -> f64 {
    match (mode, adapter) {
        (Mode::Universal, DomainAdapter::Separable) => 3e-2,
        _ => 1e-2,
    }
}

impl RunConfig {
    /// The defaults for some dataset folders.
    pub fn new(data: Vec<PathBuf>) -> Self {
        Self {
            data,
            mode: Mode::Universal,
            adapter: DomainAdapter::Separable,
            downsample: Downsample::Full,
            base: 16,
            budget: None,
            length: TrainingBudget::Quick.length(),
            seed: 0,
            fold: Fold::Auto,
            validation: Some(Validation::default()),
            selection: Selection::default(),
            domain_sampling: DomainSampling::Turns,
            lr: own_rate(Mode::Universal, DomainAdapter::Separable),
            lr_schedule: LrSchedule::default(),
            loss: LossWeights::dice_ce(),
            // decay keeps weights that a norm follows small, so that steps at these rates stay large against them and long runs
            // learn less than short ones
            optimizer: Optimizer::adam().with_decay(0.0),
            patch_sampling: PatchSampling::default(),
            augment: Augment::default(),
            volume_cache: None,
            cache: Place::Auto,
            cache_size: None,
            tune: tune::Mode::default(),
            init: None,
            start: None,
            dtype: DType::F32,
            vram: None,
            log_every: 5,
            checkpoint_every: 50,
            checkpoint_minutes: Some(10.0),
        }
    }

    /// The settings that a recipe has for a network on some dataset folders.
    pub fn of(recipe: Recipe, data: Vec<PathBuf>, mode: Mode, adapter: DomainAdapter) -> Self {
        let own = Self { mode, adapter, lr: own_rate(mode, adapter), ..Self::new(data) };
        match recipe {
            Recipe::Default => own,
            Recipe::U2net => Self {
                // at most 300 epochs; the plateau ends training before that
                length: Length::Steps(300 * PUBLISHED_EPOCH),
                lr: 3e-4,
                lr_schedule: LrSchedule::plateau(PUBLISHED_EPOCH),
                loss: LossWeights::published(),
                optimizer: Optimizer::adam(),
                patch_sampling: PatchSampling::u2net(),
                augment: Augment::u2net(),
                ..own
            },
        }
    }

    /// The settings as they are on an adapter: where nobody says what memory training may take, that is what the adapter has for it.
    /// On adapters that compute on the CPU, which share the memory of everything else, only a run that is meant to be long is
    /// given a budget; others keep to small patches.
    pub fn on(mut self, caps: &Caps) -> Self {
        let long = self.budget.is_some_and(|budget| budget != TrainingBudget::Quick);
        if !caps.software || long {
            self.vram = self.vram.or(Some(caps.memory));
        }
        self.volume_cache = self.volume_cache.or(Some(volume_cache(caps.software)));
        self
    }

    /// The settings of a run of another length.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn of_length(self, length: Length) -> Result<Self> {
        let config = Self { length, ..self };
        config.check(config.data.len())?;
        Ok(config)
    }

    /// Steps between readings of the loss: at least `log_every`, such that of domains that take turns each is read.
    pub fn interval(&self) -> u64 {
        let domains = self.data.len() as u64;
        (self.log_every.max(1)..).find(|n| coprime(*n, domains)).unwrap_or(1)
    }

    /// Whether the loss is read after a step, counted from 1.
    pub(super) fn reads(&self, step: u64) -> bool {
        step == 1 || step.is_multiple_of(self.interval())
    }

    /// Refuses settings that cannot be trained with.
    pub(super) fn check(&self, domains: usize) -> Result<()> {
        let good = match self.length {
            Length::Steps(steps) => steps > 0,
            Length::Minutes(minutes) => minutes > 0.0 && minutes.is_finite(),
        };
        self.domain_sampling.check(domains)?;
        self.augment.check()?;
        if !good || !self.lr.is_finite() || self.lr <= 0.0 || self.base == 0 {
            return Err(Error::setting(
                "steps, minutes, lr, base",
                format!("{:?}, {}, {}", self.length, self.lr, self.base),
                "numbers above 0",
                "Correct the setting.",
            ));
        }
        if !self.loss.is_usable() || !self.optimizer.is_usable() {
            return Err(Error::setting(
                "loss, optimizer",
                format!("{:?}, {:?}", self.loss, self.optimizer),
                "weights of terms from 0, one of them above; decays from 0 and below 1, eps above 0",
                "Correct the setting.",
            ));
        }
        self.check_checkpoints()?;
        if let Some(validation) = self.validation.as_ref().filter(|validation| !validation.good()) {
            return Err(Error::setting(
                "config.toml",
                format!("{validation:?}"),
                format!(
                    "steps above 0, 1 to {MOST_PATCHES} patches, an average from 0 and below 1"
                ),
                "Correct the file.",
            ));
        }
        if !self.patch_sampling.good() || !self.lr_schedule.good() {
            return Err(Error::setting(
                "config.toml",
                format!("{:?}, {:?}", self.patch_sampling, self.lr_schedule),
                "sampling from 0 to 1, epochs and windows from 1, a factor between 0 and 1",
                "Correct the file.",
            ));
        }
        Ok(())
    }

    /// Decay of the moving average of weights; none where nothing is held out, so that nobody could say how good it is.
    pub(super) fn average(&self) -> Option<f32> {
        let held_out = self.fold != Fold::None;
        self.validation.as_ref().filter(|_| held_out).map(|validation| validation.average as f32)
    }

    fn check_checkpoints(&self) -> Result<()> {
        let minutes =
            self.checkpoint_minutes.is_none_or(|minutes| minutes > 0.0 && minutes.is_finite());
        if self.checkpoint_every > 0 && minutes {
            return Ok(());
        }
        Err(Error::setting(
            "checkpoint_every, checkpoint_minutes",
            format!("{}, {:?}", self.checkpoint_every, self.checkpoint_minutes),
            "numbers above 0",
            "Correct the setting.",
        ))
    }

    /// Bytes of GPU memory for whole cases: of a budget for all at most an eighth.
    pub fn case_bytes(&self) -> u64 {
        let cache = self.volume_cache.unwrap_or(volume_cache(false));
        self.vram.map_or(cache, |vram| cache.min(vram / 8))
    }

    /// Opens the folder of prepared cases.
    ///
    /// # Errors
    ///
    /// Where it cannot be made or written.
    pub fn store(&self) -> Result<Arc<Store>> {
        Store::open(&self.cache, self.cache_size.unwrap_or(DEFAULT_SIZE)).map(Arc::new)
    }

    /// Writes `config.toml`.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, config_file::text(self)?.as_bytes())
    }

    /// Reads `config.toml`.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or has settings that nothing can be trained with.
    pub fn read(path: &Path) -> Result<Self> {
        let remedy = "Correct the line, or start a new run.";
        let config: Self = read_toml(path, "the settings of a run", remedy)?;
        config.check(config.data.len()).map_err(|e| e.about(path))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::rng_for;

    #[test]
    fn the_published_recipe_is_what_was_published_and_survives_its_file() {
        let config =
            RunConfig::of(Recipe::U2net, vec!["a".into()], Mode::Shared, DomainAdapter::Series);
        assert_eq!((config.lr, config.length), (3e-4, Length::Steps(90_000)));
        assert_eq!(config.loss, LossWeights::published());
        let Optimizer::Adam { betas, eps, weight_decay } = config.optimizer else {
            panic!("{:?}", config.optimizer)
        };
        assert_eq!((betas, eps, weight_decay), ([0.9, 0.999], 1e-8, 5e-4));
        let augment = &config.augment;
        assert_eq!((augment.scale_prob, augment.scale_range), (0.5, [0.75, 1.25]));
        assert_eq!((augment.rotate_prob, augment.mirror), (0.3, [0.0, 0.0, 0.3]));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        config.write(&file).unwrap();
        assert_eq!(RunConfig::read(&file).unwrap(), config);
    }

    #[test]
    fn no_weights_decay_by_default() {
        for mode in [Mode::Universal, Mode::Independent] {
            let config =
                RunConfig::of(Recipe::Default, vec!["a".into()], mode, DomainAdapter::Separable);
            assert_eq!(config.optimizer, Optimizer::adam().with_decay(0.0));
        }
    }

    #[test]
    fn a_third_of_a_batch_is_foreground_and_some_patches_are_on_the_smallest_class() {
        let drawn = |sampling: PatchSampling| {
            let mut counts = [[0; 3]; 3];
            for step in 0..2000 {
                for (index, count) in counts.iter_mut().enumerate() {
                    let mut rng = rng_for(1, step, index as u64);
                    count[sampling.focus(index, 3, &mut rng) as usize] += 1;
                }
            }
            counts.map(|each| each.map(|n: i32| f64::from(n) / 2000.0))
        };
        assert_eq!(drawn(PatchSampling::default())[0], [1.0, 0.0, 0.0]);
        assert_eq!(drawn(PatchSampling::default())[2], [0.0, 1.0, 0.0]);
        let [first, _, last] = drawn(PatchSampling::u2net());
        let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.04);
        assert!(near(first, [0.49, 0.21, 0.3]), "{first:?}");
        assert!(near(last, [0.0, 0.7, 0.3]), "{last:?}");
    }

    #[test]
    fn settings_keep_the_names_that_they_were_first_written_under() {
        let mut config = RunConfig::new(vec!["a".into()]);
        config.domain_sampling = DomainSampling::Size;
        config.dtype = DType::F16;
        let text = toml::to_string_pretty(&config).unwrap();
        let written = ["schedule = \"size\"", "precision = \"f16\"", "[rate]", "[sampling]"];
        for line in written {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
    }

    #[test]
    fn settings_from_before_there_was_a_cache_are_read() {
        let now = RunConfig { volume_cache: Some(1 << 30), ..RunConfig::new(vec!["a".into()]) };
        let text = toml::to_string_pretty(&now).unwrap();
        let before: String = text
            .lines()
            .filter(|line| !line.starts_with("cache"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert!(before.contains("volume_cache = \"1GiB\"") && before.len() < text.len());
        assert_eq!(toml::from_str::<RunConfig>(&before).unwrap(), now);
        // and sizes from before they had units
        let before = before.replace("\"1GiB\"", "1073741824");
        assert_eq!(toml::from_str::<RunConfig>(&before).unwrap(), now);
        let places = [Place::Auto, Place::Nowhere, Place::Folder("/data/cache".into())];
        for (cache, written) in places.into_iter().zip(["auto", "none", "/data/cache"]) {
            let config = RunConfig { cache, cache_size: Some(5), ..now.clone() };
            let text = toml::to_string_pretty(&config).unwrap();
            assert!(text.contains(&format!("cache = \"{written}\"")), "{text}");
            assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn every_domain_is_read() {
        for domains in 1..=6 {
            let config = RunConfig::new(vec![PathBuf::new(); domains]);
            let steps = (2..400u64).filter(|step| config.reads(*step));
            let read: std::collections::BTreeSet<u64> =
                steps.map(|step| (step - 1) % domains as u64).collect();
            assert_eq!(read.len(), domains);
        }
    }

    #[test]
    fn a_section_has_a_comment_and_sizes_have_units() {
        let config = RunConfig {
            volume_cache: Some(128 << 20),
            cache_size: Some(3 << 30),
            vram: Some((5 << 30) + 1),
            optimizer: Optimizer::adam(),
            ..RunConfig::new(vec!["a".into()])
        };
        let text = config_file::text(&config).unwrap();
        for line in [
            "volume_cache = \"128MiB\"",
            "cache_size = \"3GiB\"",
            "vram = 5368709121",
            "betas = [0.9, 0.999]",
            "weight_decay = 0.0005",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with('[')) {
            assert!(lines[at - 1].starts_with("# "), "{line} in {text}");
        }
        assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
        let written = text.replace("\"128MiB\"", "\"1 GiB\"").replace("\"3GiB\"", "77");
        let read = toml::from_str::<RunConfig>(&written).unwrap();
        assert_eq!((read.volume_cache, read.cache_size), (Some(1 << 30), Some(77)));
        for wrong in ["\"1 GB\"", "\"GiB\"", "-1", "\"99999999999999GiB\""] {
            assert!(toml::from_str::<RunConfig>(&text.replace("\"128MiB\"", wrong)).is_err());
        }
    }
}
