//! Tiles of the convolutions, and input gradients of stride 1, that multiply cooperative matrices.

use super::super::cooperative::{JOBS, MatrixKind, groups};
use super::site::{ConvMethod, ConvSite, ConvTile, Matrices};
use super::spec::ConvSpec;
use super::staged_box::MEMORY;
use crate::engine::graph::{Caps, DType};
use crate::engine::shader::KernelKey;

/// How long a workgroup takes, for input channels of 64 bytes and a plane of taps: of an input voxel that is staged, of a position of
/// the matrices and a tap, and of meeting the others before and after a round of weights.
const STAGED: usize = 10;
const MULTIPLIED: usize = 4;
const MEETING: usize = 400;

/// How the matrices of a workgroup are shared out: rows and columns of jobs, and of each job's matrices.
struct Jobs {
    rows: usize,
    columns: usize,
    vox: usize,
    out: usize,
}

impl Matrices {
    fn jobs(self) -> Jobs {
        let [rows, columns, vox, out] = match (self.kind.side, self.kind.bits, self.kind.wide) {
            (8, _, true) => [2, 2, 4, 4],
            (8, _, false) => [4, 1, 4, 4],
            (_, 16, true) => [2, 2, 4, 2],
            (_, 16, false) => [4, 1, 2, 2],
            // rows of 80 bytes leave room for fewer voxels
            (_, _, true) => [2, 2, 2, 2],
            (_, _, false) => [4, 1, 1, 2],
        };
        Jobs { rows, columns, vox, out }
    }

    /// Input channels that are staged at a time: 32 bytes of them, or one matrix.
    pub fn depth(self) -> usize {
        self.kind.side.max(256 / self.kind.bits)
    }

    /// Positions of what a workgroup makes, with those that are thrown away.
    fn positions(self) -> usize {
        let Jobs { rows, vox, .. } = self.jobs();
        rows * vox * self.kind.side
    }

    /// Bytes of workgroup memory for a box of `tile`.
    fn bytes(self, spec: &ConvSpec, tile: &ConvTile) -> usize {
        let MatrixKind { side, bits, .. } = self.kind;
        let (size, padding) = (bits / 8, 128 / bits);
        let inputs = Plane::new(spec, tile, self).voxels(spec, self) * (self.depth() + padding);
        let weights = self.taps * self.depth() * (4 * self.kind.blocks() + padding);
        (inputs + weights) * size + JOBS * side * side * 4
    }

    /// The box that takes least time, of all that fit.
    fn best(self, site: &ConvSite) -> Option<(Self, ConvTile)> {
        let spec = &site.geometry.spec;
        let [depth, height, width] = site.spatial;
        let Jobs { rows, vox, .. } = self.jobs();
        let mut best: Option<(usize, Self, ConvTile)> = None;
        let planes =
            (1..=depth.min(rows * vox)).filter(|planes| (rows * vox).is_multiple_of(*planes));
        for planes in planes {
            let most = self.positions() / planes;
            for lines in 1..=height.min(most) {
                for vox in 1..=width.min(most / lines) {
                    for taps in [spec.kernel[2], 1] {
                        let matrices = Self { planes, taps, ..self };
                        let method = ConvMethod::Cooperative(matrices);
                        let tile = ConvTile { method, vox, lines, out: self.kind.blocks() };
                        let Some(time) = matrices.time(site, &tile) else { continue };
                        if best.is_none_or(|(least, _, _)| time < least) {
                            best = Some((time, matrices, tile));
                        }
                    }
                }
            }
        }
        best.map(|(_, matrices, tile)| (matrices, tile))
    }

    /// How long all boxes of `tile` take; none where one does not fit.
    fn time(self, site: &ConvSite, tile: &ConvTile) -> Option<usize> {
        let spec = &site.geometry.spec;
        let ConvSpec { kernel: [_, kh, kw], .. } = *spec;
        let plane = Plane::new(spec, tile, self);
        let fits = plane.fits(tile) && self.bytes(spec, tile) <= MEMORY;
        let each = STAGED * self.planes * plane.size[0] * plane.size[1]
            + MULTIPLIED * self.positions() * kh * kw
            + MEETING * kh * kw / self.taps;
        fits.then(|| boxes(tile, self.planes, site.spatial) * each)
    }
}

/// A plane of what a workgroup stages and makes.
struct Plane {
    /// Height and width of what is staged.
    size: [usize; 2],
    /// Positions from line to line.
    pitch: usize,
    /// Positions that the matrices have.
    positions: usize,
}

impl Plane {
    fn new(spec: &ConvSpec, tile: &ConvTile, matrices: Matrices) -> Self {
        let ConvSpec { kernel: [_, kh, kw], stride: [_, sh, sw], .. } = *spec;
        let size = [(tile.lines - 1) * sh + kh, (tile.vox - 1) * sw + kw];
        let runs_on = [sh, sw] == [1; 2];
        let pitch = if runs_on { size[1] } else { tile.vox.next_multiple_of(matrices.kind.side) };
        Self { size, pitch, positions: matrices.positions() / matrices.planes }
    }

