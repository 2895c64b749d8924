//! Memory of one patch and of what its kernels read, bound to them: one patch is made at a time.

use rayon::prelude::*;

use super::kernels::{Pass, keys};
use crate::base::{Error, Result};
use crate::engine::exec::{BufferPart, Uniforms, bind};
use crate::engine::gpu::Gpu;
use crate::patch::{Augment, Interpolation};

/// Bytes of a packed voxel.
pub(super) const VECTOR: u64 = 16;
/// Groups that look for the least and largest value.
pub(super) const GROUPS: usize = 64;

/// What the largest patches need.
pub(super) struct Sizes {
    /// Voxels of a patch.
    pub voxels: u64,
    /// Coefficients of a field of displacements.
    pub coefficients: u64,
    /// Channels of the blocks that the cases have: 1 to 4.
    pub blocks: Vec<usize>,
}

/// Buffers and bind groups that all patches share.
pub(super) struct Scratch {
    pub uniforms: Uniforms,
    pub control: wgpu::Buffer,
    pub taps: wgpu::Buffer,
    pub image: wgpu::Buffer,
    pub labels: wgpu::Buffer,
    pub moments: wgpu::BindGroup,
    pub merge: wgpu::BindGroup,
    pub intensity: wgpu::BindGroup,
    spare: Option<Spare>,
    interpolation: Interpolation,
    bytes: u64,
}

/// A second image for what cannot be done in place, where the settings draw such.
pub(super) struct Spare {
    pub image: wgpu::Buffer,
    /// Along W there, along H back, along D there.
    pub blur: [wgpu::BindGroup; 3],
    pub low_res: wgpu::BindGroup,
}

/// Where a block of four channels of a volume and its labels lie.
pub(super) struct BlockParts<'a> {
    pub channels: [BufferPart<'a>; 4],
    pub labels: BufferPart<'a>,
}

/// Binds a pass to its parameters and to some buffers.
struct PassBinder<'a> {
    gpu: &'a Gpu,
    uniforms: &'a Uniforms,
    interpolation: Interpolation,
}

impl PassBinder<'_> {
    fn bind(&self, pass: Pass, buffers: &[(&str, &wgpu::Buffer)]) -> Result<wgpu::BindGroup> {
        let whole = buffers.iter().map(|(name, buffer)| (*name, BufferPart::whole(buffer)));
        self.bind_parts(pass, whole.collect())
    }

    fn bind_parts<'a>(
        &'a self,
        pass: Pass,
        mut named: Vec<(&'a str, BufferPart<'a>)>,
    ) -> Result<wgpu::BindGroup> {
        let kernel = self.gpu.kernel(&pass.plain(self.interpolation))?;
        named.push(("params", self.uniforms.part(pass as usize)?));
        bind(self.gpu, &kernel.label, &kernel, &named)
    }
}

impl Scratch {
    /// Compiles what the settings can draw and makes memory for the largest patch.
    pub fn new(gpu: &Gpu, augment: &Augment, sizes: &Sizes) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let interpolation = augment.interpolation;
        let keys = keys(&sizes.blocks, &[interpolation]);
        keys.par_iter().try_for_each(|key| gpu.kernel(key).map(drop))?;
        let plain = Pass::ALL.map(|pass| gpu.kernel(&pass.plain(interpolation)));
        let uniforms = Uniforms::new(gpu, plain.into_iter().collect::<Result<Vec<_>>>()?)?;
        let mut bytes = uniforms.bytes();
        let mut buffer = |label: &str, size: u64, usage: Usage| {
            bytes += size;
            gpu.buffer(label, size, usage)
        };
        let radius = (3.0 * f64::from(augment.blur_sigma[1])).ceil() as u64;
        let written = Usage::STORAGE | Usage::COPY_DST;
        let image = buffer("patch", sizes.voxels * VECTOR, written | Usage::COPY_SRC)?;
        let taps = buffer("weights of blurs", (radius + 1) * VECTOR, written)?;
        let partial = buffer("parts of moments", 3 * GROUPS as u64 * VECTOR, Usage::STORAGE)?;
        let total = buffer("moments", 3 * VECTOR, Usage::STORAGE)?;
        let binder = PassBinder { gpu, uniforms: &uniforms, interpolation };
        let twice = augment.blur_prob > 0.0 || augment.low_res_prob > 0.0;
        let spare = twice.then(|| {
            let usage = written | Usage::COPY_SRC;
            let spare = buffer("second patch", sizes.voxels * VECTOR, usage)?;
            Spare::new(&binder, &image, spare, &taps)
        });
        Ok(Self {
            spare: spare.transpose()?,
            control: buffer("displacements", sizes.coefficients * VECTOR, written)?,
            labels: buffer("labels of a patch", sizes.voxels * 4, written | Usage::COPY_SRC)?,
            moments: binder.bind(Pass::Moments, &[("x", &image), ("out", &partial)])?,
            merge: binder.bind(Pass::Merge, &[("x", &partial), ("out", &total)])?,
            intensity: binder.bind(Pass::Intensity, &[("moments", &total), ("values", &image)])?,
            image,
            taps,
            interpolation,
            bytes,
            uniforms,
        })
    }

    pub fn spare(&self) -> Result<&Spare> {
        let spare = self.spare.as_ref();
        spare.ok_or_else(|| Error::Internal("a blur that the settings never draw".into()))
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Binds a block of a volume to the patch kernel.
    pub fn bind(&self, gpu: &Gpu, block: BlockParts<'_>) -> Result<wgpu::BindGroup> {
        let binder =
            PassBinder { gpu, uniforms: &self.uniforms, interpolation: self.interpolation };
        let [a, b, c, d] = block.channels;
        let named = vec![
            ("image0", a),
            ("image1", b),
            ("image2", c),
            ("image3", d),
            ("label", block.labels),
            ("control", BufferPart::whole(&self.control)),
            ("out", BufferPart::whole(&self.image)),
            ("labels_out", BufferPart::whole(&self.labels)),
        ];
        binder.bind_parts(Pass::Patch, named)
    }
}

impl Spare {
    fn new(
        binder: &PassBinder<'_>,
        image: &wgpu::Buffer,
        spare: wgpu::Buffer,
        taps: &wgpu::Buffer,
    ) -> Result<Self> {
        let there = [("src", image), ("dst", &spare), ("taps", taps)];
        let back = [("src", &spare), ("dst", image), ("taps", taps)];
        Ok(Self {
            blur: [
                binder.bind(Pass::BlurW, &there)?,
                binder.bind(Pass::BlurH, &back)?,
                binder.bind(Pass::BlurD, &there)?,
            ],
            low_res: binder.bind(Pass::LowRes, &there)?,
            image: spare,
        })
    }
}
