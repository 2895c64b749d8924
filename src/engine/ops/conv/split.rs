//! Convolutions that sum parts of the input blocks apart: where the parts go, and their sum.

use super::super::common::WORKGROUP;
use crate::base::Result;
use crate::engine::graph::{Bind, Dispatch, Lowering, fold};
use crate::engine::shader::KernelKey;

/// Where a convolution writes to.
pub struct Target {
    pub bind: Bind,
    /// Vectors before it.
    pub base: usize,
    /// Channel blocks of a sample there.
    pub blocks: usize,
}

impl Target {
    /// Binds it.
    pub fn bind(self, dispatch: Dispatch) -> Dispatch {
        dispatch
            .bind("out", self.bind)
            .param("out_base", self.base)
            .param("out_blocks", self.blocks)
    }
}

/// The sum of what parts of the input blocks make.
pub struct SplitSum {
    pub samples: usize,
    /// Output blocks, and where their biases begin.
    pub outs: usize,
    pub first: usize,
    pub voxels: usize,
    pub splits: usize,
}

impl SplitSum {
    /// A kernel that writes a part: what is added at last, by switches that are off unless set, is left to the sum.
    pub fn part(mut key: KernelKey) -> KernelKey {
        key.overrides.retain(|(name, _)| !["BIAS", "ACC"].contains(name));
        key
    }

    /// Words of all parts.
    pub fn words(&self) -> usize {
        self.splits * self.samples * self.outs * self.voxels * 4
    }

    /// Where the parts are written.
    pub fn target(&self, lowering: &Lowering<'_>) -> Result<Target> {
        let [parts] = lowering.scratch()?;
        Ok(Target { bind: lowering.whole(parts), base: 0, blocks: self.outs })
    }

    /// The dispatch that sums them; `whole` is the convolution's kernel as it would be without parts.
    pub fn dispatch(
        &self,
        lowering: &Lowering<'_>,
        whole: &KernelKey,
        bias: Bind,
        target: Target,
    ) -> Result<Dispatch> {
        let [parts] = lowering.scratch()?;
        let set = |name| whole.overrides.iter().find(|(known, _)| *known == name);
        let value = |name| set(name).map_or(0, |(_, value)| *value);
        let key =
            KernelKey::new("conv_sum.wgsl").set("BIAS", value("BIAS")).set("ACC", value("ACC"));
        let [output] = lowering.outputs()?;
        let label = format!("parts of {}", lowering.name(output));
        let threads = self.samples * self.outs * self.voxels;
        let groups = fold(threads.div_ceil(WORKGROUP), lowering.caps)?;
        let dispatch = Dispatch::new(label, key, groups)
            .bind("src", lowering.whole(parts))
            .bind("bias", bias)
            .param("n", self.samples)
            .param("outs", self.outs)
            .param("voxels", self.voxels)
            .param("splits", self.splits)
            .param("weight_out", self.first);
        let words = self.words() as u64;
        Ok(target.bind(dispatch).work(words, words * 4 + threads as u64 * 16))
    }
}
