//! The weight gradient of a pointwise convolution.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::super::common::{WORKGROUP, distinct};
use super::super::load::{ChannelBlocks, WeightSources};
use super::coop::CooperativeTile;
use super::weight_chunks::WeightChunks;
use crate::base::Result;
use crate::engine::graph::{Caps, Dispatch, Layout, Lowering, Portion, fold};
use crate::engine::shader::Choice;

/// How a weight gradient is shared out, in `per_sample` parts of `run` of a sample's voxels.
pub struct PointwiseWeights {
    tile: PointwiseWeightTile,
    run: usize,
    pub per_sample: usize,
}

/// What owns a tile of one part's weight gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PointwiseWeightTile {
    /// A thread owns so many output and input blocks; there should be so many `threads`.
    Thread { blocks: usize, threads: usize },
    /// A workgroup owns one and loads what it multiplies once.
    Chunks(WeightChunks),
    /// A workgroup owns one, made of cooperative matrices.
    Cooperative(CooperativeTile),
}

impl Display for PointwiseWeightTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thread { blocks, threads } => write!(f, "TILE={blocks} threads={threads}"),
            Self::Chunks(chunks) => write!(f, "{chunks}"),
            Self::Cooperative(tile) => write!(f, "{tile}"),
        }
    }
}

impl PointwiseWeightTile {
    /// Tiles for this many channel blocks, the default first.
    fn candidates(blocks: ChannelBlocks, lowering: &Lowering<'_>) -> Vec<Self> {
        let caps = lowering.caps;
        let threads = caps.threads();
        let split = |tile: usize, threads| Self::Thread {
            blocks: tile.min(blocks.ins.max(blocks.outs)),
            threads,
        };
        let mut tiles = match caps.software {
            true => vec![
                split(4, threads),
                split(4, threads / 2),
                split(4, threads * 2),
                split(2, threads),
                split(2, threads * 2),
                split(1, threads),
            ],
            false => WeightChunks::all(blocks).into_iter().map(Self::Chunks).collect(),
        };
        let cooperative = CooperativeTile::tiles(blocks, caps, lowering.dtype);
        tiles.extend(cooperative.into_iter().map(Self::Cooperative));
        distinct(tiles)
    }

    /// Voxels of a part, and parts of a sample, at most `most`, that keep the adapter busy.
    fn split(&self, grad: &Layout, blocks: ChannelBlocks, most: usize, caps: &Caps) -> [usize; 2] {
        let voxels = grad.voxels();
        let tasks = |tile| blocks.ins.div_ceil(tile) * blocks.outs.div_ceil(tile) * grad.n;
        match self {
            Self::Thread { blocks, threads } => {
                let parts = (threads / tasks(*blocks)).clamp(1, voxels.div_ceil(16)).min(most);
                // eight neighbouring threads share a run of voxels
                let parts = parts.next_multiple_of(8);
                [voxels.div_ceil(parts / 8), parts]
            }
            Self::Chunks(chunks) => chunks.split(grad, blocks, most, caps),
            Self::Cooperative(tile) => {
                let groups = caps.threads() / CooperativeTile::SHARE;
                let wanted = (groups / tasks(tile.blocks())).clamp(1, voxels.div_ceil(256));
                let parts = wanted.min(most);
                [voxels.div_ceil(parts), parts]
            }
        }
    }
}

impl PointwiseWeights {
    /// For an output gradient, at most `most` parts a sample. `load` says what rides on the loads.
    pub fn choose(
        lowering: &Lowering<'_>,
        grad: &Layout,
        blocks: ChannelBlocks,
        most: usize,
        load: &str,
    ) -> Result<(Self, Arc<Choice>)> {
        let (samples, voxels) = (grad.n, grad.voxels());
        let ChannelBlocks { ins, outs } = blocks;
        let shape = format!("{samples}x{voxels} {ins}>{outs}{load}");
        let candidates = PointwiseWeightTile::candidates(blocks, lowering);
        let (tile, choice) = lowering.choose("pointwise_weight", shape, &candidates)?;
        let [run, per_sample] = tile.split(grad, blocks, most, lowering.caps);
        Ok((Self { tile, run, per_sample }, choice))
    }

    /// The dispatch for output and input blocks.
    pub fn dispatch(
        &self,
        lowering: &Lowering<'_>,
        sources: &WeightSources<'_>,
        piece: Portion<2>,
        label: String,
    ) -> Result<Dispatch> {
        let [outs, ins] = piece.runs.map(|run| run.count);
        let WeightSources { source, grad } = sources;
        let parts = self.per_sample * piece.samples;
        let tiles = |tile: [usize; 2]| [ins.div_ceil(tile[0]), outs.div_ceil(tile[1])];
        let (key, [in_tiles, out_tiles], group) = match &self.tile {
            PointwiseWeightTile::Thread { blocks, .. } => {
                let tile = [ins, outs].map(|most| *blocks.min(&most));
                let key = sources
                    .key("pointwise_weight.wgsl")
                    .tile("OUT", tile[1] as u32)
                    .tile("IN", tile[0] as u32);
                (key, tiles(tile), WORKGROUP)
            }
            PointwiseWeightTile::Chunks(chunks) => {
                let key = chunks.key(sources.key("pointwise_weight_tiled.wgsl"));
                (key, tiles(chunks.tile()), 1)
            }
            PointwiseWeightTile::Cooperative(tile) => {
                let key = tile.set_weight(sources.key("pointwise_weight_coop.wgsl"));
                (key, tiles([tile.blocks(); 2]), 1)
            }
        };
        let groups = fold((parts * in_tiles * out_tiles).div_ceil(group), lowering.caps)?;
        let dispatch = Dispatch::new(label, key, groups)
            .param("voxels", grad.layout.voxels())
            .param("run", self.run)
            .param("in_tiles", in_tiles)
            .param("src_voxels", source.stored_voxels())
            .param("h", grad.layout.spatial[1])
            .param("w", grad.layout.spatial[2]);
        Ok(match self.tile {
            PointwiseWeightTile::Chunks(_) => dispatch,
            _ => dispatch.param("out_tiles", out_tiles),
        })
    }
}
