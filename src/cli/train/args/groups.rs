//! Flags of training, a group for each heading of the help.

use std::path::PathBuf;

use super::values::{
    AdapterArg, AugmentArg, BudgetArg, DownsampleArg, Folds, LossArg, ModeArg, OptimizerArg,
    RecipeArg, UnifyArg, place, volume_cache,
};
use crate::cli::args::{PrecisionArg, positive, positive_triple, share, size, triple, window};
use crate::dataset::prepared::Place;
use crate::domain::PresetChoice;
use crate::imaging::Match;
use crate::train::DomainSampling;

/// Which cases, and how they are split and kept.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Held-out cases: auto, a fold 0 to 4, all folds, or none
    ///
    /// Held-out cases are not trained on; they are scored. auto: one case in ten, at most 20, where a dataset has 10 or more.
    /// 0 to 4: one fold of five, or of the dataset's splits_final.json. all: every fold, one run after another, in fold_0 to
    /// fold_4 of --out. none: train on all cases and score none.
    #[arg(short, long, default_value = "auto", hide_default_value = true, value_name = "FOLD")]
    pub fold: Folds,
    /// Hold out a number of cases, a share such as 10%, or named cases
    #[arg(long, num_args = 1.., value_name = "CASES", conflicts_with = "fold")]
    pub hold_out: Vec<String>,
    /// Keep cases together that share a name, such as "^(pat\d+)"
    ///
    /// A regular expression over the names of cases. Cases in which its first group finds the same text, such as the scans of
    /// one patient, stay on one side of every split.
    #[arg(long, value_name = "REGEX")]
    pub group: Option<String>,
    /// Leave out the cases listed in this file
    ///
    /// A case a line, or the dataset's name, a tab and the case: what `u2seg verify --fix-list` writes.
    #[arg(long, value_name = "FILE")]
    pub exclude: Option<PathBuf>,
    /// How to match the files of a case
    #[arg(long = "match", value_enum, default_value = "by-place", value_name = "WAY")]
    pub matching: Match,
    /// Folder for prepared cases, auto, or none
    ///
    /// Cases are cropped, resampled and normalised once and kept here for every run that prepares them alike. auto is the
    /// user's cache folder; none is a temporary folder, removed at the end. May stand beside --continue.
    #[arg(long, value_name = "FOLDER", value_parser = place)]
    pub cache: Option<Place>,
    /// Disk space for prepared cases [default: 100G]
    ///
    /// When it is full, the least recently used cases leave first; cases in use never do.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cache_size: Option<u64>,
}

/// The datasets.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct FolderArgs {
    /// Dataset folders, one a domain (Decathlon or nnU-Net v2)
    #[arg(value_name = "FOLDER", required_unless_present_any = ["data", "resume"], help_heading = None::<&str>)]
    pub folders: Vec<PathBuf>,
    /// Dataset folders, as a flag
    #[arg(long, num_args = 1.., value_name = "FOLDER", conflicts_with = "folders")]
    pub data: Vec<PathBuf>,
}

/// The network.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// How domains share the network
    #[arg(long, value_enum, default_value = "universal")]
    pub mode: ModeArg,
    /// What each domain has of its own in the universal mode
    #[arg(long, value_enum, default_value = "separable")]
    pub adapter: AdapterArg,
    /// How to downsample from one level to the next
    #[arg(long, value_enum, default_value = "full")]
    pub downsample: DownsampleArg,
    /// Channels of the first level
    #[arg(long, default_value_t = 16, value_parser = positive::<usize>, value_name = "CHANNELS")]
    pub base: usize,
    /// Start from the weights of another model
    ///
    /// A model file, the folder of a run, or a name of `u2seg models`. Weights are taken by name where they fit, and all are
    /// trained. A first layer with more channels and a last one with more classes are extended. What did not fit is listed.
    #[arg(long, value_name = "MODEL")]
    pub init: Option<PathBuf>,
}

/// How cases become patches.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct PlanArgs {
    /// Patch size in voxels, D,H,W
    #[arg(long, value_parser = positive_triple::<usize>, value_name = "D,H,W")]
    pub patch: Option<[usize; 3]>,
    /// Most voxels in a patch
    ///
    /// By default 100000 with --budget quick, what memory allows with the others, and 2097152 with the recipe u2net.
    #[arg(long, value_parser = positive::<usize>, value_name = "VOXELS")]
    pub patch_voxels: Option<usize>,
    /// Downsampling steps per axis, 0 to 6 each
    #[arg(long, value_parser = triple::<usize>, value_name = "D,H,W")]
    pub pools: Option<[usize; 3]>,
    /// Voxel size that the network works at, in mm
    #[arg(long, value_parser = positive_triple::<f64>, value_name = "D,H,W")]
    pub spacing: Option<[f64; 3]>,
    /// Clip one-channel images to these intensities, such as -160,240
    ///
    /// By default a CT is clipped to the intensities found inside its labels (at least -160,240 where there are few cases),
    /// other images to their own. With the recipe u2net every image is clipped to its own.
    #[arg(long, value_parser = window, allow_hyphen_values = true, value_name = "LOWER,UPPER")]
    pub window: Option<[f32; 2]>,
    /// Use a published plan: auto, none, or the task's name
    ///
    /// heart, liver, hippocampus, prostate, pancreas or spleen. auto goes by the name of the dataset or its folder with the
    /// recipe u2net, and plans from the data otherwise; none always plans from the data.
    #[arg(long, default_value = "auto", value_name = "TASK")]
    pub preset: PresetChoice,
    /// What to do when domains have different patch sizes
    ///
    /// By default native; `u2seg adapt` does as the model's domains do.
    #[arg(long, value_enum, value_name = "WAY")]
    pub unify: Option<UnifyArg>,
}

