//! How volumes are segmented.

use crate::base::{Error, Result};
use crate::domain::Weighting;
use crate::engine::graph::DType;

/// How volumes are segmented.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PredictOptions {
    /// Step between windows as a share of the patch, above 0 and at most 1.
    pub step_size: f32,
    /// How much the voxels of a window count; otherwise as the domain's plan says.
    pub weighting: Option<Weighting>,
    /// Axes D, H, W along which windows are also mirrored; logits are averaged over all combinations.
    pub mirror: [bool; 3],
    /// How activations are stored.
    pub dtype: DType,
    /// Windows that a run of the network takes at most; otherwise as many as the memory holds.
    pub batch: Option<usize>,
    /// Bytes of GPU memory by which slabs and batches are sized; otherwise by the adapter. What a row of windows needs at
    /// least is taken whatever this says.
    pub memory: Option<u64>,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self {
            step_size: 0.5,
            weighting: None,
            mirror: [false; 3],
            dtype: DType::F32,
            batch: None,
            memory: None,
        }
    }
}

impl PredictOptions {
    /// Refuses a step that leaves voxels out, and batches of nothing.
    ///
    /// # Errors
    ///
    /// Where the step is not above 0 and at most 1, or the batch is 0.
    pub fn check(&self) -> Result<()> {
        if !(self.step_size > 0.0 && self.step_size <= 1.0) {
            let found = self.step_size.to_string();
            return Err(Error::setting(
                "step_size",
                found,
                "above 0 and at most 1",
                "0.5 is usual.",
            ));
        }
        if self.batch == Some(0) {
            let remedy = "Leave it out to use what the memory holds.";
            return Err(Error::setting("batch", "0", "at least 1 window", remedy));
        }
        Ok(())
    }
}
