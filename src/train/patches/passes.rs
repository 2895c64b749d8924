//! The kernels that make a patch, with the memory that they share: one patch at a time.

use std::sync::Arc;

use rayon::prelude::*;

use super::Source;
use super::Target;
use super::volumes::Volume;
use super::work::{GROUPS, Work};
use crate::data::{Augment, Draw, Interpolation, Prepared};
use crate::error::{Error, Result};
use crate::exec::caps;
use crate::gpu::{Gpu, Kernel};
use crate::graph::Caps;
use crate::shader::KernelKey;
use crate::shape::LANES;

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

/// Every kernel that makes patches.
pub fn kernels() -> Vec<KernelKey> {
    keys(&[1, 2, 3, 4], &[Interpolation::Linear, Interpolation::Cubic])
}

/// A second buffer for what cannot be done in place, and the groups that go there and back.
pub(super) struct Spare {
    pub image: wgpu::Buffer,
    /// Along W there, along H back, along D there.
    pub blur: [wgpu::BindGroup; 3],
    pub low_res: wgpu::BindGroup,
}

/// Memory and bind groups.
pub(super) struct Passes {
    pub caps: Caps,
    pub params: wgpu::Buffer,
    pub stride: u64,
    control: wgpu::Buffer,
    pub taps: wgpu::Buffer,
    pub image: wgpu::Buffer,
    labels: wgpu::Buffer,
    spare: Option<Spare>,
    pub moments: wgpu::BindGroup,
    pub merge: wgpu::BindGroup,
    pub intensity: wgpu::BindGroup,
    /// The plainest kernel that takes patches: all have its bindings.
    plain: Arc<Kernel>,
    bytes: u64,
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

impl Passes {
    pub fn new(
        gpu: &Gpu,
        sources: &[Source<'_>],
        augment: &Augment,
        coefficients: usize,
    ) -> Result<Self> {
        let mut blocks: Vec<usize> = Vec::new();
        for case in sources.iter().flat_map(|s| s.cases) {
            for first in (0..case.channels).step_by(LANES) {
                blocks.push((case.channels - first).min(LANES));
            }
        }
        blocks.sort_unstable();
        blocks.dedup();
        let keys = keys(&blocks, &[augment.interpolation]);
        keys.par_iter().try_for_each(|key| gpu.kernel(key).map(drop))?;
        let most = sources.iter().map(|s| s.size.patch.iter().product::<usize>()).max();
        let voxels = most.unwrap_or(1) as u64;
        let caps = caps(gpu);
        if voxels * VECTOR > caps.max_binding {
            return Err(Error::flag(
                "--patch",
                format!("{voxels} voxels"),
                format!("at most {}, which one binding holds", caps.max_binding / VECTOR),
                "Use a smaller patch.",
            ));
        }
        Self::with_memory(gpu, augment, (voxels, coefficients as u64), caps)
    }

    fn with_memory(
        gpu: &Gpu,
        augment: &Augment,
        (voxels, coefficients): (u64, u64),
        caps: Caps,
    ) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let stride =
            256u64.next_multiple_of(u64::from(gpu.limits().min_uniform_buffer_offset_alignment));
        let mut bytes = 0;
        let mut buffer = |label: &str, size: u64, usage: Usage| {
            bytes += size;
            gpu.buffer(label, size, usage)
        };
        let radius = (3.0 * f64::from(augment.blur_sigma[1])).ceil() as u64;
        let written = Usage::STORAGE | Usage::COPY_DST;
        let params =
            buffer("parameters of patches", RUNS * stride, Usage::UNIFORM | Usage::COPY_DST)?;
        let control = buffer("displacements", coefficients * VECTOR, written)?;
        let taps = buffer("weights of blurs", (radius + 1) * VECTOR, written)?;
        let image = buffer("patch", voxels * VECTOR, written | Usage::COPY_SRC)?;
        let labels = buffer("labels of a patch", voxels * 4, written | Usage::COPY_SRC)?;
        let partial = buffer("parts of moments", 3 * GROUPS as u64 * VECTOR, Usage::STORAGE)?;
        let total = buffer("moments", 3 * VECTOR, Usage::STORAGE)?;
        let section = |run: Run| wgpu::BufferBinding {
            buffer: &params,
            offset: run as u64 * stride,
            size: wgpu::BufferSize::new(256),
        };
        let bind = |run: Run, key: &KernelKey, parts: [(&str, &wgpu::Buffer); 2]| {
            let mut named = vec![("params", section(run)), ("taps", binding(&taps))];
            named.extend(parts.map(|(name, buffer)| (name, binding(buffer))));
            group(gpu, &*gpu.kernel(key)?, &named)
        };
        let spare = if augment.blur_prob > 0.0 || augment.low_res_prob > 0.0 {
            let spare = buffer("changed patch", voxels * VECTOR, written | Usage::COPY_SRC)?;
            let (there, back) =
                ([("src", &image), ("dst", &spare)], [("src", &spare), ("dst", &image)]);
            let blur = KernelKey::new("blur.wgsl");
            Some(Spare {
                blur: [
                    bind(Run::BlurW, &blur, there)?,
                    bind(Run::BlurH, &blur, back)?,
                    bind(Run::BlurD, &blur, there)?,
                ],
                low_res: bind(Run::LowRes, &low_res_key(augment.interpolation), there)?,
                image: spare,
            })
        } else {
            None
        };
        let moments = bind(Run::Moments, &moments_key(false), [("x", &image), ("out", &partial)])?;
        let merge = bind(Run::Merge, &moments_key(true), [("x", &partial), ("out", &total)])?;
        let changed = [("moments", &total), ("values", &image)];
        let intensity = bind(Run::Intensity, &intensity_key(true, true), changed)?;
        let plain = gpu.kernel(&patch_key(1, 1, false))?;
        Ok(Self {
            caps,
            stride,
            params,
            control,
            taps,
            image,
            labels,
            spare,
            moments,
            merge,
            intensity,
            plain,
            bytes,
        })
    }

    pub fn spare(&self) -> Result<&Spare> {
        let spare = self.spare.as_ref();
        spare.ok_or_else(|| Error::Internal("a blur that the settings never draw".into()))
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Binds four channels and the labels of a volume to the patch kernel.
    pub fn bind(
        &self,
        gpu: &Gpu,
        [a, b, c, d, label]: [wgpu::BufferBinding<'_>; 5],
    ) -> Result<wgpu::BindGroup> {
        let params = wgpu::BufferBinding {
            buffer: &self.params,
            offset: Run::Patch as u64 * self.stride,
            size: wgpu::BufferSize::new(256),
        };
        let named = [
            ("params", params),
            ("image0", a),
            ("image1", b),
            ("image2", c),
            ("image3", d),
            ("label", label),
            ("control", binding(&self.control)),
            ("out", binding(&self.image)),
            ("labels_out", binding(&self.labels)),
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
        if let Some(elastic) = &draw.spatial.elastic {
            let vectors = elastic.coefficients.iter();
            let words: Vec<[f32; 4]> = vectors.map(|[d, h, w]| [*d, *h, *w, 0.0]).collect();
            gpu.upload(&self.control, 0, bytemuck::cast_slice(&words));
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
            encoder.copy_buffer_to_buffer(&self.image, 0, target.image, position * bytes, bytes);
            if block == 0 {
                let bytes = voxels as u64 * 4;
                let start = at as u64 * bytes;
                encoder.copy_buffer_to_buffer(&self.labels, 0, target.labels, start, bytes);
            }
            gpu.submit("patch", encoder)?;
        }
        Ok(())
    }
}
