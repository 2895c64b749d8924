//! Timings of a configuration: forward pass, training step, encoding, memory, and each kernel against the roofline.

use std::borrow::Cow;
use std::time::Instant;

use super::config::Configuration;
use super::median;
use super::roofline::Roofline;
use crate::base::{Error, Result};
use crate::engine::exec::{CommandInfo, caps};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{DType, Init, Region};
use crate::engine::ops::{LossWeights, Optimizer, class_bits};
use crate::engine::plan::Workload;
use crate::engine::tune;
use crate::net;
use crate::segment::{Forward, ForwardSpec};
use crate::train;
use crate::train::{Footprint, Memory, Session, SessionSettings};

/// One kernel at one shape.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct KernelReport {
    /// What runs.
    #[serde(flatten)]
    pub command: CommandInfo,
    /// Median time.
    pub milliseconds: f64,
    /// Bytes that it must move, by time.
    pub gigabytes_per_second: f64,
    /// Its arithmetic, by time.
    pub gigaflops_per_second: f64,
    /// Least possible time over the time taken.
    pub roofline_share: f64,
}

/// What a configuration takes.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ConfigurationReport {
    /// The configuration's name.
    pub name: &'static str,
    /// Median milliseconds of a synchronised forward pass.
    pub forward_ms: f64,
    /// Median milliseconds of a synchronised training step; none where only inference is timed.
    pub step_ms: Option<f64>,
    /// Median milliseconds to encode a step.
    pub encode_ms: Option<f64>,
    /// Median milliseconds to submit a step; adapters that compute on the CPU may do the work in it.
    pub submit_ms: Option<f64>,
    /// Seconds from an open device to the end of the first training step; shaders that the driver keeps compiled make it
    /// shorter the second time.
    pub start_s: Option<f64>,
    /// What tuning before that did.
    pub tuning: tune::Report,
    /// Mebibytes of weights, moments, gradients and activations that the plan names.
    pub planned_mib: f64,
    /// Tensors that the backward pass makes again.
    pub recomputed: usize,
    /// Mebibytes of all buffers that were made.
    pub allocated_mib: f64,
    /// Each kernel of a step, where they were timed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelReport>,
}

/// How a configuration is timed.
#[derive(Clone, Copy)]
pub struct Timing<'a> {
    /// What is timed.
    pub configuration: &'a Configuration,
    /// How tensors are stored, and the memory to stay within.
    pub footprint: Footprint,
    /// Timed runs of each figure, after one to warm up.
    pub repeats: usize,
    /// What each kernel is rated against; without it kernels are not timed one by one.
    pub roofline: Option<&'a Roofline>,
    /// How the variants of kernels are chosen before.
    pub tuning: tune::Mode,
}

/// What a step reads: an image N, C, D, H, W and labels N, D, H, W.
struct Example {
    image: Vec<f32>,
    labels: Vec<u8>,
}

impl Example {
    fn of(configuration: &Configuration) -> Result<Self> {
        let batch = &configuration.batch;
        let domain = configuration.network.domain(0)?;
        let voxels = batch.samples * batch.patch.iter().product::<usize>();
        let grey = |i: usize| ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
        let image = (0..voxels * domain.channels).map(grey).collect();
        let labels = (0..voxels).map(|i| ((i / 97) % domain.classes) as u8).collect();
        Ok(Self { image, labels })
    }
}

impl Timing<'_> {
    /// Times the configuration.
    pub fn measure(&self, gpu: &Gpu) -> Result<ConfigurationReport> {
        let Self { configuration, footprint, .. } = *self;
        let workloads = workloads(configuration, footprint.dtype)?;
        let (gpu, tuning) = tune::tuned(gpu, self.tuning, &workloads)?;
        let example = Example::of(configuration)?;
        let mut report = ConfigurationReport {
            name: configuration.name,
            forward_ms: f64::NAN,
            step_ms: None,
            encode_ms: None,
            submit_ms: None,
            start_s: None,
            tuning,
            planned_mib: 0.0,
            recomputed: 0,
            allocated_mib: 0.0,
            kernels: Vec::new(),
        };
        if configuration.train {
            self.train(&gpu, &example, &mut report)?;
        }
        self.forward(&gpu, &example, &mut report)?;
        Ok(report)
    }
}

/// The forward pass of a configuration.
fn forward_spec(configuration: &Configuration, dtype: DType) -> ForwardSpec<'_> {
    let (samples, patch) = (configuration.batch.samples, configuration.batch.patch);
    ForwardSpec { network: &configuration.network, domain: 0, samples, patch, dtype }
}

/// What a configuration runs.
pub fn workloads(configuration: &Configuration, dtype: DType) -> Result<Vec<Workload>> {
    let mut workloads = vec![forward_spec(configuration, dtype).workload()?];
    if configuration.train {
        // every domain has the same batch, hence the same shapes
        let batches = configuration.batches();
        let settings = settings(Footprint { dtype, ..Footprint::default() });
        workloads.extend(train::workloads(&configuration.network, &batches, &settings)?);
    }
    Ok(workloads)
}

const MIB: f64 = 1024.0 * 1024.0;

/// What is timed: every parameter trained by Adam.
fn settings(footprint: Footprint) -> SessionSettings {
    SessionSettings { footprint, ..SessionSettings::new(LossWeights::ce(), Optimizer::adam()) }
}

/// What training takes, planned without running anything: nor need the adapter have it.
pub fn planned(gpu: &Gpu, configuration: &Configuration, footprint: Footprint) -> Result<Memory> {
    let batches = configuration.batches();
    Memory::planned(&configuration.network, &batches, &settings(footprint), &caps(gpu))
}

