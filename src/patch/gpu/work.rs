//! The runs of kernels that one block of four channels of a patch takes.

use super::passes::{Passes, RUNS, Run, intensity_key, low_res_key, moments_key, patch_key, taps};
use super::volumes::Volume;
use crate::engine::gpu::{Gpu, Kernel};
use crate::engine::graph::fold;
use crate::engine::shader::KernelKey;
use crate::engine::shape::LANES;
use crate::imaging::Prepared;
use crate::patch::{Draw, Elastic, Intensity, gaussian, low_res_size};
use crate::{Error, Result};

/// Voxels along D of a thread of the patch kernel on a GPU; on a CPU all of them.
const CHUNK: usize = 8;
/// Threads of a workgroup.
const WG: usize = 64;
/// Groups that look for the least and largest value.
pub(super) const GROUPS: usize = 64;

/// Members of a kernel's parameters, by name.
type Members<'a> = [(&'a str, &'a [u32])];

fn signed([d, h, w]: [i32; 3], last: i32) -> [u32; 4] {
    [d, h, w, last].map(|v| v as u32)
}

fn sizes(size: [usize; 3], last: usize) -> [u32; 4] {
    signed(size.map(|n| n as i32), last as i32)
}

fn floats([d, h, w]: [f32; 3], last: f32) -> [u32; 4] {
    [d, h, w, last].map(f32::to_bits)
}

/// One setting of each channel of a block; that of no change in the padding lanes.
fn lanes<T>(intensities: &[Intensity], setting: impl Fn(&Intensity) -> T) -> [T; LANES] {
    [0, 1, 2, 3].map(|lane| setting(intensities.get(lane).unwrap_or(&Intensity::NONE)))
}

fn put(bytes: &mut [u8], kernel: &Kernel, members: &Members<'_>) -> Result<()> {
    for (name, words) in members {
        let known = kernel.reflection.params.iter().find(|(member, _)| member == name);
        let (_, offset) = known.ok_or_else(|| {
            Error::shader(kernel.label.clone(), format!("params has no member {name}"))
        })?;
        let at = *offset as usize;
        bytes[at..at + 4 * words.len()].copy_from_slice(bytemuck::cast_slice(words));
    }
    Ok(())
}

/// One block under construction.
pub(super) struct Work<'a> {
    passes: &'a Passes,
    gpu: &'a Gpu,
    size: [usize; 3],
    params: Vec<u8>,
    encoder: wgpu::CommandEncoder,
}

