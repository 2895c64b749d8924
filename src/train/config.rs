//! Everything needed to repeat a run; written to `config.toml` of its folder.

use std::path::{Path, PathBuf};

use super::schedule::Schedule;
use super::session::Freeze;
use crate::data::{Augment, Fold};
use crate::error::{Error, Result};
use crate::graph::Element;
use crate::nn::{Adapter, Downsample, Mode};
use crate::ops::{LossWeights, Optimizer};

/// How long to train; the learning rate's schedule is fitted to it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    Steps(u64),
    Minutes(f64),
}

/// A model whose shared weights a run starts from and keeps.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Start {
    pub model: PathBuf,
    pub freeze: Freeze,
}

/// Settings of a run.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunConfig {
    /// Dataset folders, one a domain.
    pub data: Vec<PathBuf>,
    pub mode: Mode,
    pub adapter: Adapter,
    #[serde(default)]
    pub downsample: Downsample,
    /// Channels of the first level.
    pub base: usize,
    pub length: Length,
    pub seed: u64,
    pub fold: Fold,
    /// How domains share the steps.
    #[serde(default)]
    pub schedule: Schedule,
    /// Learning rate at the start; it falls as (1 − progress)^0.9.
    pub lr: f64,
    pub loss: LossWeights,
    pub optimizer: Optimizer,
    pub augment: Augment,
    /// Where adapting starts from.
    #[serde(default)]
    pub start: Option<Start>,
    /// How activations are stored.
    #[serde(default)]
    pub precision: Element,
    /// Bytes of GPU memory that training may take.
    #[serde(default)]
    pub vram: Option<u64>,
    /// Steps between readings of the loss.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
}

impl RunConfig {
    /// The defaults for some dataset folders.
    pub fn new(data: Vec<PathBuf>) -> Self {
        Self {
            data,
            mode: Mode::Universal,
            adapter: Adapter::Separable,
            downsample: Downsample::Full,
            base: 16,
            length: Length::Steps(1000),
            seed: 0,
            fold: Fold::All,
            schedule: Schedule::Turns,
            lr: 3e-3,
            loss: LossWeights::dice_ce(),
            optimizer: Optimizer::adam(),
            augment: Augment::default(),
            start: None,
            precision: Element::F32,
            vram: None,
            log_every: 5,
            checkpoint_every: 50,
        }
    }

    /// The learning rate at a share of the run.
    pub fn rate(&self, progress: f64) -> f64 {
        self.lr * (1.0 - progress.clamp(0.0, 1.0)).powf(0.9)
    }

    /// Writes `config.toml`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        crate::data::write_atomically(path, text.as_bytes())
    }

    /// Reads `config.toml`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        toml::from_str(&text).map_err(|e| {
            Error::file(
                path,
                e.to_string(),
                "the settings of a run",
                "Correct the line, or start a new run.",
            )
        })
    }
}
