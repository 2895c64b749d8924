//! Convolutions whose subgroups share loads: forward, and input gradients where all strides are 1.

use super::super::subgroup::{SharedRow, Subgroup};
use super::site::{ConvMethod, ConvTile};
use super::spec::{ConvSpec, sizes};
use super::tile::ConvCall;
use crate::base::Result;
use crate::engine::graph::Dispatch;

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
    /// The dispatch of a call.
    pub fn dispatch(&self, call: ConvCall<'_>) -> Result<Dispatch> {
        let ConvTile { method, vox, out, .. } = call.tile;
        let ConvSpec { stride: [_, stride, sw], kernel: [_, _, kw], .. } = self.spec;
        let [depth, height, width] = self.outer;
        let group = Subgroup::new(height, call.lowering.caps, &call.label)?;
        let quads = width.div_ceil(vox);
        let runs = call.piece.samples * depth * height.div_ceil(group.run) * quads;
        let groups = group.groups(runs) * call.tiles();
        let inputs = (vox - 1) * sw + kw;
        let row = |columns| SharedRow { inputs, columns, stride };
        let key = match method {
            ConvMethod::Winograd => group
                .key(call.key, "conv_winograd_subgroups.wgsl", row(out * 4))
                .tile("PAIRS", (vox / 2) as u32),
            _ => group
                .key(call.key, "conv_subgroups.wgsl", row(out * self.lanes as usize))
                .tile("SW", sw as u32)
                .tile("CIN", self.lanes)
                .tile("TAPS", if self.lanes < 4 { 3 } else { 1 }),
        };
        let key = key.tile("VOX", vox as u32).tile("OUT", out as u32);
        let dispatch = ConvCall { key, ..call }.dispatch(groups, quads)?;
        Ok(sizes(dispatch, self.inner, self.outer, self.pad))
    }
}