/// How the network learns.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Defaults of all settings that no flag sets
    ///
    /// All settings of a run are in its config.toml.
    #[arg(long, value_enum, default_value = "default")]
    pub recipe: RecipeArg,
    /// How much work to do
    ///
    /// Decides the patch size and, unless --steps or --minutes does, the length. By default standard; quick on software devices
    /// unless --vram is given. Patches of standard and thorough grow in the proportions of the median case until they cover it
    /// or memory is full.
    #[arg(long, value_enum)]
    pub budget: Option<BudgetArg>,
    /// Training steps
    ///
    /// By default what --budget says; the learning rate falls to zero over them. With the recipe u2net at most so many (90000
    /// by default), and the rate falls on plateaus. Beside --continue: the new length of the run, steps already done included.
    #[arg(long, conflicts_with = "minutes", value_parser = positive::<u64>)]
    pub steps: Option<u64>,
    /// Minutes to train, instead of steps
    ///
    /// Beside --continue: minutes of the run in all.
    #[arg(long, value_parser = positive::<f64>)]
    pub minutes: Option<f64>,
    /// Batch size
    ///
    /// By default 2, or what the published plan says. Larger where patches already cover the median case and memory is left,
    /// up to a twentieth of the dataset's voxels.
    #[arg(long, value_parser = positive::<usize>, value_name = "PATCHES")]
    pub batch: Option<usize>,
    /// Learning rate at the start
    ///
    /// By default 3e-2 with separable adapters and 1e-2 without, or 3e-4 with the recipe u2net.
    #[arg(long, value_parser = positive::<f64>, value_name = "RATE")]
    pub lr: Option<f64>,
    /// Loss to minimise
    ///
    /// By default dice-ce, or u2net with the recipe u2net.
    #[arg(long, value_enum)]
    pub loss: Option<LossArg>,
    /// Optimizer [default: adam]
    #[arg(long, value_enum)]
    pub optimizer: Option<OptimizerArg>,
    /// Weight decay: the share of each weight that joins its gradient
    ///
    /// By default 0 with adam, and 5e-4 with sgd or the recipe u2net.
    #[arg(long, value_parser = share, value_name = "SHARE")]
    pub weight_decay: Option<f32>,
    /// Augmentation of patches
    ///
    /// By default the recipe's. Probabilities and ranges are in the run's config.toml.
    #[arg(long, value_enum)]
    pub augment: Option<AugmentArg>,
    /// How domains take turns: turns, size, loss, or shares such as 2,1,1
    ///
    /// turns: one step each. size: by the number of training cases. loss: those with the higher loss more often.
    #[arg(long, default_value = "turns", value_name = "WAY")]
    pub schedule: DomainSampling,
    /// Steps between looks at held-out patches; 0 for none
    ///
    /// 24 held-out patches of each domain are scored, and the best weights so far are kept. By default as often as takes less
    /// than 5 % of the time.
    #[arg(long, value_name = "STEPS")]
    pub validate_every: Option<u64>,
    /// Seed of weights, splits and patches
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// What may be taken of the GPU's memory.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryArgs {
    /// Limit GPU memory, such as 4G
    ///
    /// By default seven eighths of what the device has. Plans use it: at most an eighth keeps cases, and patches grow into the
    /// rest. Where a fixed patch does not fit, activations are recomputed: slower, same results.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub vram: Option<u64>,
    /// Store activations in 32 or 16 bits
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub precision: PrecisionArg,
    /// GPU memory for whole cases, such as 4G; 0 for none
    ///
    /// By default 1G, and 128M on software devices. Cases that do not fit are uploaded patch by patch.
    #[arg(long, value_parser = volume_cache, value_name = "SIZE")]
    pub volume_cache: Option<u64>,
}

/// What a run leaves, and how it goes on.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct SavingArgs {
    /// Go on with the run in this folder
    ///
    /// From its last checkpoint; or begin a run that `u2seg plan` wrote. Its settings stay as they were: flags that would change
    /// them are refused. --steps and --minutes make it longer.
    #[arg(long = "continue")]
    pub resume: bool,
    /// Steps between checkpoints [default: 50]
    ///
    /// May stand beside --continue.
    #[arg(long, value_name = "STEPS", value_parser = positive::<u64>)]
    pub checkpoint_every: Option<u64>,
    /// Longest time between checkpoints, in minutes [default: 10]
    ///
    /// May stand beside --continue.
    #[arg(long, value_name = "MINUTES", value_parser = positive::<f64>)]
    pub checkpoint_minutes: Option<f64>,
}
