//! Measured copy bandwidth and multiply-add rate of an adapter.

use super::median;
use crate::base::Result;
use crate::engine::exec::{
    BoundDispatch, BufferPart, Command, Setting, Timed, Uniforms, bind, caps, time_rounds,
};
use crate::engine::gpu::Gpu;
use crate::engine::graph::fold;
use crate::engine::shader::KernelKey;

const REPEATS: usize = 7;
/// Vectors that a lane of the copy kernel takes.
const RUN: u32 = 4;

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

/// Seconds of a dispatch of so many threads: the median of rounds after one or more to warm up.
fn seconds(
    gpu: &Gpu,
    key: &KernelKey,
    buffers: &[(&str, &wgpu::Buffer)],
    settings: &[Setting<'_>],
    threads: usize,
) -> Result<f64> {
    let kernel = gpu.kernel(key)?;
    let mut uniforms = Uniforms::new(gpu, [kernel.clone()])?;
    uniforms.set(0, settings)?;
    uniforms.send(gpu);
    let whole = buffers.iter().map(|(name, buffer)| (*name, BufferPart::whole(buffer)));
    let named: Vec<_> = whole.chain([("params", uniforms.part(0)?)]).collect();
    let command = Command::Dispatch(BoundDispatch {
        label: key.file.into(),
        group: bind(gpu, key.file, &kernel, &named)?,
        groups: fold(threads.div_ceil(kernel.invocations), &caps(gpu))?,
        kernel,
        work: 0,
    });
    // the first run compiles what the driver left
    let times = time_rounds(gpu, &mut [Timed::new([&command])], 1 + REPEATS)?;
    Ok(median(times.into_iter().flatten().skip(1).collect()))
}

fn copy(gpu: &Gpu) -> Result<f64> {
    let bytes = gpu.limits().max_storage_buffer_binding_size.min(128 << 20);
    let count = (bytes / 16) as usize;
    let source = gpu.buffer("copy source", bytes, wgpu::BufferUsages::STORAGE)?;
    let target = gpu.buffer("copy target", bytes, wgpu::BufferUsages::STORAGE)?;
    let key = KernelKey::new("bench_copy.wgsl").tile("RUN", RUN).wide(caps(gpu).wide());
    let buffers = [("src", &source), ("out", &target)];
    let threads = count.div_ceil(RUN as usize);
    let seconds = seconds(gpu, &key, &buffers, &[("count", &[count as u32])], threads)?;
    Ok(2.0 * bytes as f64 / seconds)
}

fn fma(gpu: &Gpu) -> Result<f64> {
    let (threads, steps) = if gpu.is_software() { (1 << 12, 64) } else { (1 << 19, 256) };
    let out = gpu.buffer("sums", (threads * 16) as u64, wgpu::BufferUsages::STORAGE)?;
    let settings: [Setting<'_>; 4] = [
        ("steps", &[steps as u32]),
        ("threads", &[threads as u32]),
        ("scale", &[0.5f32.to_bits()]),
        ("shift", &[1.0f32.to_bits()]),
    ];
    let key = KernelKey::new("bench_fma.wgsl");
    let seconds = seconds(gpu, &key, &[("out", &out)], &settings, threads)?;
    // 8 links of 8 chains of 4 lanes in each step
    let flops = threads * steps * 8 * 8 * 4 * 2;
    Ok(flops as f64 / seconds)
}
