//! The runs of kernels that one block of four channels of a patch takes.

use std::sync::Arc;

use super::kernels::{Pass, blur_key, intensity_key, low_res_key, moments_key, patch_key, taps};
use super::scratch::{GROUPS, Scratch};
use super::volumes::Resident;
use crate::base::{Error, Result};
use crate::dataset::prepared::Facts;
use crate::engine::exec::{BoundDispatch, Command, Setting};
use crate::engine::gpu::{Gpu, Kernel};
use crate::engine::graph::{Caps, fold};
use crate::engine::shader::KernelKey;
use crate::engine::shape::LANES;
use crate::patch::{Draw, Elastic, Intensity, gaussian, low_res_size};

/// Voxels along D of a thread of the patch kernel on a GPU; on a CPU all of them.
const CHUNK: usize = 8;
/// Operations of a thread, about, for each voxel or sum that it makes.
const VOXEL_WORK: usize = 256;

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

/// A patch that is made: its size (D, H, W), how it was drawn, and the case as it lies in memory.
pub(super) struct Drawn<'a> {
    pub facts: &'a Facts,
    pub volume: &'a Resident,
    pub draw: &'a Draw,
    pub size: [usize; 3],
}

/// One block of four channels under construction.
pub(super) struct Work<'a> {
    gpu: &'a Gpu,
    caps: &'a Caps,
    scratch: &'a mut Scratch,
    drawn: &'a Drawn<'a>,
    block: usize,
    commands: Vec<Command>,
}

impl<'a> Work<'a> {
    /// Takes a block of the patch out of the volume, blurs, coarsens and changes its values.
    pub fn commands(
        gpu: &'a Gpu,
        caps: &'a Caps,
        scratch: &'a mut Scratch,
        drawn: &'a Drawn<'a>,
        block: usize,
    ) -> Result<Vec<Command>> {
        let mut work = Self { gpu, caps, scratch, drawn, block, commands: Vec::new() };
        work.take()?;
        let from = block * LANES;
        let intensities = drawn.draw.intensities.get(from..).unwrap_or_default();
        let intensities = &intensities[..intensities.len().min(LANES)];
        if intensities.iter().any(|i| i.blur > 0.0) {
            work.blur(intensities)?;
        }
        if intensities.iter().any(|i| i.low_res) {
            work.low_res(intensities)?;
        }
        if intensities.iter().any(Intensity::is_pointwise) {
            work.pointwise(intensities)?;
        }
        work.scratch.uniforms.send(gpu);
        Ok(work.commands)
    }

    fn voxels(&self) -> usize {
        self.drawn.size.iter().product()
    }

    fn kernel(&self, key: KernelKey) -> Result<Arc<Kernel>> {
        self.gpu.kernel(&key)
    }

