//! The checkpoints of a run: the last one, and the one before it for where the last is damaged.

use std::path::Path;
use std::time::{Duration, Instant};

use super::folder::{CHECKPOINT, DAMAGED, PREVIOUS, has_checkpoint};
use crate::base::{Error, Result};
use crate::train::{Checkpoint, RunConfig};

/// Reads the last checkpoint of a run; none where there is none. Where it is damaged, or a crash left only the one before, that
/// one takes its place, and the damaged one is kept under another name.
///
/// # Errors
///
/// Where there are checkpoints and none of them can be read.
pub(super) fn read(out: &Path) -> Result<Option<Checkpoint>> {
    let [last, previous, damaged] = [CHECKPOINT, PREVIOUS, DAMAGED].map(|file| out.join(file));
    if !has_checkpoint(out) {
        return Ok(None);
    }
    let fault = match last.exists().then(|| Checkpoint::read(&last)) {
        Some(Ok(checkpoint)) => return Ok(Some(checkpoint)),
        Some(Err(error)) if !previous.exists() => return Err(error),
        Some(Err(error)) => Some(error),
        None => {
            log::warn!(
                "{} is missing: the run goes on from {PREVIOUS}; remove that, too, to begin again",
                last.display()
            );
            None
        }
    };
    let checkpoint = Checkpoint::read(&previous).map_err(|error| match &fault {
        Some(last) => Error::file(
            out,
            format!("no checkpoint that can be read: {last}; {error}"),
            "a checkpoint of this run",
            "Restore one of the files, or start a new run.",
        ),
        None => error,
    })?;
    if let Some(fault) = fault {
        log::warn!(
            "{fault} The run goes on from the checkpoint before it, of step {}; the damaged one is kept as {DAMAGED}",
            checkpoint.steps()
        );
        std::fs::rename(&last, &damaged).map_err(|e| Error::io(&last, e))?;
    }
    std::fs::rename(&previous, &last).map_err(|e| Error::io(&previous, e))?;
    Ok(Some(checkpoint))
}

/// When the next checkpoint is due.
pub(super) struct Due {
    steps: u64,
    pause: Option<Duration>,
    last: Instant,
}

impl Due {
    pub fn of(config: &RunConfig) -> Self {
        let pause = config
            .checkpoint_minutes
            .map(|minutes| Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX));
        Self { steps: config.checkpoint_every, pause, last: Instant::now() }
    }

    /// Whether a step, counted from 1, is to be saved.
    pub fn at(&self, step: u64) -> bool {
        let late = self.pause.is_some_and(|pause| self.last.elapsed() >= pause);
        step.is_multiple_of(self.steps) || late
    }

    pub fn saved(&mut self) {
        self.last = Instant::now();
    }
}
