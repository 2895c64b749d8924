//! Measured copy bandwidth and multiply-add rate of an adapter.

use std::time::Instant;

use super::median;
use crate::Result;
use crate::engine::gpu::{Gpu, Kernel};
use crate::engine::graph::fold;
use crate::engine::shader::KernelKey;

const REPEATS: usize = 7;
const WORKGROUP: usize = 64;
/// Vectors that a lane of the copy kernel takes.
const RUN: usize = 4;

/// What no kernel of an adapter can exceed.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Roofline {
    /// Bytes read and written each second by a copy.
    pub copy_bytes_per_second: f64,
    /// Operations each second, two a fused multiply-add.
    pub flops_per_second: f64,
}

impl Roofline {
    /// Measures both.
    pub fn measure(gpu: &Gpu) -> Result<Self> {
        Ok(Self { copy_bytes_per_second: copy(gpu)?, flops_per_second: fma(gpu)? })
    }

    /// The share of the roofline that moving `bytes` and computing `flops` in `seconds` reaches.
    pub fn share(&self, flops: u64, bytes: u64, seconds: f64) -> f64 {
        let least =
            (bytes as f64 / self.copy_bytes_per_second).max(flops as f64 / self.flops_per_second);
        least / seconds
    }
}

/// Seconds of a dispatch, synchronised: the median after one run to warm up.
fn time(gpu: &Gpu, kernel: &Kernel, buffers: &[&wgpu::Buffer], groups: usize) -> Result<f64> {
    let entries: Vec<wgpu::BindGroupEntry<'_>> = kernel
        .reflection
        .bindings
        .iter()
        .zip(buffers)
        .map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding: binding.index,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    let group = gpu.bind_group(&kernel.label, kernel, &entries)?;
    let [x, y] = fold(groups, &crate::engine::exec::caps(gpu))?;
    let mut seconds = Vec::new();
    for repeat in 0..=REPEATS {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(x, y, 1);
        drop(pass);
        let start = Instant::now();
        gpu.submit(&kernel.label, encoder)?;
        gpu.wait()?;
        if repeat > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(median(seconds))
}

fn uniform(gpu: &Gpu, words: [u32; 4]) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let buffer = gpu.buffer("benchmark parameters", 16, usage)?;
    gpu.upload(&buffer, 0, bytemuck::cast_slice(&words));
    Ok(buffer)
}

fn copy(gpu: &Gpu) -> Result<f64> {
    let bytes = gpu.limits().max_storage_buffer_binding_size.min(128 << 20);
    let count = (bytes / 16) as usize;
    let source = gpu.buffer("copy source", bytes, wgpu::BufferUsages::STORAGE)?;
    let target = gpu.buffer("copy target", bytes, wgpu::BufferUsages::STORAGE)?;
    let params = uniform(gpu, [count as u32, 0, 0, 0])?;
    let kernel =
        gpu.kernel(&KernelKey::new("bench_copy.wgsl").wide(crate::engine::exec::caps(gpu).wide()))?;
    let groups = count.div_ceil(WORKGROUP * RUN);
    let seconds = time(gpu, &kernel, &[&params, &source, &target], groups)?;
    Ok(2.0 * bytes as f64 / seconds)
}

fn fma(gpu: &Gpu) -> Result<f64> {
    let (groups, steps) = if gpu.is_software() { (64, 64) } else { (8192, 256) };
    let threads = groups * WORKGROUP;
    let out = gpu.buffer("sums", (threads * 16) as u64, wgpu::BufferUsages::STORAGE)?;
    let words = [steps as u32, threads as u32, 0.5f32.to_bits(), 1.0f32.to_bits()];
    let params = uniform(gpu, words)?;
    let kernel = gpu.kernel(&KernelKey::new("bench_fma.wgsl"))?;
    let seconds = time(gpu, &kernel, &[&params, &out], groups)?;
    // 8 links of 8 chains of 4 lanes in each step
    let flops = threads * steps * 8 * 8 * 4 * 2;
    Ok(flops as f64 / seconds)
}
