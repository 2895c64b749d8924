//! Timings of a configuration: forward pass, training step, encoding, memory, and each kernel against the roofline.

use std::borrow::Cow;
use std::time::Instant;

use super::config::Configuration;
use super::median;
use super::roofline::Roofline;
use crate::base::{Error, Result, Stop};
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
    /// Median milliseconds of a forward pass on an image that is on the device, of several that are under way.
    pub forward_ms: f64,
    /// Median milliseconds of a training step on patches that are on the device, of several that are under way, as in training;
    /// none where only inference is timed.
    pub step_ms: Option<f64>,
    /// Median milliseconds in which the host packs a batch that it has; training makes its patches on the device.
    pub pack_ms: Option<f64>,
    /// Median milliseconds in which such a batch gets to the device.
    pub upload_ms: Option<f64>,
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
        let (gpu, tuning) = tune::tuned(gpu, self.tuning, &workloads, &Stop::default())?;
        let example = Example::of(configuration)?;
        let mut report = ConfigurationReport {
            name: configuration.name,
            forward_ms: f64::NAN,
            step_ms: None,
            pack_ms: None,
            upload_ms: None,
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

/// Seconds of runs that are under way before the host waits, and how many runs at most.
const UNDER_WAY: f64 = 0.1;
const MOST_UNDER_WAY: usize = 10;

/// Seconds of a run that needs no others to be under way.
const LONG: f64 = 0.5;

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
        self.host(gpu, &session, example, report)?;
        report.step_ms = Some(self.paced(gpu, || session.update(0, 1e-3).map(drop))?);
        let launches = (0..repeats).map(|_| session.launch_seconds(0));
        let launches = launches.collect::<Result<Vec<_>>>()?;
        report.encode_ms = Some(median(launches.iter().map(|l| l.encoding * 1e3).collect()));
        report.submit_ms = Some(median(launches.iter().map(|l| l.submitting * 1e3).collect()));
        if let Some(roofline) = self.roofline {
            for domain in configuration.distinct() {
                if domain > 0 {
                    self.other_step(&mut session, domain, example)?;
                }
                report.kernels.extend(kernels(session.time_commands(domain, repeats)?, roofline));
            }
            slowest_first(&mut report.kernels);
        }
        Ok(())
    }

    /// What the host does for a batch that it has.
    fn host(
        &self,
        gpu: &Gpu,
        session: &Session,
        example: &Example,
        report: &mut ConfigurationReport,
    ) -> Result<()> {
        let Example { image, labels } = example;
        let (mut packs, mut uploads) = (Vec::new(), Vec::new());
        for _ in 0..self.repeats {
            let start = Instant::now();
            let batch = session.pack(0, image, labels)?;
            packs.push(start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            session.upload(0, &batch)?;
            // what is written goes along with the next submission
            gpu.submit("upload", gpu.device().create_command_encoder(&Default::default()))?;
            gpu.wait()?;
            uploads.push(start.elapsed().as_secs_f64() * 1e3);
        }
        (report.pack_ms, report.upload_ms) = (Some(median(packs)), Some(median(uploads)));
        Ok(())
    }

    /// Median milliseconds of a run, of as many as are under way for a while before the host waits; after as many to warm up.
    fn paced(&self, gpu: &Gpu, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut batch = |runs: usize| {
            let start = Instant::now();
            (0..runs).try_for_each(|_| run())?;
            gpu.wait()?;
            Ok(start.elapsed().as_secs_f64() / runs as f64)
        };
        // the first may find caches and clocks cold
        let first: f64 = batch(1)?;
        let runs = match first < LONG {
            true => ((UNDER_WAY / batch(MOST_UNDER_WAY)?) as usize).clamp(1, MOST_UNDER_WAY),
            false => 1,
        };
        let times = (0..self.repeats).map(|_| batch(runs));
        Ok(1e3 * median(times.collect::<Result<_>>()?))
    }

    /// A step of a domain that is not timed as a whole, so that its commands run on what they run on in training: a partly labelled
    /// one lacks its last class.
    fn other_step(&self, session: &mut Session, domain: usize, example: &Example) -> Result<()> {
        let Example { image, labels } = example;
        let batch = &self.configuration.batches()[domain];
        let last = self.configuration.network.domain(domain)?.classes - 1;
        if !batch.targets.partial {
            return session.step(domain, image, labels, 1e-3).map(drop);
        }
        session.set_unlabelled(domain, &vec![class_bits([last]); batch.samples])?;
        let labels: Vec<u8> = labels.iter().map(|label| label % last as u8).collect();
        session.step(domain, image, &labels, 1e-3).map(drop)
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
        report.forward_ms = self.paced(gpu, || forward.program().run(gpu))?;
        if let (Some(roofline), false) = (self.roofline, configuration.train) {
            report.kernels = kernels(forward.program().time_commands(gpu, repeats)?, roofline);
            slowest_first(&mut report.kernels);
        }
        Ok(())
    }
}

fn slowest_first(kernels: &mut [KernelReport]) {
    kernels.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
}

/// Medians over the rounds.
pub(super) fn kernels(
    commands: Vec<(CommandInfo, Vec<f64>)>,
    roofline: &Roofline,
) -> Vec<KernelReport> {
    let report = |(command, seconds): (CommandInfo, Vec<f64>)| {
        let seconds = median(seconds);
        KernelReport {
            milliseconds: seconds * 1e3,
            gigabytes_per_second: command.bytes as f64 / seconds / 1e9,
            gigaflops_per_second: command.flops as f64 / seconds / 1e9,
            roofline_share: roofline.share(command.flops, command.bytes, seconds),
            command,
        }
    };
    commands.into_iter().map(report).collect()
}
