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

/// What a workgroup sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// So many voxels of a channel block; a second pass merges the parts.
    Chunk(usize),
    /// A whole channel block, so that nothing is left to merge.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NormTile {
    merge: Merge,
    /// Invocations of a workgroup.
    group: usize,
    share: Share,
}

impl Display for NormTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let merge = match self.merge {
            Merge::Lanes => "lanes",
            Merge::Tree => "tree",
            Merge::Subgroups => "subgroups",
        };
        write!(f, "{merge} WG={}", self.group)?;
        match self.share {
            Share::Chunk(voxels) => write!(f, " chunk={voxels}"),
            Share::All => f.write_str(" once"),
        }
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
    /// Vectors of each of the two sums in the partial sums of a channel block; none where one pass does all.
    pub sums: usize,
    pub choice: Arc<Choice>,
}

/// Loads of each tensor that a lane does one after another, at most, where few workgroups hide how long each takes.
pub(super) const WALK: usize = 16;

/// Workgroups that keep a large GPU busy.
const GROUPS: usize = 2048;

/// What is summed: a channel block of `voxels` for each of `blocks` (of all samples).
#[derive(Debug, Clone, Copy)]
struct Extent {
    voxels: usize,
    blocks: usize,
    /// Channel blocks that a workgroup takes one after another where it takes them whole; none where they are not bound at once.
    whole: Option<usize>,
}

/// Ways to sum that can pay, the default first.
fn tiles(extent: Extent, caps: &Caps) -> Vec<NormTile> {
    distinct(if caps.software { on_cpu(extent.voxels, caps) } else { on_hardware(extent, caps) })
}

/// A chunk of no more than there is, of whole rounds of the largest workgroup.
fn chunk(voxels: usize, wanted: usize) -> Share {
    let round = 4 * WORKGROUP;
    Share::Chunk(wanted.next_multiple_of(round).min(voxels.next_multiple_of(round)))
}

/// Each lane on its own, large tensors in up to 16 chunks, since an adapter has few threads.
fn on_cpu(voxels: usize, caps: &Caps) -> Vec<NormTile> {
    let most = (caps.threads() / WORKGROUP).min(256);
    let usual = voxels.div_ceil(most).max(4096);
    let usual = usual.next_multiple_of(4 * WORKGROUP);
    let tile = |merge, group, wanted| NormTile { merge, group, share: chunk(voxels, wanted) };
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
    tiles
}

/// Workgroups add up; small tensors in one pass, larger ones in as many chunks as keep an adapter busy, at most 256 a channel block.
fn on_hardware(extent: Extent, caps: &Caps) -> Vec<NormTile> {
    let Extent { voxels, blocks, whole } = extent;
    let usual = (voxels * blocks / GROUPS).max(voxels.div_ceil(256)).max(1024);
    let merge = if caps.subgroups { Merge::Subgroups } else { Merge::Tree };
    let tile = |merge, group, wanted| NormTile { merge, group, share: chunk(voxels, wanted) };
    let mut tiles = vec![
        tile(merge, 4 * WORKGROUP, usual),
        tile(merge, WORKGROUP, usual),
        tile(merge, 4 * WORKGROUP, 4 * usual),
        tile(Merge::Tree, 4 * WORKGROUP, usual),
    ];
    let Some(each) = whole else { return tiles };
    // lanes that have something to do
    let few = if voxels <= 4 * WORKGROUP { WORKGROUP } else { 4 * WORKGROUP };
    let once = |merge, group| NormTile { merge, group, share: Share::All };
    let walk = each * voxels.div_ceil(few);
    if walk <= WALK {
        tiles.insert(0, once(merge, few));
        tiles.insert(1, once(Merge::Tree, few));
    } else if walk <= 4 * WALK {
        tiles.push(once(merge, few));
    }
    tiles
}

