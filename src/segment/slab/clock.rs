//! What the time of a case is spent on, and whether it goes on.

use std::time::{Duration, Instant};

use crate::base::{Result, Stop};
use crate::engine::gpu::Gpu;

/// What a case takes time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Windows are cut out of the case.
    Cutting,
    /// The network runs.
    Forward,
    /// Logits are summed.
    Summing,
    /// Planes are resampled and classes decided.
    Deciding,
    /// Labels and probabilities are put into their places.
    Placing,
}

const PHASES: [(Phase, &str); 5] = [
    (Phase::Cutting, "cutting windows"),
    (Phase::Forward, "forward passes"),
    (Phase::Summing, "summing logits"),
    (Phase::Deciding, "deciding"),
    (Phase::Placing, "placing labels"),
];

/// Seconds by phase. To know them the queue is waited for after each, which is done only where they are logged.
pub struct Clock {
    measures: bool,
    stop: Stop,
    last: Instant,
    spent: [Duration; PHASES.len()],
}

impl Clock {
    /// Begins; it measures where the log takes what it tells.
    pub fn start() -> Self {
        Self::until(Stop::default())
    }

    /// The same for work that ends where somebody asks to stop.
    pub fn until(stop: Stop) -> Self {
        Self {
            stop,
            measures: log::log_enabled!(log::Level::Info),
            last: Instant::now(),
            spent: Default::default(),
        }
    }

    /// What was done since the last call was this.
    ///
    /// # Errors
    ///
    /// Where the GPU fails, and where the work is to stop.
    pub fn lap(&mut self, gpu: &Gpu, phase: Phase) -> Result<()> {
        self.stop.check()?;
        if self.measures {
            gpu.wait()?;
            let now = Instant::now();
            self.spent[phase as usize] += now - self.last;
            self.last = now;
        }
        Ok(())
    }

    /// Seconds of a phase.
    pub fn seconds(&self, phase: Phase) -> f64 {
        self.spent[phase as usize].as_secs_f64()
    }

    /// In words: each phase with its seconds.
    pub fn told(&self) -> String {
        let told = PHASES.map(|(phase, name)| format!("{name} {:.2} s", self.seconds(phase)));
        told.join(", ")
    }
}
