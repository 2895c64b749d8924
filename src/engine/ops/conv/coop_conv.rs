//! Convolutions, and input gradients of stride 1, by cooperative matrices.

use super::coop::{set, workgroups};
use super::site::Matrices;
use super::spec::{ConvSpec, sizes};
use super::tile::ConvCall;
use crate::base::Result;
use crate::engine::graph::{Dispatch, fold};

/// A convolution, or an input gradient as the convolution that it is.
pub struct CooperativeConv {
    pub spec: ConvSpec,
    /// Leading padding.
    pub pad: [usize; 3],
    /// Sizes of what is read and of what is made.
    pub inner: [usize; 3],
    pub outer: [usize; 3],
}

impl CooperativeConv {
    /// The dispatch of a call.
    pub fn dispatch(&self, call: ConvCall<'_>, matrices: Matrices) -> Result<Dispatch> {
        let ConvCall { lowering, piece, label, key, tile } = call;
        let [outs, ins] = piece.runs.map(|run| run.count);
        let splits = matrices.splits;
        let others = [piece.samples, outs];
        let groups = workgroups(&tile, matrices.planes, self.outer, others) * splits;
        let key = set(key, &self.spec, &tile, matrices);
        let step = matrices.depth() / 4;
        let dispatch = Dispatch::new(label, key, fold(groups, lowering.caps)?)
            .param("tiles", outs.div_ceil(tile.out))
            .param("splits", splits)
            .param("split_ins", ins.div_ceil(step).div_ceil(splits) * step);
        Ok(sizes(dispatch, self.inner, self.outer, self.pad))
    }
}