impl ChannelParts {
    /// The parts of a tensor; `load` says what rides on reading it.
    pub fn choose(
        pass: NormPass,
        layout: &Layout,
        load: &str,
        lowering: &Lowering<'_>,
    ) -> Result<Self> {
        let (family, each) = match pass {
            NormPass::Statistics => ("norm_stats", 1),
            // the gradients of gamma and beta are sums over samples
            NormPass::Gradient => ("norm_grad", layout.n),
        };
        let voxels = layout.voxels();
        let shape = format!("{}x{voxels} {}{load}", layout.n, layout.blocks());
        let uncut = pass == NormPass::Statistics || lowering.cut_flat(layout, voxels).len() == 1;
        let blocks = layout.n * layout.blocks();
        let extent = Extent { voxels, blocks, whole: uncut.then_some(each) };
        let (tile, choice) = lowering.choose(family, shape, &tiles(extent, lowering.caps))?;
        let (chunks, sums) = match tile {
            NormTile { share: Share::All, .. } => (1, 0),
            NormTile { share: Share::Chunk(chunk), merge, .. } => {
                let chunks = voxels.div_ceil(chunk);
                (chunks, if merge == Merge::Lanes { chunks * WORKGROUP } else { chunks })
            }
        };
        Ok(Self { pass, tile, chunks, sums, choice })
    }

    /// The kernel of the first pass, or of the only one, without its switches.
    pub fn key(&self) -> KernelKey {
        let whole = self.is_whole();
        let file = match (self.pass, self.tile.share) {
            (NormPass::Statistics, Share::All) => "norm_once.wgsl",
            (NormPass::Statistics, Share::Chunk(_)) if whole => "norm_stats_whole.wgsl",
            (NormPass::Statistics, Share::Chunk(_)) => "norm_stats.wgsl",
            (NormPass::Gradient, Share::All) => "norm_grad_once.wgsl",
            (NormPass::Gradient, Share::Chunk(_)) if whole => "norm_grad_whole.wgsl",
            (NormPass::Gradient, Share::Chunk(_)) => "norm_grad.wgsl",
        };
        let key = KernelKey::new(file).group(self.tile.group);
        if self.tile.merge == Merge::Subgroups { key.section("SUBGROUPS") } else { key }
    }

    /// Voxels of a chunk; none where one pass does all.
    pub fn chunk(&self) -> Option<usize> {
        match self.tile.share {
            Share::Chunk(voxels) => Some(voxels),
            Share::All => None,
        }
    }

    /// Whether a workgroup's sums are one.
    pub fn is_whole(&self) -> bool {
        self.tile.merge != Merge::Lanes
    }

    /// Words of the partial sums of a tensor: a few that nothing reads where there are none.
    pub fn words(&self, layout: &Layout) -> usize {
        (layout.n * layout.blocks() * self.sums * 8).max(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(voxels: usize, blocks: usize, samples: usize) -> Extent {
        Extent { voxels, blocks, whole: Some(samples) }
    }

    #[test]
    fn chunks_suit_every_workgroup() {
        for voxels in [1, 63, 64, 1000, 89_600, 2_097_152] {
            for software in [false, true] {
                let caps = Caps { software, subgroups: true, ..Caps::default() };
                let tiles = tiles(extent(voxels, 8, 2), &caps);
                assert_eq!(distinct(tiles.clone()).len(), tiles.len());
                for NormTile { merge, group, share } in tiles {
                    assert!(merge != Merge::Lanes || group == WORKGROUP);
                    assert!(!software || share != Share::All);
                    let Share::Chunk(chunk) = share else { continue };
                    assert!(chunk.is_multiple_of(group), "{voxels}: {chunk} by {group}");
                }
            }
        }
    }

    /// On hardware no lane walks alone over more than a few loads, in the first pass or the second.
    #[test]
    fn no_lane_of_a_gpu_walks_far() {
        for subgroups in [false, true] {
            let caps = Caps { subgroups, ..Caps::default() };
            let merge = if subgroups { Merge::Subgroups } else { Merge::Tree };
            for (voxels, once) in [(175, true), (4096, true), (4097, false), (2_097_152, false)] {
                let first = tiles(extent(voxels, 16, 1), &caps)[0];
                assert_eq!((first.merge, first.share == Share::All), (merge, once), "{voxels}");
                if let Share::Chunk(chunk) = first.share {
                    assert!(voxels.div_ceil(chunk) <= 256 && first.group == 256);
                }
            }
            // seven samples one after another
            let first = tiles(extent(1400, 7 * 16, 7), &caps)[0];
            assert!(first.share != Share::All);
            // more than a binding holds
            let cut = Extent { whole: None, ..extent(175, 64, 2) };
            assert!(tiles(cut, &caps).iter().all(|tile| tile.share != Share::All));
        }
    }
}
