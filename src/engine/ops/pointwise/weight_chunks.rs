//! Tiles of the pointwise weight gradient that a workgroup owns, with the chunks of voxels that it loads at a time.

use std::fmt::{Display, Formatter};

use super::super::load::ChannelBlocks;
use crate::engine::graph::{Caps, Layout};
use crate::engine::shader::KernelKey;

/// Vectors of workgroup memory that every adapter has.
const MEMORY: usize = 1024;

/// Invocations of a workgroup.
const THREADS: [usize; 2] = [128, 256];

/// Teams of a workgroup, and of them along either side, at most: enough threads are left to share the voxels.
const MOST_TEAMS: usize = 16;
const MOST_ALONG: usize = 8;

/// Blocks along one side of a tile for each along the other, at most: every lane loads of one block on either side.
const MOST_UNEVEN: usize = 4;

/// Parts of all samples at most: one pass sums them.
const MOST_PARTS: usize = 1024;

/// Threads for each that keeps the adapter busy: groups that end late cost less where there are many.
const ROUNDS: usize = 6;

/// A tile of `pointwise_weight_tiled.wgsl`; pairs are of inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightChunks {
    /// Channel blocks of a thread.
    blocks: [usize; 2],
    /// Teams of threads along each side.
    teams: [usize; 2],
    threads: usize,
}

impl Display for WeightChunks {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let [ins, outs] = self.tile();
        write!(f, "chunks TILE={ins}x{outs} WG={}", self.threads)
    }
}

impl WeightChunks {
    /// For this many channel blocks, with few threads first: then several workgroups find room beside one another.
    pub fn all(ChannelBlocks { ins, outs }: ChannelBlocks) -> Vec<Self> {
        let blocks = [ins, outs].map(|most| most.min(2));
        let wanted = |axis: usize| [ins, outs][axis].div_ceil(blocks[axis]).next_power_of_two();
        let mut teams = [0, 1].map(|axis| wanted(axis).min(MOST_ALONG));
        loop {
            let tile = [0, 1].map(|side| blocks[side] * teams[side]);
            let larger = usize::from(tile[1] > tile[0]);
            let even = tile[larger] <= MOST_UNEVEN * tile[1 - larger];
            if even && teams[0] * teams[1] <= MOST_TEAMS {
                break;
            }
            teams[larger] /= 2;
        }
        let tiles = THREADS.into_iter().map(|threads| Self { blocks, teams, threads });
        tiles.filter(|chunks| chunks.memory() <= MEMORY).collect()
    }

    /// Vectors of workgroup memory.
    fn memory(&self) -> usize {
        self.tile().into_iter().sum::<usize>() * self.chunk()
    }

    /// Input and output blocks of a workgroup.
    pub fn tile(&self) -> [usize; 2] {
        [0, 1].map(|side| self.blocks[side] * self.teams[side])
    }

    /// Voxels that a workgroup loads at a time: so many that every lane has one of its block, and as many as fit.
    fn chunk(&self) -> usize {
        let tile = self.tile();
        let least = self.threads / tile[0].min(tile[1]);
        let room = MEMORY / (tile[0] + tile[1]) / least;
        least << room.max(1).ilog2()
    }

    /// Voxels of a part, and parts of a sample, at most `most`.
    pub fn split(
        &self,
        grad: &Layout,
        blocks: ChannelBlocks,
        most: usize,
        caps: &Caps,
    ) -> [usize; 2] {
        let [tile_in, tile_out] = self.tile();
        let tiles = blocks.ins.div_ceil(tile_in) * blocks.outs.div_ceil(tile_out);
        let chunks = grad.voxels().div_ceil(self.chunk());
        let wanted = ROUNDS * caps.threads() / (self.threads * tiles * grad.n);
        let most = most.min(MOST_PARTS / grad.n).min(chunks).max(1);
        let each = chunks.div_ceil(wanted.clamp(1, most));
        [each * self.chunk(), chunks.div_ceil(each)]
    }

    /// Sets the tile of a key.
    pub fn key(&self, key: KernelKey) -> KernelKey {
        let ([ins, outs], [columns, rows], [tile_in, tile_out]) =
            (self.blocks, self.teams, self.tile());
        let chunk = self.chunk();
        let tiles = [
            ("OUT", outs),
            ("IN", ins),
            ("ROWS", rows),
            ("COLUMNS", columns),
            ("SHARES", self.threads / (rows * columns)),
            ("CHUNK", chunk),
            ("INPUTS", chunk * tile_in / self.threads),
            ("GRADS", chunk * tile_out / self.threads),
        ];
        tiles.into_iter().fold(key, |key, (name, value)| key.tile(name, value as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shader::validate;

    fn blocks() -> Vec<ChannelBlocks> {
        let of = [1, 2, 3, 4, 8, 9, 64];
        of.into_iter().flat_map(|ins| of.map(|outs| ChannelBlocks { ins, outs })).collect()
    }

    /// Tiles are valid within the portable limits, and every lane loads whole shares of a chunk.
    #[test]
    fn every_shape_has_tiles_that_fit() {
        for blocks in blocks() {
            assert!(!WeightChunks::all(blocks).is_empty(), "{blocks:?}");
            for chunks in WeightChunks::all(blocks) {
                validate(&chunks.key(KernelKey::new("pointwise_weight_tiled.wgsl"))).unwrap();
                let teams: usize = chunks.teams.into_iter().product();
                assert!(chunks.threads.is_multiple_of(teams), "{chunks:?}");
                for tile in chunks.tile() {
                    let loads = chunks.chunk() * tile;
                    assert!(loads.is_multiple_of(chunks.threads), "{chunks:?}");
                }
                assert!(chunks.memory() <= MEMORY, "{chunks:?}");
            }
        }
    }

    #[test]
    fn parts_cover_all_voxels_and_one_pass_sums_them() {
        for blocks in blocks() {
            for chunks in WeightChunks::all(blocks) {
                for (samples, most) in [(1, 5000), (2, 5000), (3, 7), (2000, 1)] {
                    let grad = Layout::new(samples, 4, [20, 28, 20]);
                    let [run, parts] = chunks.split(&grad, blocks, most, &Caps::default());
                    assert!(run.is_multiple_of(chunks.chunk()));
                    assert!(run * parts >= 11_200 && run * (parts - 1) < 11_200);
                    assert!(parts <= most && (parts == 1 || parts * samples <= MOST_PARTS));
                }
            }
        }
    }
}
