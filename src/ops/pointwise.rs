//! Tiles of the pointwise kernels.

use super::conv::out_tile;
use super::{FEW_THREADS, WORKGROUP};
use crate::error::Result;
use crate::graph::{Caps, Dispatch, fold};
use crate::shader::KernelKey;

/// Voxels that one thread keeps in registers where outputs stay there.
const VOX: usize = 2;

/// Weight blocks (4x4) that one thread holds where weights stay in registers.
const HELD: usize = 16;

/// Voxels that a thread walks over where it holds weights.
const STEPS: usize = 32;

/// Output and input blocks that one thread of the weight gradient owns.
pub(super) fn weight_tile(threads: usize) -> usize {
    if threads < FEW_THREADS { 4 } else { 2 }
}

/// Size of a pointwise product: `outs` and `ins` in channel blocks.
pub(super) struct Product {
    pub samples: usize,
    pub voxels: usize,
    pub outs: usize,
    pub ins: usize,
}

/// The kernel's file: weights stay in registers where loads are dear, outputs elsewhere.
pub(super) fn file(caps: &Caps) -> &'static str {
    if caps.software { "pointwise_held.wgsl" } else { "pointwise.wgsl" }
}

/// The largest divisor of `count` up to `most`.
fn divisor(count: usize, most: usize) -> usize {
    (1..=most.min(count)).rev().find(|d| count.is_multiple_of(*d)).unwrap_or(1)
}

impl Product {
    /// Tiles, workgroups and their parameters, for a key of [`file`] that has its switches.
    pub fn dispatch(&self, label: String, key: KernelKey, caps: &Caps) -> Result<Dispatch> {
        let out = out_tile(self.outs);
        let tiles = self.outs.div_ceil(out);
        let key = key.tile("OUT", out as u32);
        let (key, groups, steps) = if caps.software {
            let groups = self.voxels.div_ceil(WORKGROUP * STEPS);
            let ins = divisor(self.ins, (HELD / out).min(8));
            let steps = self.voxels.div_ceil(WORKGROUP * groups);
            (key.tile("INS", ins as u32), groups, Some(steps))
        } else {
            (key.tile("VOX", VOX as u32), self.voxels.div_ceil(WORKGROUP * VOX), None)
        };
        let dispatch = Dispatch::new(label, key, fold(groups * tiles * self.samples, caps)?)
            .param("voxels", self.voxels)
            .param("groups", groups)
            .param("tiles", tiles);
        Ok(match steps {
            Some(steps) => dispatch.param("steps", steps),
            None => dispatch,
        })
    }
}
