//! The pointwise product of a convolution or its input gradient, and its tiles.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::super::common::{WORKGROUP, distinct, switches};
use super::super::load::ChannelBlocks;
use super::coop::CooperativeTile;
use crate::base::Result;
use crate::engine::graph::{Caps, DType, Dispatch, Lowering, MomentParts, fold};
use crate::engine::shader::{Choice, KernelKey};

/// Weight blocks (4x4) that one thread holds where weights stay in registers.
const HELD: usize = 32;

/// Voxels that a thread walks over where it holds weights.
const STEPS: usize = 32;

/// Channel blocks of input and output from which staging both in workgroup memory can pay: 64 channels.
const SHARED: usize = 16;

/// Lanes along voxels, and as many along output blocks, of `pointwise_shared.wgsl`.
const SIDE: usize = 8;

/// Lanes along voxels, as many as a subgroup has at most, and rows of them that share the input blocks, of `pointwise_split.wgsl`.
const LANES: usize = 64;
const SLICES: usize = 4;

/// Input blocks that a lane of it loads at a time, at most, where it makes one voxel.
const STEP: usize = 8;

/// Output blocks of a lane of it, at most: an output of a workgroup has a lane.
const MOST_SPLIT_OUT: usize = 4;

/// Input blocks from which sharing them out can pay.
const SPLIT_INS: usize = 8;

/// Threads below which most of a large GPU idles.
const IDLE: usize = 16_384;

/// Threads for each input block below which a thread that walks over all of them takes several times as long as workgroups that share
/// them out: the kernel gate's model finds none hopeless above.
const LONELY: usize = 200;

/// Voxels of a sample above which larger workgroups come first.
const MANY_VOXELS: usize = 1 << 19;

/// Steps of a thread where threads are so many: a workgroup adds up the moments of all its steps once.
const WALK: usize = 4;
const MANY_THREADS: usize = 12 * IDLE;

/// Voxels of a sample up to which sharing the input blocks out can pay.
const SPLIT_VOXELS: usize = 16_384;

/// How a workgroup shares a pointwise product out; block counts are of four channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PointwiseTile {
    /// A thread keeps `vox` voxels times `out` output blocks in registers and walks over the input, `steps` times.
    Outputs { vox: usize, out: usize, group: usize, steps: usize },
    /// A thread keeps `out` times `ins` blocks of weights in registers and walks over `steps` voxels.
    Held { out: usize, ins: usize, steps: usize },
    /// A workgroup stages input and weights in its memory; a thread makes `vox` voxels of `out` output blocks.
    Shared { vox: usize, out: usize },
    /// A workgroup's rows share the input blocks out; a thread makes `vox` voxels of `out` output blocks.
    Split { vox: usize, out: usize },
    /// As `Shared`, by cooperative matrices.
    Cooperative(CooperativeTile),
}

impl Display for PointwiseTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Outputs { vox, out, group, steps } => {
                write!(f, "outputs VOX={vox} OUT={out} WG={group}")?;
                if *steps > 1 { write!(f, " steps={steps}") } else { Ok(()) }
            }
            Self::Held { out, ins, steps } => write!(f, "held OUT={out} INS={ins} steps={steps}"),
            Self::Shared { vox, out } => write!(f, "shared VOX={vox} OUT={out}"),
            Self::Split { vox, out } => write!(f, "split VOX={vox} OUT={out}"),
            Self::Cooperative(tile) => write!(f, "{tile}"),
        }
    }
}

impl PointwiseTile {
    fn file(self) -> &'static str {
        match self {
            Self::Outputs { .. } => "pointwise.wgsl",
            Self::Held { .. } => "pointwise_held.wgsl",
            Self::Shared { .. } => "pointwise_shared.wgsl",
            Self::Split { .. } => "pointwise_split.wgsl",
            Self::Cooperative(_) => "pointwise_coop.wgsl",
        }
    }
}

/// Size of a pointwise product.
pub struct Product {
    pub samples: usize,
    pub voxels: usize,
    pub blocks: ChannelBlocks,
    /// Tensors that a load of the input reads.
    pub loads: usize,
    /// Whether it is of an input gradient, which gives no moments along.
    pub transposed: bool,
}

