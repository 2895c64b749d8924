//! Tiles of the convolutions with three taps: candidates for a shape on an adapter, the default first.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::conv::ConvSpec;
use super::distinct;
use crate::engine::graph::Caps;
use crate::engine::shader::{Choice, KernelKey};
use crate::{Error, Result};

/// How a convolution or its input gradient is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// `conv.wgsl` or `conv_input.wgsl`: a thread loads the weights that it needs.
    Direct,
    /// `conv_subgroups.wgsl` or `conv_input_subgroups.wgsl`: a subgroup loads weights and rows once.
    Shared,
    /// `conv_winograd_subgroups.wgsl`: likewise; two outputs along W take four products.
    Winograd,
}

/// What one thread makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub kernel: Kernel,
    /// Neighbours along W.
    pub vox: usize,
    /// Lines along H.
    pub lines: usize,
    /// Output blocks.
    pub out: usize,
}

impl Display for Tile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { vox, lines, out, .. } = self;
        match self.kernel {
            Kernel::Direct => write!(f, "direct VOX={vox} LINES={lines} OUT={out}"),
            Kernel::Shared => write!(f, "shared VOX={vox} OUT={out}"),
            Kernel::Winograd => write!(f, "winograd VOX={vox} OUT={out}"),
        }
    }
}

/// What tiles depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub spec: ConvSpec,
    /// Whether it is the input gradient.
    pub transposed: bool,
    /// Samples and size of what is made.
    pub samples: usize,
    pub spatial: [usize; 3],
    /// Channel blocks that are read and made.
    pub ins: usize,
    pub outs: usize,
    /// Lanes in use of an input block.
    pub lanes: u32,
}

/// Output blocks that one thread keeps in registers.
pub(super) fn out_tile(outs: usize) -> usize {
    outs.min(4)
}

/// Lanes of a subgroup where its invocations can share what each of them loaded.
pub(super) fn sharing(caps: &Caps) -> Option<usize> {
    let lanes = caps.subgroup_size;
    (caps.software && (4..=64).contains(&lanes) && lanes.is_power_of_two())
        .then_some(lanes as usize)
}

/// What [`sharing`] says, where a tile was chosen that needs it.
pub(super) fn shared(caps: &Caps, name: &str) -> Result<usize> {
    sharing(caps).ok_or_else(|| Error::Internal(format!("{name}: no subgroups to share loads")))
}

/// What the kernels that share loads ride on.
pub(super) struct Subgroup {
    /// Its invocations.
    pub lanes: usize,
    /// Those that are neighbours along H.
    pub run: usize,
}

impl Subgroup {
    /// For `height` lines of what the kernel `name` makes.
    pub fn new(height: usize, caps: &Caps, name: &str) -> Result<Self> {
        let lanes = shared(caps, name)?;
        Ok(Self { lanes, run: shared_run(height, lanes) })
    }

    /// Workgroups for so many runs of lines.
    pub fn groups(&self, runs: usize) -> usize {
        runs.div_ceil(self.lanes / self.run)
    }

    /// The key of such a kernel: rows of `row` inputs, `columns` weights a tap, the stride `sh` along H; three taps there are a given.
    pub fn key(
        &self,
        mut key: KernelKey,
        file: &'static str,
        [row, columns, sh]: [usize; 3],
    ) -> KernelKey {
        key.file = file;
        key.overrides.retain(|(name, _)| !["KH", "SH"].contains(name));
        let Self { lanes, run } = self;
        key.tile("SUB", *lanes as u32)
            .tile("ROW", row as u32)
            .tile("ROUNDS", columns.div_ceil(*lanes) as u32)
            .tile("RUN", *run as u32)
            .tile("RUNS", (lanes / run) as u32)
            .tile("CHUNKS", row.div_ceil(*run) as u32)
            .tile("EDGES", 3 - sh as u32)
            .tile("SH", sh as u32)
    }
}

/// Neighbours along H that share rows of three, of the lanes of a subgroup: of the counts that divide these, the one that wastes
/// least, where two rows more than its own cost a run as much as its own do.
fn shared_run(height: usize, lanes: usize) -> usize {
    let counts = (0..=lanes.ilog2()).rev().map(|power| 1 << power);
    counts.min_by_key(|run| height.div_ceil(*run) * (run + 2)).unwrap_or(1)
}

impl Shape {
    /// The tile for what rides on the loads.
    pub fn choose(&self, switches: &str, caps: &Caps) -> Result<(Tile, Arc<Choice>)> {
        let family = if self.transposed { "conv-input" } else { "conv" };
        let Self { samples, spatial: [d, h, w], ins, outs, .. } = self;
        let [_, _, kw] = self.spec.kernel;
        let [_, _, sw] = self.spec.stride;
        let shape = format!("{samples}x{d}x{h}x{w} {ins}>{outs} KW{kw} SW{sw}{switches}");
        caps.choose(family, shape, &self.candidates(caps))
    }

