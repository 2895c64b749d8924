//! Tiles of the weight gradients of convolutions with three taps: candidates for a shape on an adapter, the default first.

use std::fmt::{Display, Formatter};

use super::super::common::distinct;
use super::super::load::ChannelBlocks;
use super::super::subgroup::sharing;
use super::spec::ConvSpec;
use super::weight_boxes::{ConvWeightSite, WeightBoxes};
use crate::engine::graph::Caps;

/// How a weight gradient is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvWeightTile {
    /// Threads or subgroups walk over the lines of a part.
    Lines(LineTile),
    /// `conv_weight_tiled.wgsl`: a workgroup loads boxes of both factors once.
    Boxes(WeightBoxes),
}

/// What walks over lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineTile {
    /// `conv_weight.wgsl`: a thread owns `out` output blocks and `lines` taps along H, and loads all that it needs.
    Direct { out: usize, lines: usize },
    /// `conv_weight_subgroups.wgsl`: a subgroup loads the output gradient once, `vox` neighbours at a time.
    Shared { out: usize, vox: usize },
    /// `conv_weight_winograd_subgroups.wgsl`: likewise; two neighbours along W take four products.
    Winograd { out: usize, vox: usize },
}

impl Display for ConvWeightTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lines(tile) => write!(f, "{tile}"),
            Self::Boxes(boxes) => write!(f, "{boxes}"),
        }
    }
}

impl Display for LineTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct { out, lines } => write!(f, "direct OUT={out} LINES={lines}"),
            Self::Shared { out, vox } => write!(f, "shared VOX={vox} OUT={out}"),
            Self::Winograd { out, vox } => write!(f, "winograd VOX={vox} OUT={out}"),
        }
    }
}

impl ConvWeightSite {
    /// Tiles that can compute the shape, the default first.
    pub fn candidates(&self, caps: &Caps) -> Vec<ConvWeightTile> {
        let ConvSpec { kernel, .. } = self.spec;
        let few = LineTile::Direct { out: 1, lines: 1 };
        let many = LineTile::Direct { out: self.blocks.outs.min(2), lines: kernel[1] };
        let boxed = kernel == [3; 3] && !caps.software && !caps.short_kernels;
        let lines = match (sharing(caps), caps.software) {
            (Some(_), _) if kernel[2] == 3 => [self.shared().as_slice(), &[many, few]].concat(),
            (_, true) => vec![many, few],
            _ if caps.short_kernels => vec![few],
            // boxes are several times as fast
            _ if boxed => Vec::new(),
            // what `many` keeps does not fit the registers of all GPUs
            _ => vec![few, many],
        };
        let boxes = if boxed { WeightBoxes::all(self, caps) } else { Vec::new() };
        let boxes = boxes.into_iter().map(ConvWeightTile::Boxes);
        distinct(boxes.chain(lines.into_iter().map(ConvWeightTile::Lines)).collect())
    }

    /// The same count of products either way.
    fn shared(&self) -> [LineTile; 2] {
        let ChannelBlocks { ins, outs } = self.blocks;
        let all = self.lanes == 4 || ins > 1;
        let (wide, flat) = ((4, 4), (8, 2));
        let both = if outs < 8 { [wide, flat] } else { [flat, wide] };
        both.map(|(out, vox)| match self.spec.stride[2] {
            1 if all => LineTile::Winograd { out: outs.min(out), vox },
            _ => LineTile::Shared { out: outs.min(out), vox },
        })
    }
}

impl LineTile {
    /// Threads that one part takes.
    pub fn threads(&self, spec: &ConvSpec, blocks: ChannelBlocks, caps: &Caps) -> usize {
        let ChannelBlocks { ins, outs } = blocks;
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

    fn first(spec: ConvSpec, lanes: u32, caps: &Caps) -> ConvWeightTile {
        let blocks = ChannelBlocks { ins: 1, outs: 8 };
        ConvWeightSite { spec, spatial: [5, 9, 20], blocks, lanes }.candidates(caps)[0]
    }

    fn software(subgroup_size: u32) -> Caps {
        Caps { software: true, subgroup_size, ..Caps::default() }
    }

    #[test]
    fn weight_gradients_share_loads_whatever_the_stride() {
        let (same, down) = (ConvSpec::same(), ConvSpec::down([2; 3]));
        let caps = software(8);
        let lines = ConvWeightTile::Lines;
        assert_eq!(first(same, 4, &caps), lines(LineTile::Winograd { out: 8, vox: 2 }));
        assert_eq!(first(same, 1, &caps), lines(LineTile::Shared { out: 8, vox: 2 }));
        assert_eq!(first(down, 4, &caps), lines(LineTile::Shared { out: 8, vox: 2 }));
        let direct = |tile| matches!(tile, ConvWeightTile::Lines(LineTile::Direct { .. }));
        assert!(direct(first(down, 4, &software(0))));
    }

    #[test]
    fn hardware_loads_boxes_wherever_there_are_three_taps() {
        let boxes = |tile| matches!(tile, ConvWeightTile::Boxes(_));
        for spec in [ConvSpec::same(), ConvSpec::down([1, 2, 2])] {
            assert!([1, 2, 4].into_iter().all(|lanes| boxes(first(spec, lanes, &Caps::default()))));
        }
        let flat = ConvSpec { kernel: [1, 3, 3], pad_lo: [0, 1, 1], ..ConvSpec::same() };
        assert!(!boxes(first(flat, 4, &Caps::default())));
        // SwiftShader's compiler took minutes and gigabytes for boxes, and for all lines of taps
        let short = Caps { short_kernels: true, ..Caps::default() };
        let blocks = ChannelBlocks { ins: 8, outs: 8 };
        let site = ConvWeightSite { spec: ConvSpec::same(), spatial: [5, 9, 20], blocks, lanes: 4 };
        let few = LineTile::Direct { out: 1, lines: 1 };
        assert_eq!(site.candidates(&short), [ConvWeightTile::Lines(few)]);
    }
}
