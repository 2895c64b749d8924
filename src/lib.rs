//! Trains and runs 3D U²-Net, one universal network for many organs, on any GPU through WebGPU.
//!
//! A [`Dataset`] is a folder of labelled images. A [`Run`] plans it (a [`DomainPlan`]: spacing, patch, normalisation), trains a
//! network and leaves a [`Model`] in its folder; [`Runs`] are the folds of a cross-validation, or several networks. A
//! [`Predictor`] segments a [`Volume`] with a model, [`evaluate`] scores masks, [`verify`] says what is wrong with data.
//!
//! Volumes are arrays C, D, H, W and label maps arrays D, H, W of the canonical RAS image: D runs from foot to head, H from back to
//! front, W from left to right. Masks are written on the grid of the input's file. Spacings are millimetres, D, H, W.
//!
#![cfg_attr(not(without_gpu), doc = "```")]
#![cfg_attr(without_gpu, doc = "```no_run")]
//! use u2seg::*;
//!
//! # fn main() -> Result<()> {
//! # let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
//! # let folder = folder.path();
//! let data = folder.join("Task09_Spleen");
//! write_phantoms(&data, 4, [16, 48, 48], [5.0, 6.0, 6.0])?; // made-up CTs; yours would lie there
//!
//! let gpu = Gpu::open("auto")?;
//! let mut config = RunConfig::new(vec![data.clone()]);
//! config.length = Length::Steps(4); // some thousands make a good network
//! config.fold = Fold::Index(0);
//! let mut options = PlanOptions::default();
//! options.patch = Some([16, 16, 16]);
//! # config.cache = u2seg::CachePlace::Nowhere;
//! let mut run = Run::begin(&gpu, config, &options, &folder.join("run"), &mut ())?;
//! run.train(&mut ())?; // an Observer instead of () follows it and may stop it
//! let scores = run.validate(&mut ())?; // of the held-out cases
//! println!("mean Dice {:.2}", scores[0].summary.foreground_mean.dice);
//!
//! let image = read_image(&data.join("imagesTr/phantom_0.nii.gz"))?;
//! let mask = Predictor::new(&gpu, &run.model()?, 0, &PredictOptions::default())?.segment(&image)?;
//! assert_eq!(mask.shape(), [16, 48, 48]);
//! mask.write(&folder.join("phantom_0.nii.gz"))?;
//!
//! let truth = data.join("labelsTr/phantom_0.nii.gz");
//! let summary = evaluate(&folder.join("phantom_0.nii.gz"), &truth, &EvaluateOptions::default())?;
//! assert_eq!(summary.metric_per_case.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Trainer`] takes single steps, for training loops of your own. What lies below, from WGSL to tensors, is
//! in [`low_level`], which may change with every version.

#![warn(missing_docs)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod base;
mod bench;
#[doc(hidden)]
pub mod cli;
mod dataset;
mod domain;
mod engine;
mod fetch;
mod imaging;
pub mod low_level;
mod models;
mod net;
mod patch;
mod picture;
mod report;
mod run;
mod score;
mod segment;
mod train;

pub use base::{BoxedError, Error, GpuFault, Result, Stop};
pub use dataset::prepared::{Place as CachePlace, Progress as PreparationProgress};
pub use dataset::{
    Case, Class, Dataset, DatasetReport, Exclusion, Fault, Fold, Labels, Selection, verify,
    write_phantoms,
};
pub use domain::{
    CleanUp, CleanUpStep, DomainPlan, PlanOptions, PresetChoice, Recipe, Unify, Weighting,
};
pub use engine::exec::LossScale;
pub use engine::gpu::{AdapterMemory, AdapterReport, Gpu, MemorySource, adapters};
pub use engine::graph::DType;
pub use engine::ops::{LossTerm, LossWeights, Losses, Optimizer};
pub use engine::tune::Mode as TuneMode;
pub use fetch::{
    Digest, Fetched, Limits as FetchLimits, Progress as FetchProgress, Source as FetchSource,
    Stage as FetchStage, TASKS, Task, fetch,
};
pub use imaging::morphology::{Connectivity, fill_holes, keep_largest};
pub use imaging::{
    Grid, Known, LabelMap, Match, Normalisation, Segment, Volume, read_image, read_images,
    read_labels, read_series, write_volume,
};
pub use net::{DomainAdapter, Downsample, Mode, Model, NetConfig};
pub use patch::{Augment, Interpolation};
pub use picture::{Layout as OverlayLayout, Overlay, Plane};
pub use run::{Adaptation, CaseDone, DomainScores, Observer, Run, RunRequest, Runs, Segmenting};
pub use score::metrics::{Comparison, Scores};
pub use score::summary::{CaseScores, Summary};
pub use score::{ClassKey, EvaluateOptions, evaluate};
pub use segment::{Ensemble, PredictOptions, Predictor, Uncertainty};
pub use train::{
    DomainCases, DomainSampling, Drawn, Freeze, Length, LrSchedule, Memory, PatchSampling, Reading,
    RunConfig, Start, Step, Trainer, TrainingBudget,
};
