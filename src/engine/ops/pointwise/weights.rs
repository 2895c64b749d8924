//! The weight gradient of a pointwise convolution.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::super::common::{FEW_THREADS, WORKGROUP, distinct};
use super::super::load::{ChannelBlocks, WeightSources};
use super::coop::CooperativeTile;
use crate::base::Result;
use crate::engine::graph::{Caps, Dispatch, Layout, Lowering, Portion, fold};
use crate::engine::shader::Choice;

/// How a weight gradient is shared out, in `per_sample` parts of a sample's voxels.
pub struct PointwiseWeights {
    tile: PointwiseWeightTile,
    pub per_sample: usize,
}

/// What owns a tile of one part's weight gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PointwiseWeightTile {
    /// A thread owns so many output and input blocks; there should be so many `threads`.
    Thread { blocks: usize, threads: usize },
    /// A workgroup owns one, made of cooperative matrices.
    Cooperative(CooperativeTile),
}

impl Display for PointwiseWeightTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thread { blocks, threads } => write!(f, "TILE={blocks} threads={threads}"),
            Self::Cooperative(tile) => write!(f, "{tile}"),
        }
    }
}

impl PointwiseWeightTile {
    /// Parts of a sample that keep the adapter busy.
    fn parts(self, samples: usize, voxels: usize, blocks: ChannelBlocks, caps: &Caps) -> usize {
        let ChannelBlocks { ins, outs } = blocks;
        let tasks = |blocks| ins.div_ceil(blocks) * outs.div_ceil(blocks) * samples;
        match self {
            Self::Thread { blocks, threads } => {
                (threads / tasks(blocks)).clamp(1, voxels.div_ceil(16))
            }
            Self::Cooperative(tile) => {
                let groups = caps.threads() / CooperativeTile::SHARE;
                (groups / tasks(tile.blocks())).clamp(1, voxels.div_ceil(256))
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
        let caps = lowering.caps;
        let threads = caps.threads();
        let usual = if threads < FEW_THREADS { 4 } else { 2 };
        let split = |blocks: usize, threads| PointwiseWeightTile::Thread {
            blocks: blocks.min(ins.max(outs)),
            threads,
        };
        let mut splits = distinct(vec![
            split(usual, threads),
            split(usual, threads / 2),
            split(usual, threads * 2),
            split(6 - usual, threads),
            split(6 - usual, threads * 2),
            split(1, threads),
        ]);
        let cooperative = CooperativeTile::tiles(blocks, caps, lowering.dtype);
        splits.extend(cooperative.into_iter().map(PointwiseWeightTile::Cooperative));
        let shape = format!("{samples}x{voxels} {ins}>{outs}{load}");
        let (tile, choice) = lowering.choose("pointwise_weight", shape, &splits)?;
        let parts = tile.parts(samples, voxels, blocks, caps).min(most);
        let per_sample = match tile {
            // eight neighbouring threads share a run of voxels
            PointwiseWeightTile::Thread { .. } => parts.next_multiple_of(8),
            PointwiseWeightTile::Cooperative(_) => parts,
        };
        Ok((Self { tile, per_sample }, choice))
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
        let (key, tile_in, tile_out, group, runs) = match self.tile {
            PointwiseWeightTile::Thread { blocks, .. } => {
                let [tile_in, tile_out] = [ins, outs].map(|most| blocks.min(most));
                let key = sources
                    .key("pointwise_weight.wgsl")
                    .tile("OUT", tile_out as u32)
                    .tile("IN", tile_in as u32);
                (key, tile_in, tile_out, WORKGROUP, self.per_sample / 8)
            }
            PointwiseWeightTile::Cooperative(tile) => {
                let key = tile.set_weight(sources.key("pointwise_weight_coop.wgsl"));
                (key, tile.blocks(), tile.blocks(), 1, self.per_sample)
            }
        };
        let (in_tiles, out_tiles) = (ins.div_ceil(tile_in), outs.div_ceil(tile_out));
        let tasks = self.per_sample * piece.samples * in_tiles * out_tiles;
        Ok(Dispatch::new(label, key, fold(tasks.div_ceil(group), lowering.caps)?)
            .param("voxels", grad.layout.voxels())
            .param("run", grad.layout.voxels().div_ceil(runs))
            .param("in_tiles", in_tiles)
            .param("out_tiles", out_tiles)
            .param("src_voxels", source.stored_voxels())
            .param("h", grad.layout.spatial[1])
            .param("w", grad.layout.spatial[2]))
    }
}
