//! The kernels that make a patch, with the memory that they share: one patch at a time.

use std::sync::Arc;

use rayon::prelude::*;

use super::Source;
use super::Target;
use super::volumes::Volume;
use super::work::{GROUPS, Work};
use crate::engine::gpu::{Gpu, Kernel};
use crate::engine::graph::Caps;
use crate::engine::shader::KernelKey;
use crate::engine::shape::LANES;
use crate::imaging::Prepared;
use crate::patch::{Augment, Draw, Interpolation};
use crate::{Error, Result};

/// Bytes of the parameters of a run at most.
const PARAMS: u64 = 256;
/// Bytes of a packed voxel.
const VECTOR: u64 = 16;

/// Runs of kernels that have parameters of their own.
#[derive(Clone, Copy)]
pub(super) enum Run {
    Patch,
    BlurW,
    BlurH,
    BlurD,
    LowRes,
    Moments,
    Merge,
    Intensity,
}

pub(super) const RUNS: u64 = 8;

pub(super) fn patch_key(channels: usize, taps: u32, elastic: bool) -> KernelKey {
    KernelKey::new("patch.wgsl")
        .tile("CHANNELS", channels as u32)
        .tile("TAPS", taps)
        .set("ELASTIC", u32::from(elastic))
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

fn keys(channels: &[usize], interpolations: &[Interpolation]) -> Vec<KernelKey> {
    let mut keys = vec![KernelKey::new("blur.wgsl"), moments_key(false), moments_key(true)];
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

/// Channels of the blocks that the cases have: 1 to 4.
fn block_sizes(sources: &[Source<'_>]) -> Vec<usize> {
    let channels = sources.iter().flat_map(|s| s.cases).map(|case| case.channels);
    let mut sizes: Vec<usize> = channels
        .flat_map(|c| (0..c).step_by(LANES).map(move |first| (c - first).min(LANES)))
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Every kernel that makes patches.
pub fn kernels() -> Vec<KernelKey> {
    keys(&[1, 2, 3, 4], &[Interpolation::Linear, Interpolation::Cubic])
}

/// Memory of one patch and of what its kernels read.
pub(super) struct Buffers {
    params: wgpu::Buffer,
    /// From one run's parameters to the next's.
    pub stride: u64,
    control: wgpu::Buffer,
    pub taps: wgpu::Buffer,
    pub image: wgpu::Buffer,
    labels: wgpu::Buffer,
    partial: wgpu::Buffer,
    total: wgpu::Buffer,
    /// A second image for what cannot be done in place, where the settings draw such.
    spare: Option<wgpu::Buffer>,
    bytes: u64,
}

/// Bind groups that go to the second image and back.
pub(super) struct Spare {
    pub image: wgpu::Buffer,
    /// Along W there, along H back, along D there.
    pub blur: [wgpu::BindGroup; 3],
    pub low_res: wgpu::BindGroup,
}

/// Memory and bind groups.
pub(super) struct Passes {
    pub caps: Caps,
    pub buffers: Buffers,
    spare: Option<Spare>,
    pub moments: wgpu::BindGroup,
    pub merge: wgpu::BindGroup,
    pub intensity: wgpu::BindGroup,
    /// The plainest kernel that takes patches: all have its bindings.
    plain: Arc<Kernel>,
}

fn binding(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    wgpu::BufferBinding { buffer, offset: 0, size: None }
}

/// Binds by the names of the shader's variables.
fn group(
    gpu: &Gpu,
    kernel: &Kernel,
    named: &[(&str, wgpu::BufferBinding<'_>)],
) -> Result<wgpu::BindGroup> {
    let mut entries = Vec::new();
    for wanted in &kernel.reflection.bindings {
        let bound = named.iter().find(|(name, _)| *name == wanted.name);
        let (_, part) = bound.ok_or_else(|| {
            Error::shader(kernel.label.clone(), format!("nothing is bound to {}", wanted.name))
        })?;
        entries.push(wgpu::BindGroupEntry {
            binding: wanted.index,
            resource: wgpu::BindingResource::Buffer(part.clone()),
        });
    }
    gpu.bind_group(&kernel.label, kernel, &entries)
}

impl Buffers {
    fn new(gpu: &Gpu, augment: &Augment, (voxels, coefficients): (u64, u64)) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let alignment = u64::from(gpu.limits().min_uniform_buffer_offset_alignment);
        let stride = PARAMS.next_multiple_of(alignment);
        let mut bytes = 0;
        let mut buffer = |label: &str, size: u64, usage: Usage| {
            bytes += size;
            gpu.buffer(label, size, usage)
        };
        let radius = (3.0 * f64::from(augment.blur_sigma[1])).ceil() as u64;
        let written = Usage::STORAGE | Usage::COPY_DST;
        let image = written | Usage::COPY_SRC;
        let uniform = Usage::UNIFORM | Usage::COPY_DST;
        let twice = augment.blur_prob > 0.0 || augment.low_res_prob > 0.0;
        Ok(Self {
            params: buffer("parameters of patches", RUNS * stride, uniform)?,
            stride,
            control: buffer("displacements", coefficients * VECTOR, written)?,
            taps: buffer("weights of blurs", (radius + 1) * VECTOR, written)?,
            image: buffer("patch", voxels * VECTOR, image)?,
            labels: buffer("labels of a patch", voxels * 4, image)?,
            partial: buffer("parts of moments", 3 * GROUPS as u64 * VECTOR, Usage::STORAGE)?,
            total: buffer("moments", 3 * VECTOR, Usage::STORAGE)?,
            spare: twice.then(|| buffer("second patch", voxels * VECTOR, image)).transpose()?,
            bytes,
        })
    }

    /// Sends the parameters of all runs.
    pub fn send(&self, gpu: &Gpu, params: &[u8]) {
        gpu.upload(&self.params, 0, params);
    }

    fn section(&self, run: Run) -> wgpu::BufferBinding<'_> {
        wgpu::BufferBinding {
            buffer: &self.params,
            offset: run as u64 * self.stride,
            size: wgpu::BufferSize::new(PARAMS),
        }
    }

    fn group(
        &self,
        gpu: &Gpu,
        (run, key): (Run, &KernelKey),
        parts: [(&str, &wgpu::Buffer); 2],
    ) -> Result<wgpu::BindGroup> {
        let mut named = vec![("params", self.section(run)), ("taps", binding(&self.taps))];
        named.extend(parts.map(|(name, buffer)| (name, binding(buffer))));
        group(gpu, &*gpu.kernel(key)?, &named)
    }
}

impl Spare {
    fn new(
        gpu: &Gpu,
        buffers: &Buffers,
        spare: &wgpu::Buffer,
        interpolation: Interpolation,
    ) -> Result<Self> {
        let there = [("src", &buffers.image), ("dst", spare)];
        let back = [("src", spare), ("dst", &buffers.image)];
        let blur = KernelKey::new("blur.wgsl");
        Ok(Self {
            image: spare.clone(),
            blur: [
                buffers.group(gpu, (Run::BlurW, &blur), there)?,
                buffers.group(gpu, (Run::BlurH, &blur), back)?,
                buffers.group(gpu, (Run::BlurD, &blur), there)?,
            ],
            low_res: buffers.group(gpu, (Run::LowRes, &low_res_key(interpolation)), there)?,
        })
    }
}

impl Passes {
    /// Compiles what the settings can draw and makes memory for the largest patch.
    pub fn new(
        (gpu, caps): (&Gpu, &Caps),
        sources: &[Source<'_>],
        augment: &Augment,
        coefficients: usize,
    ) -> Result<Self> {
        let keys = keys(&block_sizes(sources), &[augment.interpolation]);
        keys.par_iter().try_for_each(|key| gpu.kernel(key).map(drop))?;
        let most = sources.iter().map(|s| s.size.patch.iter().product::<usize>()).max();
        let voxels = most.unwrap_or(1) as u64;
        if voxels * VECTOR > caps.max_binding {
            return Err(Error::setting(
                "patch",
                format!("{voxels} voxels"),
                format!("at most {}, which one binding holds", caps.max_binding / VECTOR),
                "Use a smaller patch.",
            ));
        }
        let b = Buffers::new(gpu, augment, (voxels, coefficients as u64))?;
        let spare = b.spare.as_ref().map(|spare| Spare::new(gpu, &b, spare, augment.interpolation));
        let sums = [("x", &b.image), ("out", &b.partial)];
        let merged = [("x", &b.partial), ("out", &b.total)];
        let changed = [("moments", &b.total), ("values", &b.image)];
        Ok(Self {
            caps: caps.clone(),
            spare: spare.transpose()?,
            moments: b.group(gpu, (Run::Moments, &moments_key(false)), sums)?,
            merge: b.group(gpu, (Run::Merge, &moments_key(true)), merged)?,
            intensity: b.group(gpu, (Run::Intensity, &intensity_key(true, true)), changed)?,
            plain: gpu.kernel(&patch_key(1, 1, false))?,
            buffers: b,
        })
    }

    pub fn spare(&self) -> Result<&Spare> {
        let spare = self.spare.as_ref();
        spare.ok_or_else(|| Error::Internal("a blur that the settings never draw".into()))
    }

    pub fn bytes(&self) -> u64 {
        self.buffers.bytes
    }

    /// Binds four channels and the labels of a volume to the patch kernel.
    pub fn bind(
        &self,
        gpu: &Gpu,
        [a, b, c, d, label]: [wgpu::BufferBinding<'_>; 5],
    ) -> Result<wgpu::BindGroup> {
        let named = [
            ("params", self.buffers.section(Run::Patch)),
            ("image0", a),
            ("image1", b),
            ("image2", c),
            ("image3", d),
            ("label", label),
            ("control", binding(&self.buffers.control)),
            ("out", binding(&self.buffers.image)),
            ("labels_out", binding(&self.buffers.labels)),
        ];
        group(gpu, &self.plain, &named)
    }

    /// Makes a drawn patch of a case and copies it to position `at` of the batch.
    pub fn run(
        &self,
        gpu: &Gpu,
        (case, volume): (&Prepared, &Volume),
        (draw, size): (&Draw, [usize; 3]),
        at: usize,
        target: &Target<'_>,
    ) -> Result<()> {
        let Buffers { control, image, labels, .. } = &self.buffers;
        if let Some(elastic) = &draw.spatial.elastic {
            let vectors = elastic.coefficients.iter();
            let words: Vec<[f32; 4]> = vectors.map(|[d, h, w]| [*d, *h, *w, 0.0]).collect();
            gpu.upload(control, 0, bytemuck::cast_slice(&words));
        }
        let voxels: usize = size.iter().product();
        let blocks = draw.intensities.chunks(LANES);
        for (block, intensities) in blocks.enumerate() {
            let count = draw.intensities.len().div_ceil(LANES);
            let mut work = Work::new(self, gpu, size);
            work.take(case, volume, draw, block)?;
            work.change(intensities, draw, block)?;
            let mut encoder = work.finish();
            let (bytes, position) = (voxels as u64 * VECTOR, (at * count + block) as u64);
            encoder.copy_buffer_to_buffer(image, 0, target.image, position * bytes, bytes);
            if block == 0 {
                let bytes = voxels as u64 * 4;
                let start = at as u64 * bytes;
                encoder.copy_buffer_to_buffer(labels, 0, target.labels, start, bytes);
            }
            gpu.submit("patch", encoder)?;
        }
        Ok(())
    }
}
