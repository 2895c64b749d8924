//! How the sums of an instance norm are shared out.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::super::common::{WORKGROUP, distinct};
use crate::base::Result;
use crate::engine::graph::{Caps, Layout, Lowering};
use crate::engine::shader::{Choice, KernelKey};

/// How a workgroup adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    /// Not at all: every lane writes its own partial sums.
    Lanes,
    /// In a tree through workgroup memory.
    Tree,
    /// By subgroup operations.
    Subgroups,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NormTile {
    merge: Merge,
    /// Invocations of a workgroup.
    group: usize,
    /// Voxels of a channel that one workgroup sums.
    chunk: usize,
}

impl Display for NormTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let merge = match self.merge {
            Merge::Lanes => "lanes",
            Merge::Tree => "tree",
            Merge::Subgroups => "subgroups",
        };
        write!(f, "{merge} WG={} chunk={}", self.group, self.chunk)
    }
}

/// Which of the two passes over the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPass {
    Statistics,
    Gradient,
}

/// The parts in which each channel is summed.
#[derive(Debug, Clone)]
pub struct ChannelParts {
    pass: NormPass,
    tile: NormTile,
    pub chunks: usize,
    /// Vectors of each of the two sums in the partial sums of a channel block.
    pub sums: usize,
    pub choice: Arc<Choice>,
}

/// Ways to sum that can pay, the default first: each lane on its own, large tensors in up to 256 chunks, or in up to 16 where
/// an adapter has few threads.
fn tiles(voxels: usize, caps: &Caps) -> Vec<NormTile> {
    let most = (caps.threads() / WORKGROUP).min(256);
    let least = if caps.software { 4096 } else { 1024 };
    let usual = voxels.div_ceil(most).max(least).next_multiple_of(4 * WORKGROUP);
    let tile = |merge, group, chunk: usize| {
        // no more than there is
        let chunk = chunk.min(voxels.next_multiple_of(4 * WORKGROUP));
        NormTile { merge, group, chunk }
    };
    let mut tiles = vec![
        tile(Merge::Lanes, WORKGROUP, usual),
        tile(Merge::Lanes, WORKGROUP, 2 * usual),
        tile(Merge::Lanes, WORKGROUP, 4 * usual),
        tile(Merge::Tree, WORKGROUP, usual),
        tile(Merge::Tree, 4 * WORKGROUP, usual),
        tile(Merge::Tree, 4 * WORKGROUP, 4 * usual),
    ];
    if caps.subgroups {
        tiles.extend([
            tile(Merge::Subgroups, WORKGROUP, usual),
            tile(Merge::Subgroups, 4 * WORKGROUP, usual),
            tile(Merge::Subgroups, 4 * WORKGROUP, 4 * usual),
        ]);
    }
    distinct(tiles)
}

impl ChannelParts {
    /// The parts of a tensor; `load` says what rides on reading it.
    pub fn choose(
        pass: NormPass,
        layout: &Layout,
        load: &str,
        lowering: &Lowering<'_>,
    ) -> Result<Self> {
        let family = match pass {
            NormPass::Statistics => "norm_stats",
            NormPass::Gradient => "norm_grad",
        };
        let voxels = layout.voxels();
        let shape = format!("{}x{voxels} {}{load}", layout.n, layout.blocks());
        let (tile, choice) = lowering.choose(family, shape, &tiles(voxels, lowering.caps))?;
        let chunks = voxels.div_ceil(tile.chunk);
        let sums = if tile.merge == Merge::Lanes { chunks * WORKGROUP } else { chunks };
        Ok(Self { pass, tile, chunks, sums, choice })
    }

    /// The kernel, without its switches.
    pub fn key(&self) -> KernelKey {
        let file = match (self.pass, self.is_whole()) {
            (NormPass::Statistics, false) => "norm_stats.wgsl",
            (NormPass::Statistics, true) => "norm_stats_whole.wgsl",
            (NormPass::Gradient, false) => "norm_grad.wgsl",
            (NormPass::Gradient, true) => "norm_grad_whole.wgsl",
        };
        let key = KernelKey::new(file).group(self.tile.group);
        if self.tile.merge == Merge::Subgroups { key.section("SUBGROUPS") } else { key }
    }

    /// Voxels of a chunk.
    pub fn chunk(&self) -> usize {
        self.tile.chunk
    }

    /// Whether a workgroup's sums are one.
    pub fn is_whole(&self) -> bool {
        self.tile.merge != Merge::Lanes
    }

    /// Words of the partial sums of a tensor.
    pub fn words(&self, layout: &Layout) -> usize {
        layout.n * layout.blocks() * self.sums * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_suit_every_workgroup() {
        for voxels in [1, 63, 64, 1000, 89_600, 2_097_152] {
            for software in [false, true] {
                let caps = Caps { software, subgroups: true, ..Caps::default() };
                let tiles = tiles(voxels, &caps);
                assert_eq!(distinct(tiles.clone()).len(), tiles.len());
                for NormTile { merge, group, chunk } in tiles {
                    assert!(chunk.is_multiple_of(group), "{voxels}: {chunk} by {group}");
                    assert!(merge != Merge::Lanes || group == WORKGROUP);
                }
            }
        }
    }
}
