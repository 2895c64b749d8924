//! Tiles of the pointwise kernels.

use super::conv_tile::out_tile;
use super::{FEW_THREADS, WORKGROUP};
use crate::error::Result;
use crate::graph::{Caps, Dispatch, fold};
use crate::shader::KernelKey;

/// Voxels that one thread keeps in registers where outputs stay there.
const VOX: usize = 2;

/// Weight blocks (4x4) that one thread holds where weights stay in registers.
const HELD: usize = 32;

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
    /// Tensors that a load of the input reads.
    pub loads: usize,
}

/// The kernel's file: weights stay in registers where loads are dear, outputs elsewhere.
pub(super) fn file(caps: &Caps) -> &'static str {
    if caps.software { "pointwise_held.wgsl" } else { "pointwise.wgsl" }
}

/// Output and input blocks of the tile that loads and stores least, of those that fit the registers. `loads` counts the
/// tensors that one input takes.
fn held(outs: usize, ins: usize, loads: usize) -> (usize, usize) {
    let tiles = (1..=outs.min(8)).flat_map(|out| {
        let divides = move |step: &usize| ins.is_multiple_of(*step) && out * step <= HELD;
        (1..=ins).filter(divides).map(move |step| (out, step))
    });
    let cost = |(out, step): &(usize, usize)| {
        let passes = ins / step;
        outs.div_ceil(*out) * (ins * loads + out * (2 * passes - 1))
    };
    tiles.min_by_key(|tile| (cost(tile), tile.0 * tile.1)).unwrap_or((1, 1))
}

impl Product {
    /// Tiles, workgroups and their parameters, for a key of [`file`] that has its switches.
    pub fn dispatch(&self, label: String, key: KernelKey, caps: &Caps) -> Result<Dispatch> {
        let (out, key, groups, steps) = if caps.software {
            let (out, ins) = held(self.outs, self.ins, self.loads);
            let groups = self.voxels.div_ceil(WORKGROUP * STEPS);
            let steps = self.voxels.div_ceil(WORKGROUP * groups);
            (out, key.tile("INS", ins as u32), groups, Some(steps))
        } else {
            let groups = self.voxels.div_ceil(WORKGROUP * VOX);
            (out_tile(self.outs), key.tile("VOX", VOX as u32), groups, None)
        };
        let key = key.tile("OUT", out as u32);
        let tiles = self.outs.div_ceil(out);
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

#[cfg(test)]
mod tests {
    use super::held;

    #[test]
    fn tiles_fit_and_divide() {
        for outs in 1..40 {
            for ins in 1..40 {
                let (out, step) = held(outs, ins, 1);
                assert!(out <= outs && ins % step == 0 && out * step <= 32);
            }
        }
        assert_eq!(held(4, 8, 1), (4, 8));
        assert_eq!(held(8, 4, 2), (8, 4));
    }
}