impl<'a> Work<'a> {
    pub fn new(passes: &'a Passes, gpu: &'a Gpu, size: [usize; 3]) -> Self {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("patch") };
        let encoder = gpu.device().create_command_encoder(&descriptor);
        let params = vec![0; (RUNS * passes.buffers.stride) as usize];
        Self { passes, gpu, size, params, encoder }
    }

    /// The commands, whose parameters are on their way.
    pub fn finish(self) -> wgpu::CommandEncoder {
        self.passes.buffers.send(self.gpu, &self.params);
        self.encoder
    }

    fn voxels(&self) -> usize {
        self.size.iter().product()
    }

    fn run(
        &mut self,
        (run, key): (Run, KernelKey),
        group: &wgpu::BindGroup,
        groups: usize,
        members: &Members<'_>,
    ) -> Result<()> {
        let kernel = self.gpu.kernel(&key)?;
        let start = run as usize * self.passes.buffers.stride as usize;
        put(&mut self.params[start..], &kernel, members)?;
        let [x, y] = fold(groups, &self.passes.caps)?;
        let mut pass = self.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(key.file),
            timestamp_writes: None,
        });
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(x, y, 1);
        Ok(())
    }

    /// Takes the patch out of the volume.
    pub fn take(
        &mut self,
        case: &Prepared,
        volume: &Volume,
        draw: &Draw,
        block: usize,
    ) -> Result<()> {
        let (spatial, size) = (&draw.spatial, self.size);
        let column = |b: usize| signed([0, 1, 2].map(|axis| spatial.matrix[axis][b]), 0);
        let taps = if spatial.on_voxels { 1 } else { taps(draw.interpolation) };
        let channels = (case.channels - block * LANES).min(LANES);
        let key = patch_key(channels, taps, spatial.elastic.is_some());
        let chunk = if self.passes.caps.software { size[0] } else { CHUNK.min(size[0]) };
        let [_, h, w] = volume.shape;
        let still =
            Elastic { shape: [0; 3], origin: [0.0; 3], step: [0.0; 3], coefficients: Vec::new() };
        let field = spatial.elastic.as_ref().unwrap_or(&still);
        let threads = size[1] * size[2] * size[0].div_ceil(chunk);
        self.run(
            (Run::Patch, key),
            &volume.groups[block],
            threads.div_ceil(WG),
            &[
                ("size", &sizes(size, chunk)),
                ("limit", &sizes(case.shape, 0)),
                ("first", &sizes(volume.first, w)),
                ("centre", &signed(spatial.centre, (h * w) as i32)),
                ("along_d", &column(0)),
                ("along_h", &column(1)),
                ("along_w", &column(2)),
                ("grid", &sizes(field.shape, 0)),
                ("step", &floats(field.step, 0.0)),
                ("origin", &floats(field.origin, case.outside)),
            ],
        )
    }

    /// Blurs, coarsens and changes the values of the block.
    pub fn change(&mut self, intensities: &[Intensity], draw: &Draw, block: usize) -> Result<()> {
        if intensities.iter().any(|i| i.blur > 0.0) {
            self.blur(intensities)?;
        }
        if intensities.iter().any(|i| i.low_res) {
            self.low_res(intensities, draw)?;
        }
        if intensities.iter().any(Intensity::is_pointwise) {
            self.pointwise(intensities, draw.seed, block)?;
        }
        Ok(())
    }

    fn copy_back(&mut self, from: &wgpu::Buffer) {
        let bytes = (self.voxels() * LANES * 4) as u64;
        self.encoder.copy_buffer_to_buffer(from, 0, &self.passes.buffers.image, 0, bytes);
    }

    fn blur(&mut self, intensities: &[Intensity]) -> Result<()> {
        let spare = self.passes.spare()?;
        let weights =
            lanes(intensities, |i| if i.blur > 0.0 { gaussian(i.blur) } else { vec![1.0] });
        let radius = weights.iter().map(Vec::len).max().unwrap_or(1) - 1;
        let taps: Vec<[f32; LANES]> = (0..=radius)
            .map(|o| [0, 1, 2, 3].map(|lane| *weights[lane].get(o).unwrap_or(&0.0) as f32))
            .collect();
        self.gpu.upload(&self.passes.buffers.taps, 0, bytemuck::cast_slice(&taps));
        let voxels = self.voxels();
        for (run, axis, group) in [
            (Run::BlurW, 2, &spare.blur[0]),
            (Run::BlurH, 1, &spare.blur[1]),
            (Run::BlurD, 0, &spare.blur[2]),
        ] {
            let stride: usize = self.size[axis + 1..].iter().product();
            let length = self.size[axis];
            self.run(
                (run, KernelKey::new("blur.wgsl")),
                group,
                voxels.div_ceil(WG),
                &[
                    ("voxels", &[voxels as u32]),
                    ("length", &[length as u32]),
                    ("stride", &[stride as u32]),
                    ("radius", &[radius as u32]),
                ],
            )?;
        }
        self.copy_back(&spare.image);
        Ok(())
    }

    fn low_res(&mut self, intensities: &[Intensity], draw: &Draw) -> Result<()> {
        let spare = self.passes.spare()?;
        let low = low_res_size(self.size, draw.low_res_factor);
        self.run(
            (Run::LowRes, low_res_key(draw.interpolation)),
            &spare.low_res,
            self.voxels().div_ceil(WG),
            &[
                ("size", &sizes(self.size, 0)),
                ("low", &sizes(low, 0)),
                ("lanes", &lanes(intensities, |i| u32::from(i.low_res))),
            ],
        )?;
        self.copy_back(&spare.image);
        Ok(())
    }

    fn pointwise(&mut self, intensities: &[Intensity], seed: u32, block: usize) -> Result<()> {
        let (passes, voxels) = (self.passes, self.voxels());
        let moments = intensities.iter().any(Intensity::needs_moments);
        if moments {
            // in one dimension of the dispatch
            let groups = voxels.div_ceil(WG).min(GROUPS).min(passes.caps.max_groups as usize);
            let count = |n: usize| [n as u32];
            let each = [("count", &count(voxels)[..]), ("groups", &count(groups)[..])];
            self.run((Run::Moments, moments_key(false)), &passes.moments, groups, &each)?;
            let once = [("count", &count(groups)[..]), ("groups", &count(1)[..])];
            self.run((Run::Merge, moments_key(true)), &passes.merge, 1, &once)?;
        }
        let noise = intensities.iter().any(|i| i.noise > 0.0);
        let of = |setting: fn(&Intensity) -> f32| lanes(intensities, setting).map(f32::to_bits);
        self.run(
            (Run::Intensity, intensity_key(moments, noise)),
            &passes.intensity,
            voxels.div_ceil(WG),
            &[
                ("brightness", &of(|i| i.brightness)),
                ("contrast", &of(|i| i.contrast)),
                ("gamma", &of(|i| i.gamma)),
                ("shift", &of(|i| i.shift)),
                ("noise", &of(|i| i.noise)),
                ("voxels", &[voxels as u32]),
                ("channel", &[(block * LANES) as u32]),
                ("seed", &[seed]),
            ],
        )
    }
}
