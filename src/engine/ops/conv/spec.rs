//! Geometry of a convolution, and how kernels are told of it.

use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Layout};
use crate::engine::shader::KernelKey;

/// Geometry of a convolution; every array is D, H, W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Taps: 1 or 3.
    pub kernel: [usize; 3],
    /// Stride: 1 or 2.
    pub stride: [usize; 3],
    /// Zeros before the first voxel.
    pub pad_lo: [usize; 3],
    /// Zeros after the last voxel.
    pub pad_hi: [usize; 3],
}

impl ConvSpec {
    /// 3x3x3, stride 1, padding 1.
    pub fn same() -> Self {
        Self { kernel: [3; 3], stride: [1; 3], pad_lo: [1; 3], pad_hi: [1; 3] }
    }

    /// 1x1x1.
    pub fn pointwise() -> Self {
        Self { kernel: [1; 3], stride: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] }
    }

    /// The reference's down-sampler: 3x3x3 with zeros (0, 1) where the stride is 2 and (1, 1) where it is 1.
    pub fn down(stride: [usize; 3]) -> Self {
        let pad_lo = stride.map(|s| if s == 2 { 0 } else { 1 });
        Self { kernel: [3; 3], stride, pad_lo, pad_hi: [1; 3] }
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether each output voxel reads one input voxel.
    pub fn is_pointwise(&self) -> bool {
        *self == Self::pointwise()
    }

    /// Output size of an input of this size.
    pub fn output(&self, input: [usize; 3]) -> Result<[usize; 3]> {
        let mut output = [0; 3];
        for axis in 0..3 {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            if ![1, 3].contains(&kernel) || ![1, 2].contains(&stride) {
                return Err(Error::shape("conv", format!("{self:?} is not supported")));
            }
            let padded = input[axis] + self.pad_lo[axis] + self.pad_hi[axis];
            if padded < kernel || self.pad_lo[axis] >= kernel {
                return Err(Error::shape("conv", format!("{self:?} on an input of {input:?}")));
            }
            output[axis] = (padded - kernel) / stride + 1;
        }
        Ok(output)
    }
}

/// Lanes in use where a source has fewer than four channels.
pub fn lanes(layout: &Layout) -> u32 {
    match layout.segments.as_slice() {
        [c @ 1..=2] => *c as u32,
        _ => 4,
    }
}

/// Sizes of what a convolution reads and makes.
pub fn sizes(
    dispatch: Dispatch,
    inner: [usize; 3],
    outer: [usize; 3],
    [pd, ph, pw]: [usize; 3],
) -> Dispatch {
    let [id, ih, iw] = inner;
    let [od, oh, ow] = outer;
    dispatch
        .param("od", od)
        .param("oh", oh)
        .param("ow", ow)
        .param("id", id)
        .param("ih", ih)
        .param("iw", iw)
        .param("pd", pd)
        .param("ph", ph)
        .param("pw", pw)
}

/// Tap counts and strides of D and H as switches.
pub fn taps_key(key: KernelKey, spec: &ConvSpec) -> KernelKey {
    key.set("KD", spec.kernel[0] as u32)
        .set("KH", spec.kernel[1] as u32)
        .set("SD", spec.stride[0] as u32)
        .set("SH", spec.stride[1] as u32)
}

/// The row of inputs that `vox` outputs along W need.
pub fn row_key(key: KernelKey, spec: &ConvSpec, vox: usize) -> KernelKey {
    key.tile("VOX", vox as u32).tile("ROW", ((vox - 1) * spec.stride[2] + spec.kernel[2]) as u32)
}
