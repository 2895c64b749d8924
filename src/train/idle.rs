//! How long the GPU had nothing to do between steps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::base::{Result, locked};
use crate::engine::gpu::Gpu;

/// Measures the time in which nothing was submitted that was not done. What the device has done is known whenever it is asked.
#[derive(Default)]
pub(super) struct IdleTime {
    /// Steps that were begun.
    begun: Arc<AtomicU64>,
    /// Since when all of them are done.
    since: Arc<Mutex<Option<Instant>>>,
    seconds: f64,
}

impl IdleTime {
    /// A step was submitted.
    pub fn submitted(&mut self, gpu: &Gpu) {
        let number = self.begun.load(Ordering::SeqCst);
        let (begun, since) = (self.begun.clone(), self.since.clone());
        gpu.when_done(move || {
            // told late, the next step may be under way
            if begun.load(Ordering::SeqCst) == number {
                let mut since = locked(&since);
                *since = Some(Instant::now());
            }
        });
    }

    /// The next step is about to be submitted.
    pub fn resumes(&mut self, gpu: &Gpu) -> Result<()> {
        gpu.poll()?;
        self.begun.fetch_add(1, Ordering::SeqCst);
        let since = locked(&self.since).take();
        self.seconds += since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        Ok(())
    }

    /// What was waited for until now was no idle time: the GPU did something else.
    pub fn forget(&mut self) {
        let mut since = locked(&self.since);
        *since = since.map(|_| Instant::now());
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}
