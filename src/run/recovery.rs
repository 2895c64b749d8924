//! A training whose device is lost goes on upon another one, from its last checkpoint: the same steps, bit for bit.

use super::observer::Observer;
use super::single::Run;
use crate::base::{Error, Result};
use crate::engine::gpu::Renewal;

impl Run {
    /// Trains to the end, with checkpoints, `log.jsonl`, `progress.png` and TensorBoard's events, and writes the model;
    /// training's memory is free afterwards. Gives whether the training is at its end: otherwise the observer stopped it, and
    /// calling this again, or [`Run::open`], goes on. Where the device is lost, the training goes on from the last checkpoint on
    /// another one of the same adapter, unless that is lost too before a further checkpoint, three times in a row.
    ///
    /// # Errors
    ///
    /// Where the GPU fails or a file cannot be written, and what the observer gives.
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let mut renewal = Renewal::default();
        loop {
            match self.train_on(observer) {
                Err(error) if error.is_lost() => self.renew(error, &mut renewal)?,
                other => return other,
            }
        }
    }

    /// Has the training on another device.
    fn renew(&mut self, error: Error, renewal: &mut Renewal) -> Result<()> {
        // what lies on the lost device goes before the same is made anew
        let lost = self.trainer.take().map(|trainer| trainer.gpu().clone());
        let lost = lost.ok_or_else(|| Error::Internal("a training without a device".into()))?;
        if self.saved > Some(self.steps) {
            renewal.gained();
        }
        let gpu = renewal.after(&lost, error)?;
        let (gpu, ()) = renewal.run(&gpu, |gpu| self.restart(gpu))?;
        self.gpu = self.gpu.on_device_of(&gpu);
        log::warn!("the training goes on from step {}", self.steps);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