    /// Whether the matrices have all of a box.
    fn fits(&self, tile: &ConvTile) -> bool {
        (tile.lines - 1) * self.pitch + tile.vox <= self.positions
    }

    /// Voxels of workgroup memory for all planes, with those beyond that the last matrix reads: as `END` in the shader.
    fn voxels(&self, spec: &ConvSpec, matrices: Matrices) -> usize {
        let ConvSpec { kernel: [_, kh, kw], stride: [_, sh, sw], .. } = *spec;
        let [height, width] = self.size;
        let side = matrices.kind.side;
        let last = self.positions - side;
        let end = (matrices.planes - 1) * height * width
            + (last / self.pitch * sh + kh - 1) * width
            + (last % self.pitch + side - 1) * sw
            + kw;
        end.max(matrices.planes * height * width)
    }
}

/// Tiles of a site: see [`MatrixKind::of`]; none of an input gradient of a stride. Where workgroups are few, they share the input blocks out.
pub fn cooperative_tiles(site: &ConvSite, caps: &Caps, dtype: DType) -> Vec<ConvTile> {
    if site.geometry.transposed && site.geometry.spec.stride != [1; 3] {
        return Vec::new();
    }
    let mut tiles = Vec::new();
    for kind in MatrixKind::of(site.blocks, caps, dtype) {
        let any = Matrices { kind, planes: 1, taps: 1, splits: 1, group: 0 };
        let Some((found, tile)) = any.best(site) else { continue };
        let splits = splits(site, &tile, found, caps);
        tiles.extend(groups(caps).into_iter().map(|group| {
            let method = ConvMethod::Cooperative(Matrices { splits, group, ..found });
            ConvTile { method, ..tile }
        }));
    }
    tiles
}

/// Boxes that cover a size.
fn boxes(tile: &ConvTile, planes: usize, [depth, height, width]: [usize; 3]) -> usize {
    depth.div_ceil(planes) * height.div_ceil(tile.lines) * width.div_ceil(tile.vox)
}

/// Workgroups that make `spatial` of so many samples and output blocks.
pub fn workgroups(
    tile: &ConvTile,
    planes: usize,
    spatial: [usize; 3],
    others: [usize; 2],
) -> usize {
    boxes(tile, planes, spatial) * others[0] * others[1].div_ceil(tile.out)
}

/// Parts of the input blocks, of whole steps, that keep an adapter busy and can be bound.
fn splits(site: &ConvSite, tile: &ConvTile, matrices: Matrices, caps: &Caps) -> usize {
    let steps = site.blocks.ins.div_ceil(matrices.depth() / 4);
    let others = [site.samples, site.blocks.outs];
    let groups = workgroups(tile, matrices.planes, site.spatial, others);
    let wanted = caps.busy_groups().div_ceil(groups).min(steps);
    // as many as have something to sum
    let wanted = steps.div_ceil(steps.div_ceil(wanted));
    let bound = |count: &usize| {
        *count == 1 || (site.partial(*count).words() * 4) as u64 <= caps.max_binding
    };
    (1..=wanted).rev().find(bound).unwrap_or(1)
}

