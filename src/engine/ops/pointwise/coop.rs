//! Tiles of the pointwise kernels that multiply cooperative matrices.

use std::fmt::{Display, Formatter};

use super::super::cooperative::{MatrixKind, groups};
use super::super::load::ChannelBlocks;
use crate::engine::graph::{Caps, DType};
use crate::engine::shader::KernelKey;

/// Voxels of a workgroup.
const VOXELS: usize = 64;

/// A workgroup's tile of `pointwise_coop.wgsl` or `pointwise_weight_coop.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CooperativeTile {
    kind: MatrixKind,
    group: usize,
}

impl Display for CooperativeTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { kind: MatrixKind { side, bits, .. }, group } = self;
        write!(f, "cooperative f{bits} SIDE={side} channels={} WG={group}", 4 * self.blocks())
    }
}

impl CooperativeTile {
    /// Threads, of those that keep an adapter busy, for which one workgroup stands.
    pub const SHARE: usize = 32;

    /// Tiles for this many channel blocks: see [`MatrixKind::of`].
    pub fn tiles(blocks: ChannelBlocks, caps: &Caps, dtype: DType) -> Vec<Self> {
        let kinds = MatrixKind::of(blocks, caps, dtype).into_iter();
        kinds
            .flat_map(|kind| groups(caps).into_iter().map(move |group| Self { kind, group }))
            .collect()
    }

    pub fn voxels(self) -> usize {
        VOXELS
    }

    /// Output blocks of a workgroup; for the weight gradient input blocks as well.
    pub fn blocks(self) -> usize {
        self.kind.blocks()
    }

    /// Sets the tile of a key of `pointwise_coop.wgsl`.
    pub fn set(self, key: KernelKey) -> KernelKey {
        // rows and columns of jobs, and of each job's matrices
        let [rows, columns, vox, out] = match (self.kind.side, self.kind.wide) {
            (8, true) => [2, 2, 4, 4],
            (8, false) => [4, 1, 2, 4],
            (_, true) => [1, 4, 4, 1],
            (_, false) => [2, 2, 2, 1],
        };
        self.matrices(key, [rows, columns]).tile("VOX", vox).tile("OUT", out)
    }

    /// Sets the tile of a key of `pointwise_weight_coop.wgsl`.
    pub fn set_weight(self, key: KernelKey) -> KernelKey {
        let [rows, columns, outs, ins] = match (self.kind.side, self.kind.wide) {
            (8, true) => [2, 2, 4, 4],
            (8, false) => [2, 2, 2, 2],
            (_, true) => [4, 1, 1, 4],
            (_, false) => [2, 2, 1, 1],
        };
        self.matrices(key, [rows, columns]).tile("OUT", outs).tile("IN", ins)
    }

    fn matrices(self, key: KernelKey, [rows, columns]: [u32; 2]) -> KernelKey {
        let MatrixKind { side, bits, .. } = self.kind;
        // 64 bytes at a time of what is summed over
        let steps = 512 / bits / side;
        key.tile("SIDE", side as u32)
            .tile("BITS", bits as u32)
            .tile("ROWS", rows)
            .tile("COLUMNS", columns)
            .tile("STEPS", steps as u32)
            .group(self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::cooperative::JOBS;
    use super::*;
    use crate::engine::shader::{Cooperative as Sides, validate};

    #[test]
    fn matrices_are_used_where_they_are_and_halves_where_tensors_are() {
        let names = |f32, f16, dtype, subgroup_size, outs, ins| -> Vec<String> {
            let cooperative = Sides { f32, f16 };
            let caps = Caps { cooperative, subgroup_size, ..Caps::default() };
            let tiles = CooperativeTile::tiles(ChannelBlocks { ins, outs }, &caps, dtype);
            tiles.iter().map(CooperativeTile::to_string).collect()
        };
        let (single, half) = (DType::F32, DType::F16);
        assert!(names(0, 0, half, 32, 16, 16).is_empty());
        // f16 factors never serve tensors in f32
        assert!(names(0, 16, single, 32, 16, 16).is_empty());
        assert!(names(8, 16, half, 32, 16, 3).is_empty());
        assert!(names(8, 16, half, 32, 3, 16).is_empty());
        assert_eq!(names(8, 16, single, 8, 8, 8), ["cooperative f32 SIDE=8 channels=32 WG=32"]);
        assert_eq!(
            names(0, 16, half, 0, 9, 4),
            [
                "cooperative f16 SIDE=16 channels=32 WG=128",
                "cooperative f16 SIDE=16 channels=32 WG=256",
                "cooperative f16 SIDE=16 channels=64 WG=128",
                "cooperative f16 SIDE=16 channels=64 WG=256",
            ]
        );
        assert_eq!(names(8, 8, half, 32, 16, 16).len(), 4);
    }

    /// Every tile is valid within the portable limits and makes what the plan thinks.
    #[test]
    fn tiles_are_valid_and_make_what_is_planned() {
        for side in [8, 16] {
            for dtype in [DType::F16, DType::F32] {
                let cooperative = Sides { f32: side, f16: side };
                let caps = Caps { cooperative, ..Caps::default() };
                for tile in
                    CooperativeTile::tiles(ChannelBlocks { ins: 16, outs: 16 }, &caps, dtype)
                {
                    let of = |key: KernelKey, rows: &str, columns: &str| {
                        validate(&key).unwrap();
                        let value = |name| {
                            let set = key.consts.iter().find(|(n, _)| *n == name);
                            set.map(|(_, value)| *value as usize).unwrap()
                        };
                        assert_eq!(value("ROWS") * value("COLUMNS"), JOBS);
                        let side = value("SIDE");
                        [
                            value("ROWS") * value(rows) * side,
                            value("COLUMNS") * value(columns) * side,
                        ]
                    };
                    let channels = 4 * tile.blocks();
                    let key = tile.set(KernelKey::new("pointwise_coop.wgsl"));
                    assert_eq!(of(key, "VOX", "OUT"), [tile.voxels(), channels]);
                    let key = tile.set_weight(KernelKey::new("pointwise_weight_coop.wgsl"));
                    assert_eq!(of(key, "OUT", "IN"), [channels; 2]);
                }
            }
        }
    }
}
