//! A plan bound to pipelines, bind groups and buffers. Running re-encodes what was prepared and allocates nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::command::{BoundDispatch, BufferPart, Command, Launch, bind, submit, work_of};
use super::pool::Pool;
use super::store::Store;
use super::timing::{Timed, time_rounds};
use super::uniforms::{Setting, Uniforms};
use crate::base::{Error, Result};
use crate::engine::gpu::{Gpu, Kernel};
use crate::engine::graph::{Bind, Dispatch, Graph, Region, Storage, Value};
use crate::engine::plan::{Plan, Step};
use crate::engine::shader::KernelKey;

/// What a command does, for timings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CommandInfo {
    /// What it does.
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

impl CommandInfo {
    fn copy(bytes: u64) -> Self {
        Self {
            label: "copy".into(),
            kernel: "copy",
            variant: String::new(),
            shape: format!("{bytes} bytes"),
            flops: 0,
            bytes: 2 * bytes,
        }
    }
}

/// Everything that one run needs, prepared.
pub struct Program {
    commands: Vec<Command>,
    /// What each command does.
    infos: Vec<CommandInfo>,
    /// Place of each command's parameters; none for a copy.
    places: Vec<Option<usize>>,
    uniforms: Uniforms,
    values: HashMap<Value, (wgpu::Buffer, usize)>,
}

impl Program {
    /// Compiles all kernels (in parallel), keeps them for the next start, and binds them. `tail` are dispatches on the parameter
    /// block that follow the plan.
    pub fn new(
        gpu: &Gpu,
        plan: &Plan,
        tail: &[Dispatch],
        store: &Store,
        pool: &Pool,
    ) -> Result<Self> {
        let program = Self::passing(gpu, plan, tail, store, pool)?;
        gpu.keep_pipelines();
        Ok(program)
    }

