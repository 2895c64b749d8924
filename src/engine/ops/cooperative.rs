//! Cooperative matrices that kernels may multiply, and the workgroups that share a product of them out.

use super::load::ChannelBlocks;
use crate::engine::graph::{Caps, DType};

/// Subgroups among which a workgroup shares its product out.
pub const JOBS: usize = 4;

/// Channel blocks of input and output from which staging both in workgroup memory can pay: 16 channels.
const LEAST: usize = 4;

/// Invocations of a workgroup where subgroups differ in size: four subgroups of 32 or of 64.
const GROUPS: [usize; 2] = [32 * JOBS, 64 * JOBS];

/// Matrices that a workgroup multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixKind {
    /// Rows and columns.
    pub side: usize,
    /// Of a factor.
    pub bits: usize,
    /// Whether a workgroup makes 64 channels, not 32.
    pub wide: bool,
}

impl MatrixKind {
    /// Those for this many channel blocks; none where the adapter has no matrices, or the product is small. Factors are rounded to
    /// f16 only where `dtype` says that tensors are stored so.
    pub fn of(blocks: ChannelBlocks, caps: &Caps, dtype: DType) -> Vec<Self> {
        let ChannelBlocks { ins, outs } = blocks;
        if outs < LEAST || ins < LEAST {
            return Vec::new();
        }
        let halves = if dtype == DType::F16 { caps.cooperative.f16 } else { 0 };
        let sides = [(32, caps.cooperative.f32 as usize), (16, halves as usize)];
        let kinds = sides.into_iter().filter(|(_, side)| *side > 0);
        let kinds =
            kinds.flat_map(|(bits, side)| [false, true].map(|wide| Self { side, bits, wide }));
        kinds.filter(|kind| !kind.wide || outs * 4 > 32).collect()
    }

    /// Output blocks of a workgroup; for a weight gradient input blocks as well.
    pub fn blocks(self) -> usize {
        if self.wide { 16 } else { 8 }
    }
}

/// Invocations of a workgroup that suit an adapter.
pub fn groups(caps: &Caps) -> Vec<usize> {
    match caps.subgroup_size as usize {
        0 => GROUPS.to_vec(),
        lanes => vec![(JOBS * lanes).min(GROUPS[1])],
    }
}
