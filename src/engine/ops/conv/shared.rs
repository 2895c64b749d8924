//! Convolutions whose subgroups share loads: forward, and input gradients where all strides are 1.

use super::super::subgroup::{SharedRow, Subgroup};
use super::spec::{ConvSpec, sizes};
use super::tile::{ConvMethod, ConvTile};
use crate::base::Result;
use crate::engine::graph::{Dispatch, Lowering, Portion, fold};
use crate::engine::shader::KernelKey;

/// A convolution, or an input gradient as the convolution that it is.
pub struct SharedConv {
    pub spec: ConvSpec,
    /// Lanes in use of an input block.
    pub lanes: u32,
    /// Leading padding.
    pub pad: [usize; 3],
    /// Sizes of what is read and of what is made.
    pub inner: [usize; 3],
    pub outer: [usize; 3],
}

impl SharedConv {
    /// The dispatch for output and input blocks, with the switches of a key.
    pub fn dispatch(
        &self,
        lowering: &Lowering<'_>,
        piece: &Portion<2>,
        label: String,
        key: KernelKey,
        tile: ConvTile,
    ) -> Result<Dispatch> {
        let ConvTile { method, vox, out, .. } = tile;
        let ConvSpec { stride: [_, stride, sw], kernel: [_, _, kw], .. } = self.spec;
        let [depth, height, width] = self.outer;
        let group = Subgroup::new(height, lowering.caps, &label)?;
        let quads = width.div_ceil(vox);
        let groups = group.groups(piece.samples * depth * height.div_ceil(group.run) * quads);
        let tiles = piece.runs[0].count.div_ceil(out);
        let inputs = (vox - 1) * sw + kw;
        let row = |columns| SharedRow { inputs, columns, stride };
        let key = match method {
            ConvMethod::Winograd => group
                .key(key, "conv_winograd_subgroups.wgsl", row(out * 4))
                .tile("PAIRS", (vox / 2) as u32),
            _ => group
                .key(key, "conv_subgroups.wgsl", row(out * self.lanes as usize))
                .tile("SW", sw as u32)
                .tile("CIN", self.lanes)
                .tile("TAPS", if self.lanes < 4 { 3 } else { 1 }),
        };
        let key = key.tile("VOX", vox as u32).tile("OUT", out as u32);
        let dispatch = Dispatch::new(label, key, fold(groups * tiles, lowering.caps)?)
            .param("tiles", tiles)
            .param("quads", quads);
        Ok(sizes(dispatch, self.inner, self.outer, self.pad))
    }
}