/// The least that training takes with all recomputed that pays.
pub fn least(gpu: &Gpu, configuration: &Configuration, dtype: DType) -> Result<Memory> {
    let batches = configuration.batches();
    let settings = settings(Footprint { dtype, ..Footprint::default() });
    Memory::least(&configuration.network, &batches, &settings, &caps(gpu))
}

impl Timing<'_> {
    fn train(&self, gpu: &Gpu, example: &Example, report: &mut ConfigurationReport) -> Result<()> {
        let before = gpu.allocated();
        let start = Instant::now();
        let Self { configuration, footprint, repeats, .. } = *self;
        let Example { image, labels } = example;
        let batches = configuration.batches();
        let settings = settings(footprint);
        let mut session = Session::new(gpu, &configuration.network, &batches, settings)?;
        report.planned_mib = session.memory().total() as f64 / MIB;
        report.recomputed = session.memory().recomputed;
        session.initialise(0)?;
        session.step(0, image, labels, 1e-3)?;
        gpu.wait()?;
        report.start_s = Some(start.elapsed().as_secs_f64());
        // as a checkpoint does
        session.read(Region::Weights)?;
        report.allocated_mib = (gpu.allocated() - before) as f64 / MIB;
        let (mut steps, mut encodes, mut submits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..repeats {
            let start = Instant::now();
            session.step(0, image, labels, 1e-3)?;
            gpu.wait()?;
            steps.push(start.elapsed().as_secs_f64() * 1e3);
            let launch = session.launch_seconds(0)?;
            encodes.push(launch.encoding * 1e3);
            submits.push(launch.submitting * 1e3);
        }
        report.step_ms = Some(median(steps));
        report.encode_ms = Some(median(encodes));
        report.submit_ms = Some(median(submits));
        if let Some(roofline) = self.roofline {
            for domain in configuration.distinct() {
                if domain > 0 {
                    self.other_step(&mut session, domain, example)?;
                }
                let times = (0..repeats).map(|_| session.time_commands(domain));
                report.kernels.extend(kernels(&times.collect::<Result<Vec<_>>>()?, roofline)?);
            }
            slowest_first(&mut report.kernels);
        }
        Ok(())
    }

    /// A step of a domain that is not timed as a whole, so that its commands run on what they run on in training: a partly labelled
    /// one lacks its last class.
    fn other_step(&self, session: &mut Session, domain: usize, example: &Example) -> Result<()> {
        let Example { image, labels } = example;
        let batch = &self.configuration.batches()[domain];
        let last = self.configuration.network.domain(domain)?.classes - 1;
        if !batch.targets.partial {
            return session.step(domain, image, labels, 1e-3);
        }
        session.set_unlabelled(domain, &vec![class_bits([last]); batch.samples])?;
        let labels: Vec<u8> = labels.iter().map(|label| label % last as u8).collect();
        session.step(domain, image, &labels, 1e-3)
    }

    fn forward(
        &self,
        gpu: &Gpu,
        example: &Example,
        report: &mut ConfigurationReport,
    ) -> Result<()> {
        let before = gpu.allocated();
        let Self { configuration, repeats, .. } = *self;
        let params = net::parameters(&configuration.network)?;
        let weights = |name: &str| {
            let spec = params.iter().find(|p| p.name == name);
            let spec = spec.ok_or_else(|| Error::Internal(format!("no parameter {name}")))?;
            let count = spec.packing.elements();
            let value = |i: usize| match spec.init {
                Init::Constant(value) => value,
                Init::Kaiming { fan_in } => {
                    (((i * 7919) % 1000) as f32 / 500.0 - 1.0) * (6.0 / fan_in as f32).sqrt()
                }
            };
            Ok(Cow::Owned((0..count).map(value).collect()))
        };
        let forward =
            Forward::new(gpu, &forward_spec(configuration, self.footprint.dtype), weights)?;
        if !configuration.train {
            report.planned_mib = forward.bytes() as f64 / MIB;
            report.allocated_mib = (gpu.allocated() - before) as f64 / MIB;
        }
        forward.run(&example.image)?;
        let mut times = Vec::new();
        for _ in 0..repeats {
            let start = Instant::now();
            forward.program().run(gpu)?;
            gpu.wait()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        report.forward_ms = median(times);
        if let (Some(roofline), false) = (self.roofline, configuration.train) {
            let times = (0..repeats)
                .map(|_| forward.program().time_commands(gpu))
                .collect::<Result<Vec<_>>>()?;
            report.kernels = kernels(&times, roofline)?;
            slowest_first(&mut report.kernels);
        }
        Ok(())
    }
}

fn slowest_first(kernels: &mut [KernelReport]) {
    kernels.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
}

/// Medians over the runs.
pub(super) fn kernels(
    runs: &[Vec<(CommandInfo, f64)>],
    roofline: &Roofline,
) -> Result<Vec<KernelReport>> {
    let first = runs.first().ok_or_else(|| Error::Internal("no run was timed".into()))?;
    Ok(first
        .iter()
        .enumerate()
        .map(|(index, (command, _))| {
            let seconds = median(runs.iter().map(|run| run[index].1).collect());
            KernelReport {
                command: command.clone(),
                milliseconds: seconds * 1e3,
                gigabytes_per_second: command.bytes as f64 / seconds / 1e9,
                gigaflops_per_second: command.flops as f64 / seconds / 1e9,
                roofline_share: roofline.share(command.flops, command.bytes, seconds),
            }
        })
        .collect())
}