/// Output and input blocks of the tile that loads and stores least, of those that fit `held` blocks of registers. `loads`
/// counts the tensors that one input takes.
fn held(outs: usize, ins: usize, loads: usize, held: usize) -> (usize, usize) {
    let tiles = (1..=outs.min(8)).flat_map(|out| {
        let divides = move |step: &usize| ins.is_multiple_of(*step) && out * step <= held;
        (1..=ins).filter(divides).map(move |step| (out, step))
    });
    let cost = |(out, step): &(usize, usize)| {
        let passes = ins / step;
        outs.div_ceil(*out) * (ins * loads + out * (2 * passes - 1))
    };
    tiles.min_by_key(|tile| (cost(tile), tile.0 * tile.1)).unwrap_or((1, 1))
}

impl Product {
    /// Tiles that can pay, the default first: weights stay in registers where loads are dear, outputs elsewhere.
    fn tiles(&self, caps: &Caps, dtype: DType) -> Vec<PointwiseTile> {
        let mut tiles = if caps.software { self.on_cpu() } else { self.on_hardware(caps) };
        let cooperative = CooperativeTile::tiles(self.blocks, caps, dtype);
        tiles.extend(cooperative.into_iter().map(PointwiseTile::Cooperative));
        distinct(tiles)
    }

    fn outputs(&self, vox: usize, out: usize, group: usize) -> PointwiseTile {
        PointwiseTile::Outputs { vox, out: out.min(self.blocks.outs), group, steps: 1 }
    }

    fn held(&self, registers: usize, steps: usize) -> PointwiseTile {
        let ChannelBlocks { ins, outs } = self.blocks;
        let (out, ins) = held(outs, ins, self.loads, registers);
        PointwiseTile::Held { out, ins, steps }
    }

    fn on_cpu(&self) -> Vec<PointwiseTile> {
        vec![
            self.held(HELD, STEPS),
            self.held(HELD, 2 * STEPS),
            self.held(HELD, STEPS / 2),
            self.held(HELD / 2, STEPS),
            self.held(2 * HELD, STEPS),
            self.outputs(2, 4, WORKGROUP),
            self.outputs(4, 4, WORKGROUP),
        ]
    }

    /// The largest tile that leaves threads enough comes first; where none does, one whose workgroups share the inputs out.
    fn on_hardware(&self, caps: &Caps) -> Vec<PointwiseTile> {
        let Self { samples, voxels, blocks: ChannelBlocks { ins, outs }, .. } = *self;
        let threads = |vox: usize, out: usize| {
            samples * voxels.div_ceil(vox * WORKGROUP) * WORKGROUP * outs.div_ceil(out)
        };
        let mut tiles = vec![
            self.outputs(4, 2, WORKGROUP),
            self.outputs(2, 4, WORKGROUP),
            self.outputs(1, 4, WORKGROUP),
            self.outputs(2, 4, 4 * WORKGROUP),
        ];
        if threads(4, 2) < caps.busy_groups() * WORKGROUP {
            tiles.insert(0, self.outputs(1, 4, WORKGROUP));
        }
        let large = self.outputs(4, 4, WORKGROUP);
        let place = if threads(4, 4) >= IDLE { 0 } else { 1 };
        tiles.insert(place, large);
        if caps.subgroup_size > 0 {
            tiles.splice(0..0, self.measured(threads(4, 2)));
        } else if voxels > MANY_VOXELS {
            // of so many parts a second pass can still merge the moments
            tiles.insert(0, self.outputs(4, 4, 4 * WORKGROUP));
        }
        if ins >= SPLIT_INS && voxels <= SPLIT_VOXELS {
            let split = |vox, out| PointwiseTile::Split { vox, out: outs.min(out) };
            // many outputs of a lane share what it loads, or two voxels what it multiplies: the latter was faster on an NVIDIA H200
            let mut split = vec![split(1, MOST_SPLIT_OUT), split(1, 2), split(2, 2)];
            if caps.subgroup_size > 0 {
                split.rotate_right(1);
            }
            if threads(4, 2) < IDLE {
                tiles.retain(|tile| self.keeps_busy(tile));
                tiles.splice(0..0, split);
            } else {
                tiles.extend(split);
            }
        }
        if outs >= SHARED && ins >= SHARED {
            let shared = [(8, 2), (4, 4)].map(|(vox, out)| PointwiseTile::Shared { vox, out });
            let splits = tiles.iter().any(|tile| matches!(tile, PointwiseTile::Split { .. }));
            tiles.extend(shared.into_iter().filter(|tile| !splits || self.keeps_busy(tile)));
        }
        tiles
    }

