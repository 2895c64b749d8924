//! The one place where dispatches are bound, encoded and submitted.

use std::sync::Arc;
use std::time::Instant;

use crate::base::{Error, Result};
use crate::engine::gpu::{Gpu, Kernel};

/// A part of a buffer.
#[derive(Clone, Copy)]
pub struct BufferPart<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// Bytes before the part.
    pub offset: u64,
    /// Bytes of the part; without, all that follow.
    pub bytes: Option<u64>,
}

impl<'a> BufferPart<'a> {
    /// The whole buffer.
    pub fn whole(buffer: &'a wgpu::Buffer) -> Self {
        Self { buffer, offset: 0, bytes: None }
    }

    /// 32-bit words of a buffer.
    pub fn words(buffer: &'a wgpu::Buffer, start: usize, words: usize) -> Self {
        Self { buffer, offset: (start * 4) as u64, bytes: Some((words * 4) as u64) }
    }
}

/// Binds memory by the names of the kernel's variables. A variable that is not named is an error; names that this
/// specialisation has no variable for are left out.
pub fn bind(
    gpu: &Gpu,
    label: &str,
    kernel: &Kernel,
    named: &[(&str, BufferPart<'_>)],
) -> Result<wgpu::BindGroup> {
    let mut entries = Vec::new();
    for wanted in &kernel.reflection.bindings {
        let bound = named.iter().find(|(name, _)| *name == wanted.name);
        let (_, part) = bound.ok_or_else(|| {
            Error::shader(kernel.label.clone(), format!("nothing is bound to {}", wanted.name))
        })?;
        entries.push(wgpu::BindGroupEntry {
            binding: wanted.index,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: part.buffer,
                offset: part.offset,
                size: part.bytes.and_then(wgpu::BufferSize::new),
            }),
        });
    }
    gpu.bind_group(label, kernel, &entries)
}

/// A dispatch that is bound.
#[derive(Clone)]
pub struct BoundDispatch {
    /// What it does, for errors and reports.
    pub label: String,
    /// The compiled kernel.
    pub kernel: Arc<Kernel>,
    /// Its bindings.
    pub group: wgpu::BindGroup,
    /// Workgroups along the first two dimensions.
    pub groups: [u32; 2],
    /// Arithmetic operations, or those in whose time its bytes move, to bound submissions.
    pub work: u64,
}

/// What the device is to do.
#[derive(Clone)]
pub enum Command {
    /// Runs a kernel.
    Dispatch(BoundDispatch),
    /// Copies the first `bytes` of a buffer to `at` of another.
    Copy {
        /// Where bytes are read, from its start.
        from: wgpu::Buffer,
        /// Where they are written.
        to: wgpu::Buffer,
        /// Bytes before the place in it.
        at: u64,
        /// How many bytes.
        bytes: u64,
    },
}

/// What it took to hand commands over, in seconds; adapters that compute on the CPU may do the work while submitting.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// Seconds of encoding.
    pub encoding: f64,
    /// Seconds of submitting; on adapters that compute on the CPU the work may be in them.
    pub submitting: f64,
    /// The last submission; none where there was nothing to do.
    pub last: Option<wgpu::SubmissionIndex>,
}

/// Encodes and submits commands in order, in submissions of bounded work; errors name `label`.
pub fn submit(gpu: &Gpu, label: &str, commands: &[Command]) -> Result<Launch> {
    let mut launch = Launch::default();
    let mut left = commands;
    while !left.is_empty() {
        let mut encoder = encoder(gpu, label);
        let start = Instant::now();
        let part = encode(&mut encoder, label, left, gpu.submission_budget());
        let encoded = gpu.finish(label, encoder)?;
        launch.encoding += start.elapsed().as_secs_f64();
        let start = Instant::now();
        launch.last = Some(gpu.submit_measured(label, encoded, part.work)?);
        launch.submitting += start.elapsed().as_secs_f64();
        left = &left[part.commands..];
    }
    Ok(launch)
}

pub(super) fn encoder(gpu: &Gpu, label: &str) -> wgpu::CommandEncoder {
    let descriptor = wgpu::CommandEncoderDescriptor { label: Some(label) };
    gpu.device().create_command_encoder(&descriptor)
}

pub(super) fn dispatch(pass: &mut wgpu::ComputePass<'_>, run: &BoundDispatch) {
    pass.insert_debug_marker(&run.label);
    pass.set_pipeline(&run.kernel.pipeline);
    pass.set_bind_group(0, &run.group, &[]);
    pass.dispatch_workgroups(run.groups[0], run.groups[1], 1);
}

/// What was encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoded {
    /// So many commands.
    pub commands: usize,
    /// Their work.
    pub work: u64,
}

/// Encodes commands until the budget of work is spent, dispatches in a row in one pass.
pub(super) fn encode(
    encoder: &mut wgpu::CommandEncoder,
    label: &str,
    commands: &[Command],
    budget: u64,
) -> Encoded {
    let (mut work, mut next) = (0u64, 0);
    while next < commands.len() && work < budget {
        if let Command::Copy { from, to, at, bytes } = &commands[next] {
            encoder.copy_buffer_to_buffer(from, 0, to, *at, *bytes);
            work = work.saturating_add(work_of(0, 2 * bytes));
            next += 1;
            continue;
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(label),
            timestamp_writes: None,
        });
        while let Some(Command::Dispatch(run)) = commands.get(next) {
            dispatch(&mut pass, run);
            work = work.saturating_add(run.work);
            next += 1;
            if work >= budget {
                break;
            }
        }
    }
    Encoded { commands: next, work }
}

