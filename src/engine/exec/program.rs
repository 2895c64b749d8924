//! A plan bound to pipelines, bind groups and buffers. Running re-encodes what was prepared and allocates nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::Store;
use crate::engine::gpu::{Gpu, Kernel};
use crate::engine::graph::{Bind, Dispatch, Graph, Region, Storage, Value};
use crate::engine::plan::{Plan, Step};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// Activation memory that programs share, since one runs at a time: the k-th largest slot of each uses the k-th buffer.
pub struct Pool {
    buffers: Vec<wgpu::Buffer>,
    bytes: u64,
}

impl Pool {
    /// Bytes of the buffers that serve every one of the plans.
    pub fn sizes<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Vec<u64> {
        let mut sizes: Vec<u64> = Vec::new();
        for plan in plans {
            for (index, bytes) in plan.slots.iter().enumerate() {
                match sizes.get_mut(index) {
                    Some(size) => *size = (*size).max(*bytes),
                    None => sizes.push(*bytes),
                }
            }
        }
        sizes
    }

    /// Buffers large enough for every one of the plans.
    pub fn new<'a>(gpu: &Gpu, plans: impl IntoIterator<Item = &'a Plan>) -> Result<Self> {
        let sizes = Self::sizes(plans);
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffers = sizes
            .iter()
            .enumerate()
            .map(|(index, bytes)| gpu.buffer(&format!("slot {index}"), *bytes, usage))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { buffers, bytes: sizes.iter().sum() })
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What a command does, for timings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CommandInfo {
    pub label: String,
    /// File below `shaders/`, or `copy`.
    pub kernel: &'static str,
    /// Switches and tiles of the kernel.
    pub variant: String,
    /// Layout of the tensor that is written, or read where raw words are written.
    pub shape: String,
    /// Arithmetic operations.
    pub flops: u64,
    /// Bytes that must move.
    pub bytes: u64,
}

enum Command {
    Run { info: CommandInfo, kernel: Arc<Kernel>, group: wgpu::BindGroup, groups: [u32; 2] },
    Copy { from: wgpu::Buffer, to: wgpu::Buffer, bytes: u64 },
}

/// Everything that one run needs, prepared.
pub struct Program {
    commands: Vec<Command>,
    values: HashMap<Value, (wgpu::Buffer, usize)>,
    uniforms: wgpu::Buffer,
    /// Offset and members of the uniform of each dispatch, to change them between runs.
    uniform_places: Vec<Option<UniformPlace>>,
    budget: u64,
}

#[derive(Clone)]
struct UniformPlace {
    offset: u64,
    members: Vec<(String, u32)>,
}

/// Arithmetic operations after which a submission is closed, so that no watchdog resets the GPU.
fn submission_budget(gpu: &Gpu) -> u64 {
    if gpu.is_software() { 4_000_000_000 } else { 200_000_000_000 }
}