    /// What an NVIDIA H200 takes first, of which subgroups have one size as of all such adapters. There the moments of large tensors cost
    /// less in a pass of their own than they do here.
    fn measured(&self, threads: usize) -> Vec<PointwiseTile> {
        let ChannelBlocks { outs, .. } = self.blocks;
        let [small, large] = [self.outputs(2, 4, WORKGROUP), self.outputs(4, 4, WORKGROUP)];
        let (vox, out, group) = (4, outs.min(2), WORKGROUP);
        let few = PointwiseTile::Outputs { vox, out, group, steps: 1 };
        let walks = PointwiseTile::Outputs { vox, out, group, steps: WALK };
        match (self.voxels > MANY_VOXELS, self.transposed) {
            (true, _) if outs <= 4 => vec![small, large],
            (_, true) => vec![large],
            (true, false) => vec![large, small],
            _ if threads >= MANY_THREADS => vec![walks, few],
            _ if self.voxels > WALK * vox * group => vec![few, walks],
            _ => vec![few],
        }
    }

    /// Whether a tile leaves so many threads that it may be near one whose workgroups share the inputs out.
    fn keeps_busy(&self, tile: &PointwiseTile) -> bool {
        let Self { samples, voxels, blocks: ChannelBlocks { ins, outs }, .. } = *self;
        let [vox, out] = match *tile {
            PointwiseTile::Outputs { vox, out, steps, .. } => [vox * steps, out],
            PointwiseTile::Shared { vox, out } => [vox, out],
            _ => return true,
        };
        samples * voxels.div_ceil(vox) * outs.div_ceil(out) >= LONELY * ins
    }

