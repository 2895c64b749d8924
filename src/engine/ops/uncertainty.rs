//! Kernels that tell how sure a segmentation is, over maps of probabilities of a slab.

use super::slab::Call;
use crate::base::Result;
use crate::engine::graph::Caps;
use crate::engine::shader::KernelKey;

/// Entropy of each voxel's probabilities: `entropy.wgsl`, bindings `maps` and `out`.
#[derive(Debug, Clone, Copy)]
pub struct Entropy {
    /// Vectors of four voxels.
    pub vectors: usize,
    /// Classes that are bound.
    pub classes: usize,
    /// Whether these are the first ones.
    pub first: bool,
    /// Classes or regions in all.
    pub outputs: usize,
    /// Whether each is a region of its own.
    pub regions: bool,
}

impl Entropy {
    /// What makes the largest entropy 1: of classes all equally likely, of regions each as likely as not.
    pub fn scale(&self) -> f32 {
        let most = match self.regions {
            true => self.outputs as f64 * std::f64::consts::LN_2,
            false => (self.outputs.max(2) as f64).ln(),
        };
        (1.0 / most) as f32
    }

    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let key = KernelKey::new("entropy.wgsl").set("REGIONS", u32::from(self.regions));
        let call = Call::new(key, caps, self.vectors, self.classes * 128)?
            .words("vectors", [self.vectors])
            .words("classes", [self.classes])
            .words("first", [usize::from(self.first)]);
        Ok(call.float("scale", self.scale()))
    }
}

/// A further prediction in mean and spread: `spread.wgsl`, bindings `maps`, `mean` and `squares`.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// Vectors of four values.
    pub vectors: usize,
    /// Predictions before.
    pub count: usize,
    /// Whether none follows.
    pub last: bool,
}

impl Spread {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let call = Call::new(KernelKey::new("spread.wgsl"), caps, self.vectors, 64)?;
        Ok(call
            .words("vectors", [self.vectors])
            .words("count", [self.count])
            .words("last", [usize::from(self.last)]))
    }
}

/// Every kernel of this file in every specialisation.
pub fn uncertainty_kernels() -> Vec<KernelKey> {
    let mut keys: Vec<_> =
        [0, 1].map(|on| KernelKey::new("entropy.wgsl").set("REGIONS", on)).into();
    keys.push(KernelKey::new("spread.wgsl"));
    keys
}