    /// As [`Program::new`], without keeping anything: for programs that come and go by hundreds.
    pub fn passing(
        gpu: &Gpu,
        plan: &Plan,
        tail: &[Dispatch],
        store: &Store,
        pool: &Pool,
    ) -> Result<Self> {
        let dispatches: Vec<&Dispatch> = plan.dispatches().chain(tail).collect();
        let kernels = kernels(gpu, &dispatches)?;
        let uniforms = parameters(gpu, &dispatches, &kernels)?;
        let binder = Binder { gpu, graph: &plan.graph, plan, store, pool };
        let (mut commands, mut infos, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut bound = dispatches.iter().zip(&kernels).enumerate();
        let copies = plan.steps.iter().map(|step| match step {
            Step::Run(_) => None,
            Step::Copy { from, to, words } => Some((*from, *to, (*words * 4) as u64)),
        });
        for copy in copies.chain(tail.iter().map(|_| None)) {
            if let Some((from, to, bytes)) = copy {
                let (from, to) = (binder.slot(from)?.clone(), binder.slot(to)?.clone());
                commands.push(Command::Copy { from, to, at: 0, bytes });
                infos.push(CommandInfo::copy(bytes));
                places.push(None);
            } else if let Some((place, (dispatch, kernel))) = bound.next() {
                commands.push(binder.run(dispatch, kernel, uniforms.part(place)?)?);
                infos.push(binder.info(dispatch, kernel));
                places.push(Some(place));
            }
        }
        let slots = plan.value_to_slot.keys();
        let values = slots
            .map(|value| {
                Ok((*value, (binder.slot(*value)?.clone(), plan.graph.info(*value).words)))
            })
            .collect::<Result<_>>()?;
        Ok(Self { commands, infos, places, uniforms, values })
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
    pub fn describe(&self) -> &[CommandInfo] {
        &self.infos
    }

    /// Changes members of a dispatch's uniform before the next run.
    pub fn set_params(
        &self,
        gpu: &Gpu,
        command: usize,
        params: &[(&'static str, u32)],
    ) -> Result<()> {
        let place = self.places.get(command).copied().flatten();
        let place = place.ok_or_else(|| Error::Internal("parameters of a copy".into()))?;
        params.iter().try_for_each(|(name, word)| self.uniforms.change(gpu, place, name, *word))
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

    /// What each command is, and its seconds in each of `rounds` rounds, in which it runs alone, again and again on what the run
    /// before left: see [`time_rounds`].
    pub fn time_commands(&self, gpu: &Gpu, rounds: usize) -> Result<Vec<(CommandInfo, Vec<f64>)>> {
        let mut sequences: Vec<_> = self.commands.iter().map(|c| Timed::new([c])).collect();
        // a copy is timed by the wall clock, dispatches by the device
        let mut seconds = Vec::new();
        for alike in sequences.chunk_by_mut(|a, b| a.has_copies() == b.has_copies()) {
            seconds.extend(time_rounds(gpu, alike, rounds)?);
        }
        Ok(self.infos.iter().cloned().zip(seconds).collect())
    }

    /// The commands that are `counted`, to be timed as one.
    pub fn timed(&self, counted: &[bool]) -> Timed<'_> {
        let commands = self.commands.iter().zip(counted);
        Timed::new(commands.filter(|(_, counted)| **counted).map(|(command, _)| command))
    }

    /// Encodes and submits one run, in submissions of bounded work.
    pub fn run(&self, gpu: &Gpu) -> Result<()> {
        self.run_part(gpu, 0..self.commands.len())?;
        Ok(())
    }

    /// Runs some of the commands, in order.
    pub fn run_part(&self, gpu: &Gpu, part: std::ops::Range<usize>) -> Result<Launch> {
        let commands = self.commands.get(part).ok_or_else(|| {
            Error::Internal(format!("a run has {} commands", self.commands.len()))
        })?;
        submit(gpu, "run", commands)
    }
}

/// The kernel of each dispatch.
fn kernels(gpu: &Gpu, dispatches: &[&Dispatch]) -> Result<Vec<Arc<Kernel>>> {
    let keys: HashSet<&KernelKey> = dispatches.iter().map(|dispatch| &dispatch.kernel).collect();
    let start = Instant::now();
    let kernels: HashMap<&KernelKey, Arc<Kernel>> =
        keys.into_par_iter().map(|key| Ok((key, gpu.kernel(key)?))).collect::<Result<_>>()?;
    log::debug!("{} kernels in {:.2} s", kernels.len(), start.elapsed().as_secs_f64());
    Ok(dispatches.iter().map(|dispatch| kernels[&dispatch.kernel].clone()).collect())
}

/// The parameters of each dispatch, on their way.
fn parameters(gpu: &Gpu, dispatches: &[&Dispatch], kernels: &[Arc<Kernel>]) -> Result<Uniforms> {
    let mut uniforms = Uniforms::new(gpu, kernels.iter().cloned())?;
    for (place, dispatch) in dispatches.iter().enumerate() {
        let words = dispatch.params.iter();
        let members: Vec<Setting<'_>> =
            words.map(|(name, word)| (*name, std::slice::from_ref(word))).collect();
        uniforms.set(place, &members)?;
    }
    uniforms.send(gpu);
    Ok(uniforms)
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

    fn memory(&self, bind: Bind) -> Result<BufferPart<'_>> {
        let (value, start, words) = match bind {
            Bind::Region { region, start, words } => {
                return Ok(BufferPart::words(self.store.buffer(region)?, start, words));
            }
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
                Ok(BufferPart::words(self.store.buffer(region)?, first + start, words))
            }
            None => Ok(BufferPart::words(self.slot(value)?, start, words)),
        }
    }

    fn run(
        &self,
        dispatch: &Dispatch,
        kernel: &Arc<Kernel>,
        params: BufferPart<'_>,
    ) -> Result<Command> {
        let mut named = vec![("params", params)];
        for (name, bind) in &dispatch.bindings {
            named.push((*name, self.memory(*bind)?));
        }
        Ok(Command::Dispatch(BoundDispatch {
            label: dispatch.label.clone(),
            group: bind(self.gpu, &dispatch.label, kernel, &named)?,
            kernel: kernel.clone(),
            groups: dispatch.groups,
            work: work_of(dispatch.flops, dispatch.bytes),
        }))
    }

    fn info(&self, dispatch: &Dispatch, kernel: &Kernel) -> CommandInfo {
        CommandInfo {
            label: dispatch.label.clone(),
            kernel: dispatch.kernel.file,
            variant: kernel.label.split_once(' ').map_or("", |(_, rest)| rest).into(),
            shape: self.shape(dispatch),
            flops: dispatch.flops,
            bytes: dispatch.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::caps;
    use super::*;
    use crate::engine::gpu::testing::gpu;
    use crate::engine::graph::{Caps, Init, Layout, Packing, ParamSpec, Scope};
    use crate::engine::ops::{self, Optimizer, optimizer_dispatch};
    use crate::engine::plan::PlanRequest;

    /// The sum of two inputs, kept, and an update of one parameter.
    struct Small {
        gpu: Gpu,
        store: Store,
        program: Program,
        inputs: [Value; 2],
        sum: Value,
    }

    impl Small {
        fn new() -> Self {
            let gpu = gpu();
            let caps = Caps { max_groups: 1, ..caps(&gpu) };
            let mut graph = Graph::new();
            let layout = Layout::new(1, 4, [1, 2, 2]);
            let inputs = ["a", "b"].map(|name| graph.input(name, layout.clone()));
            let sum = ops::add(&mut graph, inputs[0], inputs[1]).unwrap();
            graph.keep(sum);
            let spec = ParamSpec {
                name: "w".into(),
                dims: vec![4],
                scope: Scope::Shared,
                packing: Packing::Channels { segments: vec![4] },
                init: Init::Constant(0.0),
            };
            let store = Store::new(&gpu, [&spec], true).unwrap();
            let plan = Plan::new(&graph, &caps, &PlanRequest::default()).unwrap();
            let pool = Pool::new(&gpu, [&plan]).unwrap();
            let sgd = Optimizer::Sgd { momentum: 0.0, weight_decay: 0.0 };
            let tail = optimizer_dispatch(&sgd, 0, 64, &caps).unwrap();
            let program = Program::new(&gpu, &plan, &tail, &store, &pool).unwrap();
            Self { gpu, store, program, inputs, sum }
        }
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn a_run_makes_what_is_kept_again_and_again_and_allocates_nothing() {
        let Small { gpu, store, program, inputs: [a, b], sum } = Small::new();
        assert_eq!((program.len(), program.describe().len()), (2, 2));
        let kernels: Vec<&str> = program.describe().iter().map(|info| info.kernel).collect();
        assert_eq!(kernels, ["add.wgsl", "sgd.wgsl"]);
        store.write(&gpu, Region::Grads, "w", &[1.0; 4]).unwrap();
        program.set_params(&gpu, 1, &[("rate", 0.5f32.to_bits())]).unwrap();
        program.write(&gpu, a, &[1.0f32; 16]).unwrap();
        let before = gpu.allocated();
        for run in 1..=3u8 {
            program.write(&gpu, b, &[f32::from(run); 16]).unwrap();
            program.run(&gpu).unwrap();
        }
        assert_eq!(gpu.allocated(), before);
        assert_eq!(program.read::<f32>(&gpu, sum).unwrap()[..16], [4.0; 16]);
        assert_eq!(store.read_all(&gpu, Region::Weights).unwrap(), [[-1.5; 4]]);
        // the first command alone
        let launch = program.run_part(&gpu, 0..1).unwrap();
        assert!(launch.last.is_some());
        assert_eq!(store.read_all(&gpu, Region::Weights).unwrap(), [[-1.5; 4]]);
        let timed = program.time_commands(&gpu, 3).unwrap();
        assert!(timed.iter().map(|(_, seconds)| seconds.len()).eq([3, 3]));
        assert!(timed.iter().flat_map(|(_, seconds)| seconds).all(|seconds| *seconds > 0.0));
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn what_a_program_has_not_is_refused() {
        let Small { gpu, program, inputs: [a, _], .. } = Small::new();
        assert!(program.write(&gpu, a, &[1.0f32; 17]).is_err());
        assert!(program.value(Value(99)).is_err());
        assert!(program.run_part(&gpu, 1..3).is_err());
        assert!(program.set_params(&gpu, 2, &[]).is_err());
        let error = program.set_params(&gpu, 1, &[("speed", 1)]).unwrap_err().to_string();
        assert!(error.contains("sgd.wgsl") && error.contains("speed"), "{error}");
    }
}