impl Program {
    /// Compiles all kernels (in parallel) and binds them. `tail` are dispatches on the parameter block that follow the plan.
    pub fn new(
        gpu: &Gpu,
        plan: &Plan,
        tail: &[Dispatch],
        (store, pool): (&Store, &Pool),
    ) -> Result<Self> {
        let graph = &plan.graph;
        let steps: Vec<Step> = plan
            .steps
            .iter()
            .cloned()
            .chain(tail.iter().cloned().map(Box::new).map(Step::Run))
            .collect();
        let kernels = compile(gpu, &steps)?;
        let binder = Binder { gpu, graph, plan, store, pool };
        let alignment = u64::from(gpu.limits().min_uniform_buffer_offset_alignment);
        let mut places = Vec::new();
        let mut bytes = Vec::new();
        for step in &steps {
            let Step::Run(dispatch) = step else {
                places.push(None);
                continue;
            };
            let kernel = kernel_of(&kernels, &dispatch.kernel)?;
            let offset = (bytes.len() as u64).next_multiple_of(alignment);
            bytes.resize(offset as usize, 0);
            bytes.extend(uniform_bytes(kernel, &dispatch.params)?);
            let members = kernel.reflection.params.clone();
            places.push(Some(UniformPlace { offset, members }));
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = gpu.buffer("parameters of dispatches", bytes.len().max(16) as u64, usage)?;
        gpu.upload(&uniforms, 0, &bytes);
        let mut commands = Vec::new();
        for (step, place) in steps.iter().zip(&places) {
            commands.push(match (step, place) {
                (Step::Run(dispatch), Some(place)) => {
                    let kernel = kernel_of(&kernels, &dispatch.kernel)?;
                    binder.run(dispatch, kernel, &uniforms, place.offset)?
                }
                (Step::Copy { from, to, words }, _) => Command::Copy {
                    from: binder.slot(*from)?.clone(),
                    to: binder.slot(*to)?.clone(),
                    bytes: (*words * 4) as u64,
                },
                _ => return Err(Error::Internal("a dispatch without parameters".into())),
            });
        }
        let mut values = HashMap::new();
        for value in plan.value_to_slot.keys() {
            values.insert(*value, (binder.slot(*value)?.clone(), graph.info(*value).words));
        }
        let budget = submission_budget(gpu);
        Ok(Self { commands, values, uniforms, uniform_places: places, budget })
    }

    /// Number of dispatches and copies of a run.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether a run does nothing.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// What each command does, in order.
    pub fn describe(&self) -> Vec<CommandInfo> {
        self.commands
            .iter()
            .map(|command| match command {
                Command::Run { info, .. } => info.clone(),
                Command::Copy { bytes, .. } => CommandInfo {
                    label: "copy".into(),
                    kernel: "copy",
                    variant: String::new(),
                    shape: format!("{bytes} bytes"),
                    flops: 0,
                    bytes: 2 * bytes,
                },
            })
            .collect()
    }

    /// Changes members of a dispatch's uniform before the next run.
    pub fn set_params(
        &self,
        gpu: &Gpu,
        command: usize,
        params: &[(&'static str, u32)],
    ) -> Result<()> {
        let place = self.uniform_places.get(command).and_then(Option::as_ref);
        let place = place.ok_or_else(|| Error::Internal("parameters of a copy".into()))?;
        for (name, word) in params {
            let member = place.members.iter().find(|(member, _)| member == name);
            let (_, offset) =
                member.ok_or_else(|| Error::Internal(format!("no parameter {name}")))?;
            gpu.upload(&self.uniforms, place.offset + u64::from(*offset), &word.to_le_bytes());
        }
        Ok(())
    }

    /// Writes a value's memory, from its first word.
    pub fn write<T: bytemuck::NoUninit>(&self, gpu: &Gpu, value: Value, data: &[T]) -> Result<()> {
        let (buffer, words) = self.value(value)?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        if bytes.len() > words * 4 {
            return Err(Error::Internal(format!("{} bytes for {words} words", bytes.len())));
        }
        gpu.upload(buffer, 0, bytes);
        Ok(())
    }

    /// Reads a value's memory; meaningful for kept values after a run.
    pub fn read<T: bytemuck::Pod>(&self, gpu: &Gpu, value: Value) -> Result<Vec<T>> {
        let (buffer, words) = self.value(value)?;
        let bytes = gpu.download(buffer, 0, (words * 4) as u64)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// The buffer of a value and its words.
    pub fn value(&self, value: Value) -> Result<(&wgpu::Buffer, usize)> {
        self.values
            .get(&value)
            .map(|(buffer, words)| (buffer, *words))
            .ok_or_else(|| Error::Internal("a value without memory".into()))
    }

    /// Runs the commands one by one, waits for each, and gives what it was and its seconds: the device's own timestamps where
    /// a GPU has them, else the wall clock.
    pub fn time_commands(&self, gpu: &Gpu) -> Result<Vec<(CommandInfo, f64)>> {
        let stamps =
            gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) && !gpu.is_software();
        let infos = self.describe();
        infos
            .into_iter()
            .zip(&self.commands)
            .map(|(info, command)| {
                let seconds = match command {
                    Command::Run { .. } if stamps => self.stamped(gpu, command)?,
                    _ => self.clocked(gpu, command)?,
                };
                Ok((info, seconds))
            })
            .collect()
    }

    fn clocked(&self, gpu: &Gpu, command: &Command) -> Result<f64> {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        self.encode(&mut encoder, std::slice::from_ref(command));
        let start = Instant::now();
        gpu.submit("timed command", encoder)?;
        gpu.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn stamped(&self, gpu: &Gpu, command: &Command) -> Result<f64> {
        let Command::Run { kernel, group, groups, .. } = command else {
            return Err(Error::Internal("a copy has no timestamps".into()));
        };
        let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let ticks = gpu.buffer("timestamps", 16, usage)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("timed command"),
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &queries,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            }),
        });
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(groups[0], groups[1], 1);
        drop(pass);
        encoder.resolve_query_set(&queries, 0..2, &ticks, 0);
        gpu.submit("timed command", encoder)?;
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.download(&ticks, 0, 16)?);
        let period = f64::from(gpu.queue().get_timestamp_period());
        Ok(stamps[1].wrapping_sub(stamps[0]) as f64 * period * 1e-9)
    }

    /// Encodes and submits one run, in submissions of bounded work.
    pub fn run(&self, gpu: &Gpu) -> Result<()> {
        self.run_part(gpu, 0..self.commands.len())?;
        Ok(())
    }

    /// Runs some of the commands, in order; returns the seconds of encoding and of submitting.
    pub fn run_part(&self, gpu: &Gpu, part: std::ops::Range<usize>) -> Result<[f64; 2]> {
        let mut seconds = [0.0; 2];
        let commands = self.commands.get(part).ok_or_else(|| {
            Error::Internal(format!("a run has {} commands", self.commands.len()))
        })?;
        let mut left = commands;
        while !left.is_empty() {
            let mut encoder = gpu
                .device()
                .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("run") });
            let start = Instant::now();
            left = self.encode(&mut encoder, left);
            let commands = gpu.finish("run", encoder)?;
            seconds[0] += start.elapsed().as_secs_f64();
            let start = Instant::now();
            gpu.submit_finished("run", commands)?;
            seconds[1] += start.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }

    /// Encodes commands until the budget is spent; returns those that are left.
    fn encode<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        commands: &'a [Command],
    ) -> &'a [Command] {
        let (mut spent, mut next) = (0, 0);
        while next < commands.len() && spent < self.budget {
            if let Command::Copy { from, to, bytes } = &commands[next] {
                encoder.copy_buffer_to_buffer(from, 0, to, 0, *bytes);
                next += 1;
                continue;
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("run"),
                timestamp_writes: None,
            });
            while let Some(Command::Run { info, kernel, group, groups }) = commands.get(next) {
                pass.insert_debug_marker(&info.label);
                pass.set_pipeline(&kernel.pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(groups[0], groups[1], 1);
                spent += info.flops;
                next += 1;
                if spent >= self.budget {
                    break;
                }
            }
        }
        &commands[next..]
    }
}