/// Work of so many arithmetic operations and bytes moved, in operations.
pub(super) fn work_of(flops: u64, bytes: u64) -> u64 {
    flops.max(bytes.saturating_mul(BYTE))
}

/// Operations in the time of a byte, about, on adapters of all kinds.
const BYTE: u64 = 4;

#[cfg(test)]
mod tests {
    use super::super::Uniforms;
    use super::*;
    use crate::engine::gpu::testing::gpu;
    use crate::engine::shader::KernelKey;

    const WORDS: usize = 64;

    /// Two buffers of vectors, and the dispatch that copies the first ones.
    struct Copies {
        gpu: Gpu,
        uniforms: Uniforms,
        buffers: [wgpu::Buffer; 2],
        run: BoundDispatch,
    }

    impl Copies {
        fn new(vectors: u32, work: u64) -> Self {
            let gpu = gpu();
            let usage = wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST;
            let buffers = [1.0f32, 2.0].map(|value| {
                let buffer = gpu.buffer("words", 4 * WORDS as u64, usage).unwrap();
                gpu.upload(&buffer, 0, bytemuck::cast_slice(&[value; WORDS]));
                buffer
            });
            let kernel = gpu.kernel(&KernelKey::new("bench_copy.wgsl")).unwrap();
            let mut uniforms = Uniforms::new(&gpu, [kernel.clone()]).unwrap();
            uniforms.set(0, &[("count", &[vectors])]).unwrap();
            uniforms.send(&gpu);
            let [src, out] = &buffers;
            let named = [
                ("out", BufferPart::whole(out)),
                ("params", uniforms.part(0).unwrap()),
                ("src", BufferPart::words(src, 0, WORDS)),
                ("nothing", BufferPart::whole(out)),
            ];
            let group = bind(&gpu, "copy", &kernel, &named).unwrap();
            let label = "copy".to_string();
            let run = BoundDispatch { label, kernel, group, groups: [1, 1], work };
            Self { gpu, uniforms, buffers, run }
        }

        fn read(&self) -> Vec<f32> {
            let bytes = self.gpu.download(&self.buffers[1], 0, 4 * WORDS as u64).unwrap();
            bytemuck::pod_collect_to_vec(&bytes)
        }
    }

    fn mixed(ones: usize) -> Vec<f32> {
        (0..WORDS).map(|at| if at < ones { 1.0 } else { 2.0 }).collect()
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn what_is_bound_by_name_runs_with_its_parameters() {
        let copies = Copies::new(3, 0);
        let command = Command::Dispatch(copies.run.clone());
        submit(&copies.gpu, "copy", std::slice::from_ref(&command)).unwrap();
        assert_eq!(copies.read(), mixed(12));
        copies.uniforms.change(&copies.gpu, 0, "count", 5).unwrap();
        submit(&copies.gpu, "copy", std::slice::from_ref(&command)).unwrap();
        assert_eq!(copies.read(), mixed(20));
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn a_variable_without_memory_is_named() {
        let copies = Copies::new(1, 0);
        let named = [("src", BufferPart::whole(&copies.buffers[0]))];
        let error = bind(&copies.gpu, "copy", &copies.run.kernel, &named).unwrap_err().to_string();
        assert!(error.contains("bench_copy.wgsl") && error.contains("params"), "{error}");
    }

    /// Whatever the work, so that each dispatch may be a submission of its own.
    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn commands_run_in_their_order() {
        for work in [0, u64::MAX / 4] {
            let copies = Copies::new(4, work);
            let [src, out] = &copies.buffers;
            let run = Command::Dispatch(copies.run.clone());
            let copy = |from: &wgpu::Buffer, to: &wgpu::Buffer, at: usize, words: usize| {
                let (at, bytes) = (4 * at as u64, 4 * words as u64);
                Command::Copy { from: from.clone(), to: to.clone(), at, bytes }
            };
            // the source takes what the first dispatch made, the second half of the result what the source is then
            let commands =
                [run.clone(), copy(out, src, 0, 64), run.clone(), copy(src, out, 32, 32), run];
            let launch = submit(&copies.gpu, "in order", &commands).unwrap();
            assert!(launch.last.is_some() && launch.encoding > 0.0 && launch.submitting > 0.0);
            let mut expected = mixed(16);
            expected[32..48].fill(1.0);
            assert_eq!(copies.read(), expected);
        }
        let launch = submit(&gpu(), "nothing", &[]).unwrap();
        assert!(launch.last.is_none() && launch.encoding == 0.0);
    }
    /// Work that takes longer than it seemed to: the next submissions hold as much as an eighth of a second does.
    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn submissions_hold_what_the_measured_pace_allows() {
        const DISPATCHES: u64 = 20_000;
        let mut copies = Copies::new(1, 0);
        let gpu = copies.gpu.clone();
        let budget = gpu.submission_budget();
        copies.run.work = budget / DISPATCHES;
        let commands = vec![Command::Dispatch(copies.run.clone()); DISPATCHES as usize];
        let start = Instant::now();
        submit(&gpu, "many", &commands).unwrap();
        gpu.wait().unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let next = gpu.submission_budget() as f64 / budget as f64 * seconds;
        assert!(next < 0.15, "{seconds} s, then {next} s");
    }
}