    /// Tiles that can compute the shape, the default first.
    pub fn candidates(&self, caps: &Caps) -> Vec<Tile> {
        let mut tiles = Vec::new();
        if sharing(caps).is_some() && self.spec.kernel == [3; 3] {
            tiles.extend(if self.is_winograd() { self.winograd() } else { self.shared() });
        }
        tiles.extend(if caps.software { self.direct_software() } else { self.direct() });
        distinct(tiles)
    }

    fn is_winograd(&self) -> bool {
        let ConvSpec { stride, .. } = self.spec;
        let strides = if self.transposed { stride == [1; 3] } else { stride[2] == 1 };
        strides && self.lanes == 4
    }

    fn shared(&self) -> Vec<Tile> {
        let (out, widths) = if self.transposed {
            let step = self.spec.stride[2];
            let widths = [(5, 61), (4, 49), (2, 31), (1, 20)];
            (self.outs.min(4), widths.map(|(vox, cost)| (vox * step, cost)).to_vec())
        } else {
            (self.outs.min(8), vec![(5, 40), (4, 33), (7, 54), (3, 27), (10, 89)])
        };
        self.tiles(Kernel::Shared, out, &widths)
    }

    fn winograd(&self) -> Vec<Tile> {
        let widths = [(8, 75), (6, 57), (4, 43), (10, 114), (2, 31)];
        self.tiles(Kernel::Winograd, out_tile(self.outs), &widths)
    }

    /// Tiles of the counts of neighbours along W that cost least, given with what a line of each was found to cost.
    fn tiles(&self, kernel: Kernel, out: usize, widths: &[(usize, usize)]) -> Vec<Tile> {
        let mut widths = widths.to_vec();
        widths.sort_by_key(|(vox, cost)| self.spatial[2].div_ceil(*vox) * cost);
        let tile = |(vox, _)| Tile { kernel, vox, lines: 1, out };
        widths.into_iter().map(tile).take(2).collect()
    }

    /// Where loads are dear: two lines, so that a weight that was loaded serves both, of the count up to 10 that wastes least.
    fn direct_software(&self) -> Vec<Tile> {
        let step = if self.transposed { self.spec.stride[2] } else { 1 };
        let width = self.spatial[2];
        let waste = |count: usize| width.next_multiple_of(count) - width;
        let mut widths: Vec<usize> = (1..=10 / step).map(|n| n * step).collect();
        widths.sort_by_key(|count| (waste(*count), 10 - count));
        let lines = if self.height() > 1 { 2 } else { 1 };
        let tile = |vox| Tile { kernel: Kernel::Direct, vox, lines, out: out_tile(self.outs) };
        widths.into_iter().take(2).map(tile).collect()
    }

    /// Lines of one parity.
    fn height(&self) -> usize {
        let stride = if self.transposed { self.spec.stride[1] } else { 1 };
        self.spatial[1].div_ceil(stride)
    }

    fn direct(&self) -> Vec<Tile> {
        let out = out_tile(self.outs);
        let tile = |(vox, lines, out)| Tile { kernel: Kernel::Direct, vox, lines, out };
        let mut tiles = vec![(4, 1, out), (2, 1, out), (8, 1, out)];
        if self.height() > 1 {
            tiles.push((4, 2, out));
        }
        if out > 2 {
            tiles.push((4, 1, 2));
        }
        tiles.into_iter().map(tile).collect()
    }
}

/// How a weight gradient is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WeightTile {
    /// `conv_weight.wgsl`: a thread owns `out` output blocks and `lines` taps along H, and loads all that it needs.
    Direct { out: usize, lines: usize },
    /// `conv_weight_subgroups.wgsl`: a subgroup loads the output gradient once, `vox` neighbours at a time.
    Shared { out: usize, vox: usize },
    /// `conv_weight_winograd_subgroups.wgsl`: likewise; two neighbours along W take four products.
    Winograd { out: usize, vox: usize },
}

impl Display for WeightTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct { out, lines } => write!(f, "direct OUT={out} LINES={lines}"),
            Self::Shared { out, vox } => write!(f, "shared VOX={vox} OUT={out}"),
            Self::Winograd { out, vox } => write!(f, "winograd VOX={vox} OUT={out}"),
        }
    }
}