fn compile(gpu: &Gpu, steps: &[Step]) -> Result<HashMap<KernelKey, Arc<Kernel>>> {
    let keys: HashSet<&KernelKey> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Run(dispatch) => Some(&dispatch.kernel),
            Step::Copy { .. } => None,
        })
        .collect();
    let start = Instant::now();
    let kernels: HashMap<_, _> = keys
        .into_par_iter()
        .map(|key| Ok((key.clone(), gpu.kernel(key)?)))
        .collect::<Result<_>>()?;
    log::debug!("{} kernels in {:.2} s", kernels.len(), start.elapsed().as_secs_f64());
    gpu.keep_pipelines();
    Ok(kernels)
}

fn kernel_of<'a>(
    kernels: &'a HashMap<KernelKey, Arc<Kernel>>,
    key: &KernelKey,
) -> Result<&'a Arc<Kernel>> {
    kernels.get(key).ok_or_else(|| Error::Internal(format!("{key:?} was not compiled")))
}

fn uniform_bytes(kernel: &Kernel, params: &[(&'static str, u32)]) -> Result<Vec<u8>> {
    let members = &kernel.reflection.params;
    let mut bytes = vec![0; (kernel.reflection.params_bytes as usize).max(16)];
    for (name, word) in params {
        let member = members.iter().find(|(member, _)| member == name);
        let (_, offset) = member.ok_or_else(|| {
            Error::shader(kernel.label.clone(), format!("params has no member {name}"))
        })?;
        let at = *offset as usize;
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}

struct Binder<'a> {
    gpu: &'a Gpu,
    graph: &'a Graph,
    plan: &'a Plan,
    store: &'a Store,
    pool: &'a Pool,
}

impl Binder<'_> {
    /// Layout of the output, else of the first tensor that is bound.
    fn shape(&self, dispatch: &Dispatch) -> String {
        let layout = |bind: &Bind| match bind {
            Bind::Value { value, .. } => self.graph.info(*value).layout.as_ref(),
            Bind::Region { .. } => None,
        };
        let out = dispatch.bindings.iter().find(|(name, _)| *name == "out");
        let tensors = out.into_iter().chain(&dispatch.bindings);
        tensors.filter_map(|(_, bind)| layout(bind)).next().map_or(String::new(), |l| l.to_string())
    }

    fn slot(&self, value: Value) -> Result<&wgpu::Buffer> {
        self.plan
            .value_to_slot
            .get(&value)
            .and_then(|slot| self.pool.buffers.get(*slot))
            .ok_or_else(|| {
                Error::Internal(format!("{} has no memory", self.graph.info(value).name))
            })
    }

    fn region(
        &self,
        region: Region,
        start: usize,
        words: usize,
    ) -> Result<(&wgpu::Buffer, u64, u64)> {
        Ok((self.store.buffer(region)?, (start * 4) as u64, (words * 4) as u64))
    }

    fn memory(&self, bind: Bind) -> Result<(&wgpu::Buffer, u64, u64)> {
        let (value, start, words) = match bind {
            Bind::Region { region, start, words } => return self.region(region, start, words),
            Bind::Value { value, start, words } => (value, start, words),
        };
        let region = match self.graph.info(value).storage {
            Storage::Param(index) => Some((Region::Weights, index)),
            Storage::Grad(index) => Some((Region::Grads, index)),
            _ => None,
        };
        match region {
            Some((region, index)) => {
                let first = self.store.get(&self.graph.params()[index].name)?.start;
                self.region(region, first + start, words)
            }
            None => Ok((self.slot(value)?, (start * 4) as u64, (words * 4) as u64)),
        }
    }

    fn run(
        &self,
        dispatch: &Dispatch,
        kernel: &Arc<Kernel>,
        uniforms: &wgpu::Buffer,
        offset: u64,
    ) -> Result<Command> {
        let mut entries = Vec::new();
        for binding in &kernel.reflection.bindings {
            let (buffer, start, bytes) = if binding.name == "params" {
                (uniforms, offset, u64::from(kernel.reflection.params_bytes).max(16))
            } else {
                let bind = dispatch.bindings.iter().find(|(name, _)| *name == binding.name);
                let (_, bind) = bind.ok_or_else(|| {
                    Error::shader(
                        kernel.label.clone(),
                        format!("nothing is bound to {}", binding.name),
                    )
                })?;
                self.memory(*bind)?
            };
            entries.push(wgpu::BindGroupEntry {
                binding: binding.index,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: start,
                    size: wgpu::BufferSize::new(bytes),
                }),
            });
        }
        let group = self.gpu.bind_group(&dispatch.label, kernel, &entries)?;
        Ok(Command::Run {
            info: CommandInfo {
                label: dispatch.label.clone(),
                kernel: dispatch.kernel.file,
                variant: kernel.label.split_once(' ').map_or("", |(_, rest)| rest).into(),
                shape: self.shape(dispatch),
                flops: dispatch.flops,
                bytes: dispatch.bytes,
            },
            kernel: kernel.clone(),
            group,
            groups: dispatch.groups,
        })
    }
}
