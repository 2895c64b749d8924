//! `run.json`: how a run came about, start by start. It is for people and their reports; nothing that is trained depends on it, and
//! where it cannot be written the run goes on with a warning.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::folder::RECORD;
use crate::base::files::{read_json, write_atomically};
use crate::base::{Error, Result};
use crate::report::Origin;
use crate::train::Trainer;

/// The starts of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// In their order.
    pub starts: Vec<StartRecord>,
    /// Seconds that the last segmenting and scoring of held-out cases took; none where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_seconds: Option<f64>,
}

/// One start, until the training ended or was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StartRecord {
    #[serde(flatten)]
    pub origin: Origin,
    /// Steps done before it.
    pub first_step: u64,
    /// Steps done with it; as many as before it while it runs, or where it was cut short.
    pub last_step: u64,
    /// Seconds that its steps took, with checkpoints.
    pub seconds: f64,
    /// Share of that in which the GPU had nothing to do.
    pub gpu_idle: f64,
    /// Bytes of the GPU's memory.
    pub memory: MemoryRecord,
}

/// What a training takes of the GPU's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MemoryRecord {
    /// Weights, gradients and both moments.
    pub parameters: u64,
    /// Activations.
    pub activations: u64,
    /// Everything that the network takes, with these.
    pub total: u64,
    /// Cases and patches at most, beside that.
    pub patches: u64,
    /// Tensors that are computed twice to save memory.
    pub recomputed: usize,
}

/// A start that is at work.
pub(super) struct Running<'a> {
    folder: &'a Path,
    record: Record,
    since: Instant,
}

impl Record {
    /// Of the run in a folder; none where it has none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(RECORD);
        let read = || read_json(&file, "the starts of a run", "Remove the file.");
        file.is_file().then(read).transpose()
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(&folder.join(RECORD), &json)
    }

    /// Notes a start that is about to step; a run at its beginning has none before it.
    pub fn begin<'a>(folder: &'a Path, trainer: &Trainer, command: Option<String>) -> Running<'a> {
        let first_step = trainer.steps();
        let earlier = if first_step == 0 { None } else { warned(Self::read(folder)).flatten() };
        let mut record = earlier.unwrap_or_default();
        let memory = trainer.memory();
        record.validation_seconds = None;
        record.starts.push(StartRecord {
            origin: Origin::of(trainer.gpu(), command),
            first_step,
            last_step: first_step,
            seconds: 0.0,
            gpu_idle: 0.0,
            memory: MemoryRecord {
                parameters: memory.parameters,
                activations: memory.activations,
                total: memory.total(),
                patches: trainer.patch_bytes(),
                recomputed: memory.recomputed,
            },
        });
        warned(record.write(folder));
        Running { folder, record, since: Instant::now() }
    }

    /// Notes how long the held-out cases took.
    pub fn validated(folder: &Path, seconds: f64) {
        if let Some(mut record) = warned(Self::read(folder)).flatten() {
            record.validation_seconds = Some(seconds);
            warned(record.write(folder));
        }
    }
}

impl Running<'_> {
    /// Notes where the start ended.
    pub fn end(mut self, trainer: &Trainer) {
        if let Some(start) = self.record.starts.last_mut() {
            start.last_step = trainer.steps();
            start.seconds = self.since.elapsed().as_secs_f64();
            start.gpu_idle = trainer.gpu_idle();
        }
        warned(self.record.write(self.folder));
    }
}

/// What came of it, or a warning.
fn warned<T>(outcome: Result<T>) -> Option<T> {
    outcome.inspect_err(|error| log::warn!("the run's record is not complete: {error}")).ok()
}
