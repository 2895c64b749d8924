//! The kernels that make a patch.

use crate::engine::shader::KernelKey;
use crate::patch::Interpolation;

/// Runs of kernels that have parameters of their own.
#[derive(Clone, Copy)]
pub(super) enum Pass {
    Patch,
    BlurW,
    BlurH,
    BlurD,
    LowRes,
    Moments,
    Merge,
    Intensity,
}

impl Pass {
    /// In the order of their places.
    pub const ALL: [Self; 8] = [
        Self::Patch,
        Self::BlurW,
        Self::BlurH,
        Self::BlurD,
        Self::LowRes,
        Self::Moments,
        Self::Merge,
        Self::Intensity,
    ];

    /// A kernel with the bindings and parameters that all kernels of the pass have.
    pub fn plain(self, interpolation: Interpolation) -> KernelKey {
        match self {
            Self::Patch => patch_key(1, 1, false),
            Self::BlurW | Self::BlurH | Self::BlurD => blur_key(),
            Self::LowRes => low_res_key(interpolation),
            Self::Moments => moments_key(false),
            Self::Merge => moments_key(true),
            Self::Intensity => intensity_key(true, true),
        }
    }
}

pub(super) fn patch_key(channels: usize, taps: u32, elastic: bool) -> KernelKey {
    KernelKey::new("patch.wgsl")
        .tile("CHANNELS", channels as u32)
        .tile("TAPS", taps)
        .set("ELASTIC", u32::from(elastic))
}

pub(super) fn blur_key() -> KernelKey {
    KernelKey::new("blur.wgsl")
}

pub(super) fn low_res_key(interpolation: Interpolation) -> KernelKey {
    KernelKey::new("low_res.wgsl").tile("TAPS", taps(interpolation))
}

pub(super) fn moments_key(merge: bool) -> KernelKey {
    KernelKey::new("lane_moments.wgsl").set("MERGE", u32::from(merge))
}

pub(super) fn intensity_key(moments: bool, noise: bool) -> KernelKey {
    KernelKey::new("intensity.wgsl")
        .set("MOMENTS", u32::from(moments))
        .set("NOISE", u32::from(noise))
}

pub(super) fn taps(interpolation: Interpolation) -> u32 {
    match interpolation {
        Interpolation::Linear => 2,
        Interpolation::Cubic => 4,
    }
}

/// What blocks of so many channels can take.
pub(super) fn keys(channels: &[usize], interpolations: &[Interpolation]) -> Vec<KernelKey> {
    let mut keys = vec![blur_key(), moments_key(false), moments_key(true)];
    for channels in channels {
        keys.push(patch_key(*channels, 1, false));
        for i in interpolations {
            keys.extend([false, true].map(|elastic| patch_key(*channels, taps(*i), elastic)));
        }
    }
    keys.extend(interpolations.iter().map(|i| low_res_key(*i)));
    for moments in [false, true] {
        keys.extend([false, true].map(|noise| intensity_key(moments, noise)));
    }
    keys
}

/// Every kernel that makes patches.
pub fn kernels() -> Vec<KernelKey> {
    keys(&[1, 2, 3, 4], &[Interpolation::Linear, Interpolation::Cubic])
}