    fn choose(
        &self,
        lowering: &Lowering<'_>,
        key: impl Fn(&'static str) -> KernelKey,
    ) -> Result<(PointwiseTile, Arc<Choice>)> {
        let Self { samples, voxels, blocks: ChannelBlocks { ins, outs }, .. } = self;
        let switches = switches(&key(PointwiseTile::Shared { vox: 1, out: 1 }.file()));
        let shape = format!("{samples}x{voxels} {ins}>{outs}{switches}");
        lowering.choose("pointwise", shape, &self.tiles(lowering.caps, lowering.dtype))
    }

    /// Parts of a channel block whose moments the kernel can give along: what each thread or workgroup makes.
    pub fn moment_parts(
        &self,
        lowering: &Lowering<'_>,
        key: impl Fn(&'static str) -> KernelKey,
    ) -> Result<Option<MomentParts>> {
        Ok(match self.choose(lowering, key)?.0 {
            PointwiseTile::Held { steps, .. } if lowering.caps.software => {
                let count = self.voxels.div_ceil(WORKGROUP * steps) * WORKGROUP;
                Some(MomentParts { count, voxels: None })
            }
            PointwiseTile::Outputs { vox, group, steps, .. } if !lowering.caps.software => {
                let voxels = vox * group * steps;
                Some(MomentParts { count: self.voxels.div_ceil(voxels), voxels: Some(voxels) })
            }
            _ => None,
        })
    }

    /// PointwiseTile, workgroups and their parameters. `key` sets the switches, which all files have.
    pub fn dispatch(
        &self,
        lowering: &Lowering<'_>,
        label: String,
        key: impl Fn(&'static str) -> KernelKey,
    ) -> Result<Dispatch> {
        let Self { samples, voxels, blocks: ChannelBlocks { ins, outs }, .. } = *self;
        let (tile, choice) = self.choose(lowering, &key)?;
        let key = key(tile.file());
        let (key, groups, blocks, steps) = match tile {
            PointwiseTile::Outputs { vox, out, group, steps } => {
                let key = key.tile("VOX", vox as u32).tile("OUT", out as u32).group(group);
                let key = match steps {
                    1 => key,
                    _ => key.section("STEPS").tile("STEPS", steps as u32),
                };
                (key, voxels.div_ceil(group * vox * steps), out, None)
            }
            PointwiseTile::Held { out, ins, steps } => {
                let groups = voxels.div_ceil(WORKGROUP * steps);
                let steps = voxels.div_ceil(WORKGROUP * groups);
                let key = key.tile("INS", ins as u32).tile("OUT", out as u32);
                (key, groups, out, Some(steps))
            }
            PointwiseTile::Shared { vox, out } => {
                let key = key.tile("VOX", vox as u32).tile("OUT", out as u32);
                (key, voxels.div_ceil(SIDE * vox), SIDE * out, None)
            }
            PointwiseTile::Split { vox, out } => {
                let of_row = ins.div_ceil(SLICES);
                let step = of_row.div_ceil(of_row.div_ceil(STEP / vox));
                let even = ins.is_multiple_of(SLICES * step);
                let key = key
                    .tile("VOX", vox as u32)
                    .tile("OUT", out as u32)
                    .tile("STEP", step as u32)
                    .tile("EVEN", even as u32);
                (key, voxels.div_ceil(LANES * vox), out, None)
            }
            PointwiseTile::Cooperative(tile) => {
                (tile.set(key), voxels.div_ceil(tile.voxels()), tile.blocks(), None)
            }
        };
        let tiles = outs.div_ceil(blocks);
        let dispatch = Dispatch::new(label, key, fold(groups * tiles * samples, lowering.caps)?)
            .chosen(choice)
            .param("voxels", voxels)
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
    use super::*;

    #[test]
    fn tiles_fit_and_divide() {
        for outs in 1..40 {
            for ins in 1..40 {
                let (out, step) = held(outs, ins, 1, HELD);
                assert!(out <= outs && ins % step == 0 && out * step <= 32);
            }
        }
        assert_eq!(held(4, 8, 1, HELD), (4, 8));
        assert_eq!(held(8, 4, 2, HELD), (8, 4));
    }

    #[test]
    fn staging_is_for_many_channels_and_no_tile_comes_twice() {
        let caps = Caps::default();
        for (ins, outs) in [(1, 1), (4, 4), (16, 16), (16, 4), (40, 20)] {
            let blocks = ChannelBlocks { ins, outs };
            let product =
                Product { samples: 2, voxels: 20_000, blocks, loads: 1, transposed: false };
            let tiles = product.tiles(&caps, DType::F32);
            assert_eq!(distinct(tiles.clone()).len(), tiles.len());
            let staged = tiles.iter().any(|tile| matches!(tile, PointwiseTile::Shared { .. }));
            assert_eq!(staged, ins >= 16 && outs >= 16);
        }
    }

    /// Timing what leaves nearly all of a GPU idle would be a waste; something is always left.
    #[test]
    fn tiles_of_few_threads_are_not_offered_beside_shared_inputs() {
        for (voxels, ins, outs) in [(64, 64, 64), (175, 32, 32), (120, 8, 1), (1400, 16, 16)] {
            let blocks = ChannelBlocks { ins, outs };
            let product = Product { samples: 2, voxels, blocks, loads: 1, transposed: false };
            let tiles = product.tiles(&Caps::default(), DType::F32);
            assert!(matches!(tiles[0], PointwiseTile::Split { .. }));
            assert!(tiles.iter().all(|tile| product.keeps_busy(tile)), "{tiles:?}");
        }
        let blocks = ChannelBlocks { ins: 16, outs: 16 };
        let product = Product { samples: 2, voxels: 11_200, blocks, loads: 1, transposed: false };
        let tiles = product.tiles(&Caps::default(), DType::F32);
        assert!(tiles.iter().any(|tile| matches!(tile, PointwiseTile::Shared { .. })));
    }

    #[test]
    fn inputs_are_shared_out_where_a_gpu_would_idle() {
        let of = |caps: &Caps, voxels, ins, outs| {
            let blocks = ChannelBlocks { ins, outs };
            let product = Product { samples: 2, voxels, blocks, loads: 1, transposed: false };
            product.tiles(caps, DType::F32)[0]
        };
        let first = |voxels, ins, outs| of(&Caps::default(), voxels, ins, outs);
        let outputs = |vox, out| PointwiseTile::Outputs { vox, out, group: WORKGROUP, steps: 1 };
        assert_eq!(first(175, 32, 32), PointwiseTile::Split { vox: 1, out: 4 });
        let fixed = Caps { subgroup_size: 32, ..Caps::default() };
        assert_eq!(of(&fixed, 175, 32, 32), PointwiseTile::Split { vox: 2, out: 2 });
        assert_eq!(of(&fixed, 1400, 16, 16), PointwiseTile::Split { vox: 2, out: 2 });
        let steps = |steps| PointwiseTile::Outputs { vox: 4, out: 2, group: WORKGROUP, steps };
        assert_eq!(of(&fixed, 89_600, 4, 4), steps(1));
        assert_eq!(of(&fixed, 262_144, 8, 8), steps(WALK));
        assert_eq!(of(&fixed, 2_097_152, 8, 4), outputs(2, 4));
        assert_eq!(first(1400, 16, 16), PointwiseTile::Split { vox: 1, out: 4 });
        assert_eq!(first(11_200, 8, 8), outputs(4, 2));
        assert_eq!(first(89_600, 4, 4), outputs(4, 4));
        // one block of inputs is not shared out
        // workgroups for all units of a large GPU come first
        assert_eq!(first(175, 1, 32), outputs(1, 4));
    }
}
