//! Tiles of the convolutions, and input gradients of stride 1, that multiply cooperative matrices.

use super::super::load::ChannelBlocks;
use super::site::{ConvMethod, ConvSite, ConvTile, Matrices};
use super::spec::ConvSpec;
use super::staged_box::MEMORY;
use crate::engine::graph::{Caps, DType};
use crate::engine::shader::KernelKey;

/// Subgroups among which a workgroup shares its product out.
const JOBS: usize = 4;

/// Channel blocks of input and output from which staging both in workgroup memory can pay: 16 channels.
const LEAST: usize = 4;

/// Invocations of a workgroup where subgroups differ in size: four subgroups of 32 or of 64.
const GROUPS: [usize; 2] = [32 * JOBS, 64 * JOBS];

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
        let [rows, columns, vox, out] = match (self.side, self.bits, self.wide) {
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

    /// Output blocks of a workgroup.
    fn blocks(self) -> usize {
        if self.wide { 16 } else { 8 }
    }

    /// Input channels that are staged at a time: 32 bytes of them, or one matrix.
    pub fn depth(self) -> usize {
        self.side.max(256 / self.bits)
    }

    /// Positions of what a workgroup makes, with those that are thrown away.
    fn positions(self) -> usize {
        let Jobs { rows, vox, .. } = self.jobs();
        rows * vox * self.side
    }

    /// Bytes of workgroup memory for a box of `tile`, of so many taps at a time.
    fn bytes(self, spec: &ConvSpec, tile: &ConvTile, taps: usize) -> usize {
        let (size, padding) = (self.bits / 8, 128 / self.bits);
        let inputs = Plane::new(spec, tile, self).voxels(spec, self) * (self.depth() + padding);
        let weights = taps * self.depth() * (4 * self.blocks() + padding);
        (inputs + weights) * size + JOBS * self.side * self.side * 4
    }

    /// The box that takes least time, of all that fit.
    fn best(self, site: &ConvSite) -> Option<(usize, ConvTile)> {
        let ConvSpec { kernel: [_, kh, kw], .. } = site.geometry.spec;
        let [depth, height, width] = site.spatial;
        let Jobs { rows, vox, .. } = self.jobs();
        let along = |all: usize, most: usize| (1..=most.min(all)).map(move |made| (all, made));
        let mut best: Option<(usize, ConvTile)> = None;
        let planes =
            along(depth, rows * vox).filter(|(_, made)| (rows * vox).is_multiple_of(*made));
        for (_, planes) in planes {
            let most = self.positions() / planes;
            for (_, lines) in along(height, most) {
                for (_, vox) in along(width, most / lines) {
                    for taps in [kw, 1] {
                        let matrices = Self { planes, taps, ..self };
                        let method = ConvMethod::Cooperative(matrices);
                        let tile = ConvTile { method, vox, lines, out: self.blocks() };
                        let plane = Plane::new(&site.geometry.spec, &tile, matrices);
                        let fits = plane.fits(&tile)
                            && matrices.bytes(&site.geometry.spec, &tile, taps) <= MEMORY;
                        if !fits {
                            continue;
                        }
                        let boxes =
                            depth.div_ceil(planes) * height.div_ceil(lines) * width.div_ceil(vox);
                        let time = STAGED * planes * plane.size[0] * plane.size[1]
                            + MULTIPLIED * self.positions() * kh * kw
                            + MEETING * kh * kw / taps;
                        if best.is_none_or(|(least, _)| boxes * time < least) {
                            best = Some((boxes * time, tile));
                        }
                    }
                }
            }
        }
        best
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
        let pitch = if runs_on { size[1] } else { tile.vox.next_multiple_of(matrices.side) };
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
        let last = self.positions - matrices.side;
        let end = (matrices.planes - 1) * height * width
            + (last / self.pitch * sh + kh - 1) * width
            + (last % self.pitch + matrices.side - 1) * sw
            + kw;
        end.max(matrices.planes * height * width)
    }
}

/// Tiles of a site; none where the adapter has no matrices, the product is small, or the input gradient is that of a stride. Factors
/// are rounded to f16 only where `dtype` says that tensors are stored so. Where workgroups are few, they share the input blocks out.
pub fn cooperative_tiles(site: &ConvSite, caps: &Caps, dtype: DType) -> Vec<ConvTile> {
    let ChannelBlocks { ins, outs } = site.blocks;
    let strided = site.geometry.transposed && site.geometry.spec.stride != [1; 3];
    if outs < LEAST || ins < LEAST || strided {
        return Vec::new();
    }
    let halves = if dtype == DType::F16 { caps.cooperative.f16 } else { 0 };
    let groups = match caps.subgroup_size as usize {
        0 => GROUPS.to_vec(),
        lanes => vec![(JOBS * lanes).min(GROUPS[1])],
    };
    let mut tiles = Vec::new();
    for (bits, side) in [(32, caps.cooperative.f32 as usize), (16, halves as usize)] {
        for wide in [false, true] {
            if side == 0 || wide && outs * 4 <= 32 {
                continue;
            }
            let any = Matrices { side, bits, wide, planes: 1, taps: 1, splits: 1, group: 0 };
            let Some((_, tile)) = any.best(site) else { continue };
            let ConvMethod::Cooperative(found) = tile.method else { continue };
            let splits = splits(site, &tile, found, caps);
            tiles.extend(groups.iter().map(|group| {
                let method = ConvMethod::Cooperative(Matrices { splits, group: *group, ..found });
                ConvTile { method, ..tile }
            }));
        }
    }
    tiles
}

/// Workgroups that make `spatial` of so many samples and output blocks.
pub fn workgroups(
    tile: &ConvTile,
    planes: usize,
    spatial: [usize; 3],
    others: [usize; 2],
) -> usize {
    let [depth, height, width] = spatial;
    let boxes = depth.div_ceil(planes) * height.div_ceil(tile.lines) * width.div_ceil(tile.vox);
    boxes * others[0] * others[1].div_ceil(tile.out)
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
        ("SIDE", matrices.side),
        ("BITS", matrices.bits),
        ("ROWS", rows),
        ("COLUMNS", columns),
        ("VOX", vox),
        ("OUT", out),
        ("STEPS", matrices.depth() / matrices.side),
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
                    assert_eq!(columns * out * matrices.side, 4 * tile.out);
                    assert_eq!(rows * vox % matrices.planes, 0, "{tile}");
                    assert!(matrices.splits * matrices.depth() / 4 <= 32, "{tile}");
                    let key = set(KernelKey::new("conv_coop.wgsl"), &spec, &tile, matrices);
                    assert!(needs(&key).unwrap().cooperative);
                    for key in [key.clone(), key.clone().set("TRANSPOSE", 1)] {
                        validate(&key).unwrap_or_else(|error| panic!("{tile}: {error}"));
                    }
                    let bytes = reflect(&key).unwrap().workgroup_bytes as usize;
                    assert_eq!(bytes, matrices.bytes(&spec, &tile, matrices.taps), "{tile}");
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