/// Sets the tile of a key.
pub fn set(mut key: KernelKey, spec: &ConvSpec, tile: &ConvTile, matrices: Matrices) -> KernelKey {
    let ConvSpec { kernel: [kd, kh, kw], stride: [sd, sh, sw], .. } = *spec;
    let Jobs { rows, columns, vox, out } = matrices.jobs();
    key.file = "conv_coop.wgsl";
    key.overrides.retain(|(name, _)| !["KD", "KH", "SD", "SH"].contains(name));
    let consts = [
        ("SIDE", matrices.kind.side),
        ("BITS", matrices.kind.bits),
        ("ROWS", rows),
        ("COLUMNS", columns),
        ("VOX", vox),
        ("OUT", out),
        ("STEPS", matrices.depth() / matrices.kind.side),
        ("TD", matrices.planes),
        ("TH", tile.lines),
        ("TW", tile.vox),
        ("PITCH", Plane::new(spec, tile, matrices).pitch),
        ("KD", kd),
        ("KH", kh),
        ("KW", kw),
        ("SD", sd),
        ("SH", sh),
        ("SW", sw),
        ("TAPS", matrices.taps),
    ];
    let set = |key: KernelKey, (name, value): (&'static str, usize)| key.tile(name, value as u32);
    consts.into_iter().fold(key, set).group(matrices.group)
}

#[cfg(test)]
mod tests {
    use super::super::super::common::distinct;
    use super::super::super::load::ChannelBlocks;
    use super::super::site::Geometry;
    use super::*;
    use crate::engine::shader::{Cooperative, needs, reflect, validate};

    fn site(spec: ConvSpec, transposed: bool, spatial: [usize; 3], blocks: [usize; 2]) -> ConvSite {
        let [ins, outs] = blocks;
        let (geometry, blocks) = (Geometry { spec, transposed }, ChannelBlocks { ins, outs });
        ConvSite { geometry, samples: 2, spatial, blocks, lanes: 4, loads: 1 }
    }

    fn caps(f32: u32, f16: u32, subgroup_size: u32) -> Caps {
        Caps { cooperative: Cooperative { f32, f16 }, subgroup_size, ..Caps::default() }
    }

    #[test]
    fn matrices_are_used_where_they_are_and_halves_where_tensors_are() {
        let same = ConvSpec::same();
        let count = |caps: &Caps, dtype, blocks| {
            cooperative_tiles(&site(same, false, [20, 28, 20], blocks), caps, dtype).len()
        };
        let (single, half) = (DType::F32, DType::F16);
        assert_eq!(count(&caps(0, 0, 32), half, [8, 16]), 0);
        // f16 factors never serve tensors in f32
        assert_eq!(count(&caps(0, 16, 32), single, [8, 16]), 0);
        assert_eq!(count(&caps(8, 16, 32), half, [3, 16]), 0);
        assert_eq!(count(&caps(8, 16, 32), half, [16, 3]), 0);
        // 64 channels where there are more than 32; two sizes of workgroups where subgroups vary
        assert_eq!(count(&caps(8, 16, 32), single, [8, 8]), 1);
        assert_eq!(count(&caps(8, 16, 32), half, [8, 9]), 4);
        assert_eq!(count(&caps(0, 16, 0), half, [8, 9]), 4);
        // a strided input gradient has parities
        let down = site(ConvSpec::down([1, 2, 1]), true, [20, 28, 20], [8, 8]);
        assert!(cooperative_tiles(&down, &caps(8, 16, 32), half).is_empty());
        // never the first
        let first = site(same, false, [20, 28, 20], [8, 8]).tiles(&caps(8, 16, 32), half)[0];
        assert!(!matches!(first.method, ConvMethod::Cooperative(_)));
    }

    /// Every tile is valid within the portable limits, makes whole boxes, takes what memory the plan thinks, and does not come twice.
    #[test]
    fn tiles_are_valid_and_fit() {
        let flat = ConvSpec {
            kernel: [1, 3, 3],
            pad_lo: [0, 1, 1],
            pad_hi: [0, 1, 1],
            ..ConvSpec::same()
        };
        let specs = [ConvSpec::same(), flat, ConvSpec::down([2; 3]), ConvSpec::down([2, 1, 1])];
        for (spec, side, dtype) in specs
            .into_iter()
            .flat_map(|spec| [8, 16].map(|side| (spec, side)))
            .flat_map(|(spec, side)| [DType::F16, DType::F32].map(|dtype| (spec, side, dtype)))
        {
            for spatial in [[1, 1, 1], [5, 7, 5], [10, 14, 10], [3, 192, 160], [99, 2, 3]] {
                let site = site(spec, false, spatial, [32, 16]);
                let tiles = cooperative_tiles(&site, &caps(side, side, 0), dtype);
                assert_eq!(tiles.len(), if dtype == DType::F16 { 8 } else { 4 }, "{site:?}");
                assert_eq!(distinct(tiles.clone()).len(), tiles.len());
                for tile in tiles {
                    let ConvMethod::Cooperative(matrices) = tile.method else { panic!("{tile}") };
                    let Jobs { rows, columns, vox, out } = matrices.jobs();
                    assert_eq!(rows * columns, JOBS);
                    assert_eq!(columns * out * matrices.kind.side, 4 * tile.out);
                    assert_eq!(rows * vox % matrices.planes, 0, "{tile}");
                    assert!(matrices.splits * matrices.depth() / 4 <= 32, "{tile}");
                    let key = set(KernelKey::new("conv_coop.wgsl"), &spec, &tile, matrices);
                    assert!(needs(&key).unwrap().cooperative);
                    for key in [key.clone(), key.clone().set("TRANSPOSE", 1)] {
                        validate(&key).unwrap_or_else(|error| panic!("{tile}: {error}"));
                    }
                    let bytes = reflect(&key).unwrap().workgroup_bytes as usize;
                    assert_eq!(bytes, matrices.bytes(&spec, &tile), "{tile}");
                }
            }
        }
    }

    /// Where a plane is not much larger than a matrix, one workgroup makes several, and parts of the input keep an adapter busy.
    #[test]
    fn deep_levels_fill_matrices_and_adapters() {
        let caps = caps(0, 16, 32);
        for (spatial, blocks) in [([20, 28, 20], 16), ([10, 14, 10], 32), ([5, 7, 5], 64)] {
            let site = site(ConvSpec::same(), false, spatial, [blocks; 2]);
            for tile in cooperative_tiles(&site, &caps, DType::F16) {
                let ConvMethod::Cooperative(matrices) = tile.method else { panic!("{tile}") };
                let others = [site.samples, blocks];
                let groups = workgroups(&tile, matrices.planes, spatial, others);
                let busy = 4 * groups * matrices.splits >= 3 * caps.busy_groups();
                assert!(busy, "{tile}: {groups}");
                let tiles = site.samples * blocks.div_ceil(tile.out);
                let useful = spatial.iter().product::<usize>() * tiles;
                let share = useful as f64 / (groups * matrices.positions()) as f64;
                assert!(share > 0.45, "{spatial:?} {tile}: {share}");
            }
        }
    }
}