impl WeightTile {
    /// Tiles for a convolution of `ins` input blocks of `lanes` lanes in use, the default first.
    pub fn candidates(
        spec: &ConvSpec,
        [ins, outs]: [usize; 2],
        lanes: u32,
        caps: &Caps,
    ) -> Vec<Self> {
        let mut tiles = Vec::new();
        if sharing(caps).is_some() && spec.kernel[2] == 3 {
            let all = lanes == 4 || ins > 1;
            // the same count of products either way
            let (wide, flat) = ((4, 4), (8, 2));
            let both = if outs < 8 { [wide, flat] } else { [flat, wide] };
            tiles.extend(both.map(|(out, vox)| match spec.stride[2] {
                1 if all => Self::Winograd { out: outs.min(out), vox },
                _ => Self::Shared { out: outs.min(out), vox },
            }));
        }
        let few = Self::Direct { out: 1, lines: 1 };
        let many = Self::Direct { out: outs.min(2), lines: spec.kernel[1] };
        tiles.extend(if caps.software { [many, few] } else { [few, many] });
        distinct(tiles)
    }

    /// Threads that one part takes.
    pub fn threads(&self, spec: &ConvSpec, [ins, outs]: [usize; 2], caps: &Caps) -> usize {
        let taps = spec.kernel[0] * spec.kernel[1];
        match *self {
            Self::Direct { out, lines } => ins * outs.div_ceil(out) * taps / lines,
            Self::Shared { out, .. } | Self::Winograd { out, .. } => {
                (ins * taps).next_multiple_of(sharing(caps).unwrap_or(1)) * outs.div_ceil(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(spec: ConvSpec, width: usize, transposed: bool) -> Shape {
        let spatial = [5, 9, width];
        Shape { spec, transposed, samples: 1, spatial, ins: 4, outs: 4, lanes: 4 }
    }

    fn software(subgroup_size: u32) -> Caps {
        Caps { software: true, subgroup_size, ..Caps::default() }
    }

    #[test]
    fn defaults_follow_the_adapter() {
        let first = |shape: Shape, caps: &Caps| shape.candidates(caps)[0];
        let same = shape(ConvSpec::same(), 40, false);
        assert_eq!(first(same, &Caps::default()).kernel, Kernel::Direct);
        assert_eq!(first(same, &software(0)).kernel, Kernel::Direct);
        assert_eq!(first(same, &software(12)).kernel, Kernel::Direct);
        assert_eq!(first(same, &software(8)).kernel, Kernel::Winograd);
        assert_eq!(
            first(same, &Caps { subgroup_size: 32, ..Caps::default() }).kernel,
            Kernel::Direct
        );
        assert_eq!(first(same, &software(8)).vox, 8);
        assert_eq!(first(shape(ConvSpec::same(), 5, false), &software(8)).vox, 6);
    }

    #[test]
    fn runs_fill_the_lines() {
        assert_eq!([56, 28, 7, 3, 1].map(|height| shared_run(height, 8)), [8, 8, 8, 4, 1]);
        assert_eq!(shared_run(100, 64), 16);
        assert_eq!(shared_run(9, 64), 16);
    }

    #[test]
    fn strides_that_the_transform_cannot_do_go_the_direct_way() {
        let caps = software(8);
        let down = |stride, transposed| shape(ConvSpec::down(stride), 20, transposed);
        let winograd = |shape: Shape| {
            shape.candidates(&caps).iter().any(|tile| tile.kernel == Kernel::Winograd)
        };
        assert!(winograd(down([2, 2, 1], false)) && winograd(down([1, 1, 1], true)));
        assert!(!winograd(down([2, 2, 1], true)) && !winograd(down([1, 1, 2], false)));
        assert!(!winograd(Shape { lanes: 1, ..shape(ConvSpec::same(), 20, false) }));
        for shape in [down([2; 3], true), down([1, 1, 2], false)] {
            assert_eq!(shape.candidates(&caps)[0].kernel, Kernel::Shared);
        }
    }

    #[test]
    fn weight_gradients_share_loads_whatever_the_stride() {
        let first = |spec: ConvSpec, lanes, caps: &Caps| {
            WeightTile::candidates(&spec, [1, 8], lanes, caps)[0]
        };
        let (same, down) = (ConvSpec::same(), ConvSpec::down([2; 3]));
        let caps = software(8);
        assert_eq!(first(same, 4, &caps), WeightTile::Winograd { out: 8, vox: 2 });
        assert_eq!(first(same, 1, &caps), WeightTile::Shared { out: 8, vox: 2 });
        assert_eq!(first(down, 4, &caps), WeightTile::Shared { out: 8, vox: 2 });
        let direct = |tile| matches!(tile, WeightTile::Direct { .. });
        assert!(direct(first(down, 4, &software(0))) && direct(first(same, 4, &Caps::default())));
    }

    /// A tile of an input gradient covers whole strides.
    #[test]
    fn tiles_along_a_stride_are_multiples() {
        for width in 1..40 {
            for caps in [software(0), software(8), Caps::default()] {
                let tiles = shape(ConvSpec::down([2; 3]), width, true).candidates(&caps);
                assert!(tiles.iter().all(|tile| tile.vox % 2 == 0 && tile.vox > 0));
            }
        }
    }
}
