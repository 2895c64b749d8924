//! What a convolution is to be computed as, and on what that depends.

use std::fmt::{Display, Formatter};

use super::super::load::ChannelBlocks;
use super::spec::ConvSpec;
use super::split::SplitSum;

/// How a convolution or its input gradient is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvMethod {
    /// `conv.wgsl` or `conv_input.wgsl`: a thread loads the weights that it needs.
    Direct,
    /// `conv_subgroups.wgsl` or `conv_input_subgroups.wgsl`: a subgroup loads weights and rows once.
    Shared,
    /// `conv_winograd_subgroups.wgsl`: likewise; two outputs along W take four products.
    Winograd,
    /// `conv_staged.wgsl`: a workgroup stages inputs and weights in its memory.
    Staged(Workgroup),
    /// `conv_coop.wgsl`: likewise, by cooperative matrices; a workgroup makes what the tile says.
    Cooperative(Matrices),
}

/// What one thread makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTile {
    pub method: ConvMethod,
    /// Neighbours along W.
    pub vox: usize,
    /// Lines along H.
    pub lines: usize,
    /// Output blocks.
    pub out: usize,
}

impl Display for ConvTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { vox, lines, out, .. } = self;
        match self.method {
            ConvMethod::Direct => write!(f, "direct VOX={vox} LINES={lines} OUT={out}"),
            ConvMethod::Shared => write!(f, "shared VOX={vox} OUT={out}"),
            ConvMethod::Winograd => write!(f, "winograd VOX={vox} OUT={out}"),
            ConvMethod::Staged(group) => {
                let Workgroup { threads: [d, h, w], outs, splits, streamed, halves } = group;
                write!(
                    f,
                    "staged VOX={vox} LINES={lines} OUT={out} {d}x{h}x{w}x{outs} splits={splits}"
                )?;
                f.write_str(if streamed { " streamed" } else { "" })?;
                f.write_str(if halves { " halves" } else { "" })
            }
            ConvMethod::Cooperative(matrices) => {
                let Matrices { side, bits, planes, taps, splits, group, .. } = matrices;
                write!(
                    f,
                    "cooperative f{bits} SIDE={side} channels={} {planes}x{lines}x{vox} TAPS={taps} splits={splits} WG={group}",
                    4 * out
                )
            }
        }
    }
}

/// The threads of a workgroup, and how many workgroups share a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workgroup {
    /// Threads along D, H, W.
    pub threads: [usize; 3],
    /// Threads along output blocks.
    pub outs: usize,
    /// Parts of the input blocks, each summed by workgroups of its own.
    pub splits: usize,
    /// Whether weights, the same for all of the workgroup, are read where they are needed instead of staged.
    pub streamed: bool,
    /// Whether what is staged is in f16, and multiplied so; not where weights are streamed.
    pub halves: bool,
}

/// The cooperative matrices of a workgroup, which stages whole planes and sums parts as [`Workgroup`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrices {
    /// Rows and columns of a matrix.
    pub side: usize,
    /// Of a factor.
    pub bits: usize,
    /// Whether a workgroup makes 64 channels, not 32.
    pub wide: bool,
    /// Planes of what it makes.
    pub planes: usize,
    /// Taps whose weights are staged at a time.
    pub taps: usize,
    pub splits: usize,
    /// Its invocations.
    pub group: usize,
}

impl Workgroup {
    /// Its invocations.
    pub fn invocations(&self) -> usize {
        self.threads.iter().product::<usize>() * self.outs
    }
}

impl ConvTile {
    /// Parts of the input blocks that are summed apart.
    pub fn splits(&self) -> usize {
        match self.method {
            ConvMethod::Staged(group) => group.splits,
            ConvMethod::Cooperative(matrices) => matrices.splits,
            _ => 1,
        }
    }
}

/// What is computed of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub spec: ConvSpec,
    /// Whether it is the input gradient.
    pub transposed: bool,
}

/// What neighbours along W read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub inputs: usize,
    /// Of an input gradient, those before the place of the first neighbour.
    pub first: usize,
}

impl Geometry {
    /// What `vox` neighbours along W read; of an input gradient `vox` is a multiple of the stride.
    pub fn row(&self, vox: usize) -> Row {
        let ConvSpec { kernel: [_, _, kw], stride: [_, _, sw], pad_lo: [_, _, pw], .. } = self.spec;
        if !self.transposed {
            return Row { inputs: (vox - 1) * sw + kw, first: 0 };
        }
        // those before w0/SW that the first voxel's last tap reaches
        let first = (kw - 1).saturating_sub(pw).div_ceil(sw);
        Row { inputs: (vox - 1 + pw + first * sw) / sw + 1, first }
    }

    /// Taps along D and H that one position meets, at most.
    pub fn taps(&self) -> [usize; 2] {
        let ConvSpec { kernel, stride, .. } = self.spec;
        [0, 1].map(|a| if self.transposed { kernel[a].div_ceil(stride[a]) } else { kernel[a] })
    }

    /// Parities of D and H that are computed apart, and the positions of each, of what is made with this size.
    pub fn positions(&self, [d, h, w]: [usize; 3]) -> (usize, [usize; 3]) {
        let [sd, sh, _] = self.spec.stride;
        if !self.transposed {
            return (1, [d, h, w]);
        }
        (sd * sh, [d.div_ceil(sd), h.div_ceil(sh), w])
    }
}

/// What tiles depend on.
#[derive(Debug, Clone, Copy)]
pub struct ConvSite {
    pub geometry: Geometry,
    /// Samples and size of what is made.
    pub samples: usize,
    pub spatial: [usize; 3],
    pub blocks: ChannelBlocks,
    /// Lanes in use of an input block.
    pub lanes: u32,
    /// Tensors that a load of the input reads.
    pub loads: usize,
}

impl ConvSite {
    /// What `splits` parts of the input blocks make.
    pub fn partial(&self, splits: usize) -> SplitSum {
        let voxels = self.spatial.iter().product();
        SplitSum { samples: self.samples, outs: self.blocks.outs, first: 0, voxels, splits }
    }
}