    fn run(
        &mut self,
        pass: Pass,
        kernel: Arc<Kernel>,
        group: wgpu::BindGroup,
        groups: usize,
        settings: &[Setting<'_>],
    ) -> Result<()> {
        self.scratch.uniforms.set(pass as usize, settings)?;
        let work = (groups * kernel.invocations * VOXEL_WORK) as u64;
        let groups = fold(groups, self.caps)?;
        let label = kernel.label.clone();
        self.commands.push(Command::Dispatch(BoundDispatch { label, kernel, group, groups, work }));
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        let Drawn { facts, volume, draw, size } = *self.drawn;
        let spatial = &draw.spatial;
        let column = |b: usize| signed([0, 1, 2].map(|axis| spatial.matrix[axis][b]), 0);
        let taps = if spatial.on_voxels { 1 } else { taps(draw.interpolation) };
        let channels = (facts.channels - self.block * LANES).min(LANES);
        let kernel = self.kernel(patch_key(channels, taps, spatial.elastic.is_some()))?;
        let chunk = if self.caps.software { size[0] } else { CHUNK.min(size[0]) };
        let [_, h, w] = volume.shape;
        let still =
            Elastic { shape: [0; 3], origin: [0.0; 3], step: [0.0; 3], coefficients: Vec::new() };
        let field = spatial.elastic.as_ref().unwrap_or(&still);
        let threads = size[1] * size[2] * size[0].div_ceil(chunk);
        let groups = threads.div_ceil(kernel.invocations);
        let settings: [Setting<'_>; 10] = [
            ("size", &sizes(size, chunk)),
            ("limit", &sizes(facts.shape, 0)),
            ("first", &sizes(volume.first, w)),
            ("centre", &signed(spatial.centre, (h * w) as i32)),
            ("along_d", &column(0)),
            ("along_h", &column(1)),
            ("along_w", &column(2)),
            ("grid", &sizes(field.shape, 0)),
            ("step", &floats(field.step, 0.0)),
            ("origin", &floats(field.origin, facts.outside)),
        ];
        let group = volume.groups.get(self.block).cloned();
        let group = group.ok_or_else(|| {
            Error::Internal(format!("a volume of {} blocks", volume.groups.len()))
        })?;
        self.run(Pass::Patch, kernel, group, groups, &settings)
    }

    /// The second image back to the first.
    fn copy_back(&mut self) -> Result<()> {
        let bytes = (self.voxels() * LANES * 4) as u64;
        let from = self.scratch.spare()?.image.clone();
        self.commands.push(Command::Copy { from, to: self.scratch.image.clone(), at: 0, bytes });
        Ok(())
    }

    fn blur(&mut self, intensities: &[Intensity]) -> Result<()> {
        let weights =
            lanes(intensities, |i| if i.blur > 0.0 { gaussian(i.blur) } else { vec![1.0] });
        let radius = weights.iter().map(Vec::len).max().unwrap_or(1) - 1;
        let taps: Vec<[f32; LANES]> = (0..=radius)
            .map(|o| [0, 1, 2, 3].map(|lane| *weights[lane].get(o).unwrap_or(&0.0) as f32))
            .collect();
        self.gpu.upload(&self.scratch.taps, 0, bytemuck::cast_slice(&taps));
        let (voxels, size) = (self.voxels(), self.drawn.size);
        let kernel = self.kernel(blur_key())?;
        let groups = voxels.div_ceil(kernel.invocations);
        let [along_w, along_h, along_d] = self.scratch.spare()?.blur.clone();
        for (pass, axis, group) in
            [(Pass::BlurW, 2, along_w), (Pass::BlurH, 1, along_h), (Pass::BlurD, 0, along_d)]
        {
            let stride: usize = size[axis + 1..].iter().product();
            let settings: [Setting<'_>; 4] = [
                ("voxels", &[voxels as u32]),
                ("length", &[size[axis] as u32]),
                ("stride", &[stride as u32]),
                ("radius", &[radius as u32]),
            ];
            self.run(pass, kernel.clone(), group, groups, &settings)?;
        }
        self.copy_back()
    }

    fn low_res(&mut self, intensities: &[Intensity]) -> Result<()> {
        let Drawn { draw, size, .. } = *self.drawn;
        let low = low_res_size(size, draw.low_res_factor);
        let kernel = self.kernel(low_res_key(draw.interpolation))?;
        let groups = self.voxels().div_ceil(kernel.invocations);
        let settings: [Setting<'_>; 3] = [
            ("size", &sizes(size, 0)),
            ("low", &sizes(low, 0)),
            ("lanes", &lanes(intensities, |i| u32::from(i.low_res))),
        ];
        let group = self.scratch.spare()?.low_res.clone();
        self.run(Pass::LowRes, kernel, group, groups, &settings)?;
        self.copy_back()
    }

    fn moments(&mut self) -> Result<()> {
        let voxels = self.voxels();
        let kernel = self.kernel(moments_key(false))?;
        // in one dimension of the dispatch
        let most = GROUPS.min(self.caps.max_groups as usize);
        let groups = voxels.div_ceil(kernel.invocations).min(most);
        let group = self.scratch.moments.clone();
        let settings: [Setting<'_>; 2] =
            [("count", &[voxels as u32]), ("groups", &[groups as u32])];
        self.run(Pass::Moments, kernel, group, groups, &settings)?;
        let (kernel, group) = (self.kernel(moments_key(true))?, self.scratch.merge.clone());
        let settings: [Setting<'_>; 2] = [("count", &[groups as u32]), ("groups", &[1])];
        self.run(Pass::Merge, kernel, group, 1, &settings)
    }

    fn pointwise(&mut self, intensities: &[Intensity]) -> Result<()> {
        let voxels = self.voxels();
        let moments = intensities.iter().any(Intensity::needs_moments);
        if moments {
            self.moments()?;
        }
        let noise = intensities.iter().any(|i| i.noise > 0.0);
        let of = |setting: fn(&Intensity) -> f32| lanes(intensities, setting).map(f32::to_bits);
        let kernel = self.kernel(intensity_key(moments, noise))?;
        let groups = voxels.div_ceil(kernel.invocations);
        let settings: [Setting<'_>; 8] = [
            ("brightness", &of(|i| i.brightness)),
            ("contrast", &of(|i| i.contrast)),
            ("gamma", &of(|i| i.gamma)),
            ("shift", &of(|i| i.shift)),
            ("noise", &of(|i| i.noise)),
            ("voxels", &[voxels as u32]),
            ("channel", &[(self.block * LANES) as u32]),
            ("seed", &[self.drawn.draw.seed]),
        ];
        let group = self.scratch.intensity.clone();
        self.run(Pass::Intensity, kernel, group, groups, &settings)
    }
}
