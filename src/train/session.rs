//! One program for each domain over one parameter store, and the update of what took part.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::footprint::{Footprint, Memory, Params, fit, smallest};
use super::targets::{DomainBatch, Given, LossInputs};
use super::update::{Action, Tail, Update, UpdateCommand, touched};
use crate::base::{Error, Result};
use crate::engine::exec::{
    CommandInfo, Launch, LossScale, Pool, Program, Readback, SCALE_WORDS, Store, Verdict, caps,
};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType, Graph, Init, Layout, ParamSpec, Region, Scope, Value};
use crate::engine::ops;
use crate::engine::ops::{LossWeights, Losses, Optimizer, UpdateNumber};
use crate::engine::plan::{Plan, PlanRequest, Step, Workload};
use crate::net;
use crate::net::NetConfig;

/// Which parameters stand still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// No parameter.
    #[default]
    Nothing,
    /// Every parameter that domains share.
    Shared,
    /// The shared convolutions of down and up blocks, as in the published code; the samplers are trained.
    Published,
}

impl Freeze {
    /// Whether a parameter stands still.
    pub fn holds(self, spec: &ParamSpec) -> bool {
        let shared = spec.scope == Scope::Shared;
        match self {
            Self::Nothing => false,
            Self::Shared => shared,
            Self::Published => {
                let blocks = ["down_blocks.", "up_blocks."];
                shared && blocks.iter().any(|block| spec.name.starts_with(block))
            }
        }
    }
}

/// How a session trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SessionSettings {
    /// What is minimised.
    pub loss: LossWeights,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Which parameters stand still.
    pub freeze: Freeze,
    /// How tensors are stored, and what memory there is for them.
    pub footprint: Footprint,
    /// Decay of the exponential moving average of weights, where one is kept.
    pub average: Option<f32>,
}

impl SessionSettings {
    /// Trains every parameter, in f32, in as much memory as it takes.
    pub const fn new(loss: LossWeights, optimizer: Optimizer) -> Self {
        let footprint = Footprint { dtype: DType::F32, vram: None, reserved: 0 };
        Self { loss, optimizer, freeze: Freeze::Nothing, footprint, average: None }
    }

    /// A domain's graph with how it is planned.
    fn workload(&self, built: &Built) -> Workload {
        let options = PlanRequest::training(self.footprint.dtype);
        Workload { graph: built.graph.clone(), options }
    }

    /// Whether gradients pass through f16 and are multiplied by the loss scale.
    fn scaled(&self) -> bool {
        self.footprint.dtype == DType::F16
    }

    /// Buffers of the size of all parameters: weights, gradients, both moments, and the average.
    fn regions(&self) -> u64 {
        4 + u64::from(self.average.is_some())
    }

    /// The loss scale that training begins with.
    fn first_scale(&self) -> LossScale {
        if self.scaled() { LossScale::default() } else { LossScale::ONE }
    }
}

/// A domain's forward, backward and update dispatches.
struct DomainProgram {
    program: Program,
    ends: Ends,
    layout: Layout,
    logits_layout: Layout,
    /// Commands that make the logits.
    forward_commands: usize,
    /// Commands before the update.
    gradient_commands: usize,
    /// What updates parameters.
    updates: Vec<UpdateCommand>,
    /// Parameters that take part, by position in the store.
    touched: BTreeSet<usize>,
}

/// A network under training.
pub struct Session {
    gpu: Gpu,
    store: Store,
    settings: SessionSettings,
    domains: Vec<DomainProgram>,
    /// Updates so far of each parameter, but for the step that is under way.
    counts: Vec<u64>,
    /// The domain of the step of which nobody knows whether it counts.
    under_way: Option<usize>,
    memory: Memory,
    readings: Readback,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its losses.
    pub losses: Losses,
    /// Whether it changed anything.
    pub verdict: Verdict,
}

/// Words of an outcome: those of the loss, then the state of the loss scale.
const OUTCOME_WORDS: usize = LossWeights::WORDS + SCALE_WORDS;

/// A batch packed for one domain's program, by [`Session::pack`].
pub struct PackedBatch {
    image: Vec<f32>,
    labels: Vec<u32>,
}

/// What the host reads and writes of a domain's graph.
struct Ends {
    image: Value,
    labels: Value,
    given: Given,
    loss: Value,
    logits: Value,
}

/// A domain's graph.
struct Built {
    graph: Graph,
    ends: Ends,
}

fn build(
    config: &NetConfig,
    index: usize,
    batch: &DomainBatch,
    settings: &SessionSettings,
) -> Result<Built> {
    let domain = config.domain(index)?;
    let mut graph = Graph::new();
    let layout = Layout::new(batch.samples, domain.channels, batch.patch);
    let voxels = layout.n * layout.voxels();
    let image = graph.input("image", layout);
    let labels = graph.input_words("labels", voxels);
    let logits = net::network(&mut graph, config, index, image)?;
    let logits = ops::materialise(&mut graph, logits)?;
    graph.store_in_f32(logits);
    let inputs = LossInputs { logits, labels, weights: settings.loss };
    let loss = batch.targets.loss(&mut graph, inputs)?;
    graph.freeze(|spec| settings.freeze.holds(spec));
    graph.keep(logits);
    graph.keep(loss.result);
    graph.backward(loss.result, loss.result)?;
    let ends = Ends { image, labels, given: loss.given, loss: loss.result, logits };
    Ok(Built { graph, ends })
}

/// The graphs of all domains.
fn build_all(
    config: &NetConfig,
    batches: &[DomainBatch],
    settings: &SessionSettings,
) -> Result<Vec<Built>> {
    if batches.len() != config.domains.len() {
        return Err(Error::Internal("a batch size for each domain".into()));
    }
    let domains = batches.iter().enumerate();
    domains.map(|(index, batch)| build(config, index, batch, settings)).collect()
}

impl Memory {
    /// What a session takes, planned on paper.
    ///
    /// # Errors
    ///
    /// Where the domains do not fit the network, or the budget is too small.
    pub fn planned(
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: &SessionSettings,
        caps: &Caps,
    ) -> Result<Self> {
        let workloads = workloads(config, batches, settings)?;
        let params = Params { specs: &net::parameters(config)?, regions: settings.regions() };
        Ok(fit(&workloads, &params, settings.footprint, caps)?.memory)
    }

    /// The least that a session can do with, with all recomputed that pays; the budget of `settings` does not count.
    pub fn least(
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: &SessionSettings,
        caps: &Caps,
    ) -> Result<Self> {
        let workloads = workloads(config, batches, settings)?;
        let params = Params { specs: &net::parameters(config)?, regions: settings.regions() };
        Ok(smallest(&workloads, &params, caps)?.memory)
    }
}

/// What a session runs for each domain: what is tuned.
pub fn workloads(
    config: &NetConfig,
    batches: &[DomainBatch],
    settings: &SessionSettings,
) -> Result<Vec<Workload>> {
    let built = build_all(config, batches, settings)?;
    Ok(built.iter().map(|built| settings.workload(built)).collect())
}

impl Session {
    /// Builds the programs of all domains, a batch for each domain of the network; weights are zero until
    /// [`Session::initialise`] or [`Session::write`].
    ///
    /// # Errors
    ///
    /// As [`Memory::planned`], and where the adapter has not the memory.
    pub fn new(
        gpu: &Gpu,
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: SessionSettings,
    ) -> Result<Self> {
        let (params, caps) = (net::parameters(config)?, caps(gpu));
        let built = build_all(config, batches, &settings)?;
        let workloads: Vec<_> = built.iter().map(|built| settings.workload(built)).collect();
        let kept = Params { specs: &params, regions: settings.regions() };
        let fitted = fit(&workloads, &kept, settings.footprint, &caps)?;
        let mut store = Store::new(gpu, &params, true)?;
        if settings.average.is_some() {
            store.keep_average(gpu)?;
        }
        store.write_loss_scale(gpu, &settings.first_scale())?;
        let pool = Pool::new(gpu, &fitted.plans)?;
        let touched =
            built.iter().map(|b| touched(&b.graph, &store)).collect::<Result<Vec<_>>>()?;
        let mut domains = Vec::new();
        for ((built, plan), mine) in built.into_iter().zip(&fitted.plans).zip(&touched) {
            let loss = built.ends.loss;
            let (optimizer, scales) = (&settings.optimizer, settings.scaled());
            let averages = settings.average.is_some();
            let update = Update { mine, all: &touched, optimizer, averages, scales, loss };
            let tail = update.lower(&store, &caps)?;
            let program = Program::new(gpu, plan, &tail.dispatches, &store, &pool)?;
            domains.push(DomainProgram::new(built, program, &tail, mine, plan)?);
        }
        let counts = vec![0; store.params().len()];
        // one under way while the next is asked for
        let readings = Readback::new(gpu, OUTCOME_WORDS, 2)?;
        let (gpu, memory, under_way) = (gpu.clone(), fitted.memory, None);
        Ok(Self { gpu, store, settings, domains, counts, under_way, memory, readings })
    }

    /// Draws Kaiming normal weights; biases zero, norms one. The same seed gives the same weights everywhere.
    pub fn initialise(&self, seed: u64) -> Result<()> {
        use rand::{RngExt, SeedableRng};
        for (index, stored) in self.store.params().iter().enumerate() {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64 + 1);
            let count = stored.spec.packing.elements();
            let values: Vec<f32> = match stored.spec.init {
                Init::Constant(value) => vec![value; count],
                Init::Kaiming { fan_in } => {
                    let deviation = (2.0 / fan_in as f64).sqrt();
                    let mut normal = || {
                        // Box–Muller; 1 - u keeps the logarithm finite
                        let (u, v): (f64, f64) = (rng.random(), rng.random());
                        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
                    };
                    (0..count).map(|_| (normal() * deviation) as f32).collect()
                }
            };
            self.write(Region::Weights, &stored.spec.name, &values)?;
        }
        Ok(())
    }

    /// The parameter store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Writes a tensor in file order.
    pub fn write(&self, region: Region, name: &str, values: &[f32]) -> Result<()> {
        self.store.write(&self.gpu, region, name, values)
    }

    /// Whether a moving average of the weights is kept.
    pub fn averages(&self) -> bool {
        self.settings.average.is_some()
    }

    /// All tensors of a region in file order, in the order of the store.
    pub fn read(&self, region: Region) -> Result<Vec<Vec<f32>>> {
        self.store.read_all(&self.gpu, region)
    }

    /// Updates so far of each parameter, in the order of the store; steps that were left out do not count, nor does the last step
    /// before [`Session::settle`].
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Restores the counts of updates.
    pub fn set_counts(&mut self, counts: Vec<u64>) -> Result<()> {
        if counts.len() != self.counts.len() {
            return Err(Error::Internal("a count for each parameter".into()));
        }
        self.counts = counts;
        Ok(())
    }

    /// Names of the parameters that a domain's step changes.
    pub fn touched(&self, domain: usize) -> Vec<&str> {
        self.domains[domain]
            .touched
            .iter()
            .map(|position| self.store.params()[*position].spec.name.as_str())
            .collect()
    }

    /// What the session takes.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The loss scale, where gradients pass through f16; waits for the last step.
    pub fn loss_scale(&self) -> Result<Option<LossScale>> {
        match self.settings.scaled() {
            false => Ok(None),
            true => self.store.read_loss_scale(&self.gpu).map(Some),
        }
    }

    /// Sets the loss scale, as a checkpoint has it.
    pub fn set_loss_scale(&self, state: &LossScale) -> Result<()> {
        self.store.write_loss_scale(&self.gpu, state)
    }

    /// A batch as a domain's program reads it. Image N,C,D,H,W, labels N,D,H,W.
    pub fn pack(&self, domain: usize, image: &[f32], labels: &[u8]) -> Result<PackedBatch> {
        let layout = &self.domains[domain].layout;
        let image = layout.pack(image)?;
        if labels.len() != layout.n * layout.voxels() {
            return Err(Error::shape("labels", format!("{} labels for {layout}", labels.len())));
        }
        Ok(PackedBatch { image, labels: labels.par_iter().map(|l| u32::from(*l)).collect() })
    }

    /// Writes a batch to where a domain's program reads it.
    pub fn upload(&self, domain: usize, batch: &PackedBatch) -> Result<()> {
        let d = &self.domains[domain];
        d.program.write(&self.gpu, d.ends.image, &batch.image)?;
        d.program.write(&self.gpu, d.ends.labels, &batch.labels)
    }

    /// Sets which classes or regions each sample of a partly labelled domain's next batches does not label, until set again: bit
    /// `k % 32` of word `k / 32` for output k. Background is always labelled. No voxel of a sample may hold a class that it does
    /// not label.
    pub fn set_unlabelled(&mut self, domain: usize, samples: &[[u32; 8]]) -> Result<()> {
        self.domains[domain].ends.given.set_unlabelled(samples)
    }

    /// Forward and backward pass, no update. Image N,C,D,H,W, labels N,D,H,W. Where gradients pass through f16 those of the
    /// parameters are still multiplied by the loss scale.
    pub fn gradients(&self, domain: usize, image: &[f32], labels: &[u8]) -> Result<()> {
        self.upload(domain, &self.pack(domain, image, labels)?)?;
        let d = &self.domains[domain];
        d.ends.given.write(&self.gpu, &d.program)?;
        d.program.run_part(&self.gpu, 0..d.gradient_commands)?;
        Ok(())
    }

    /// One training step at learning rate `lr`, as [`Session::update`]. Image N,C,D,H,W, labels N,D,H,W.
    pub fn step(
        &mut self,
        domain: usize,
        image: &[f32],
        labels: &[u8],
        lr: f64,
    ) -> Result<Option<Outcome>> {
        self.upload(domain, &self.pack(domain, image, labels)?)?;
        self.update(domain, lr)
    }

    /// Buffers of a domain's packed image and of its labels, a word each, for who writes them on the GPU.
    pub fn inputs(&self, domain: usize) -> Result<[&wgpu::Buffer; 2]> {
        let d = &self.domains[domain];
        Ok([d.program.value(d.ends.image)?.0, d.program.value(d.ends.labels)?.0])
    }

    /// One training step at learning rate `lr` on inputs that are in place. A step whose loss or gradients are not finite changes
    /// nothing. Gives what became of the step before, which it waits for, unless [`Session::settle`] gave it.
    pub fn update(&mut self, domain: usize, lr: f64) -> Result<Option<Outcome>> {
        let before = self.under_way.map(|domain| &self.domains[domain].touched);
        let d = &self.domains[domain];
        for UpdateCommand { action, command, param } in &d.updates {
            let after_skip = self.counts[*param] + 1;
            let usual = after_skip + u64::from(before.is_some_and(|b| b.contains(param)));
            let number = UpdateNumber { usual, after_skip };
            let params = match (action, self.settings.average) {
                (Action::Average, Some(decay)) => ops::average_params(decay, number),
                _ => self.settings.optimizer.step_params(lr, number),
            };
            d.program.set_params(&self.gpu, *command, &params)?;
        }
        d.ends.given.write(&self.gpu, &d.program)?;
        d.program.run(&self.gpu)?;
        let (loss, _) = d.program.value(d.ends.loss)?;
        let state = self.store.buffer(Region::Scale)?;
        self.readings.ask(&self.gpu, &[(loss, LossWeights::WORDS), (state, SCALE_WORDS)])?;
        let outcome = self.settle()?;
        self.under_way = Some(domain);
        Ok(outcome)
    }

    /// The network alone on inputs that are in place, since no step or backward pass ran over them; [`Session::logits`] and [`Session::packed_logits`] give what it makes.
    pub fn forward(&self, domain: usize) -> Result<()> {
        let d = &self.domains[domain];
        d.ends.given.write(&self.gpu, &d.program)?;
        d.program.run_part(&self.gpu, 0..d.forward_commands)?;
        Ok(())
    }

    /// The layout of a domain's logits.
    pub fn logits_layout(&self, domain: usize) -> &Layout {
        &self.domains[domain].logits_layout
    }

    /// Some words of a domain's logits as they lie in memory (N, K/4, D, H, W, 4), of its last run; waits for it.
    pub fn packed_logits(&self, domain: usize, words: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let d = &self.domains[domain];
        self.part(d.program.value(d.ends.logits)?.0, words)
    }

    /// Some of the labels (N, D, H, W) that are in place for a domain, until a backward pass takes their memory; waits for what is to
    /// write them.
    pub fn labels(&self, domain: usize, words: std::ops::Range<usize>) -> Result<Vec<u32>> {
        let d = &self.domains[domain];
        self.part(d.program.value(d.ends.labels)?.0, words)
    }

    fn part<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        words: std::ops::Range<usize>,
    ) -> Result<Vec<T>> {
        let [offset, bytes] = [words.start, words.len()].map(|words| 4 * words as u64);
        Ok(bytemuck::pod_collect_to_vec(&self.gpu.download(buffer, offset, bytes)?))
    }

    /// What became of the last step, unless that is known; waits for it.
    pub fn settle(&mut self) -> Result<Option<Outcome>> {
        let Some(domain) = self.under_way.take() else { return Ok(None) };
        let words = self.readings.take::<u32>(&self.gpu)?.unwrap_or_default();
        let (loss, state) = words.split_at(LossWeights::WORDS.min(words.len()));
        let state = state.first_chunk().ok_or_else(|| Error::Internal("no step's state".into()))?;
        let verdict = Verdict::of(state);
        if verdict == Verdict::Counted {
            self.domains[domain].touched.iter().for_each(|position| self.counts[*position] += 1);
        }
        let loss: Vec<f32> = loss.iter().map(|word| f32::from_bits(*word)).collect();
        Ok(Some(Outcome { losses: self.losses_of(&loss)?, verdict }))
    }

    /// What each command of a domain's step is and its seconds in each of `rounds` rounds, one by one; the inputs are whatever the
    /// last step left.
    pub fn time_commands(
        &self,
        domain: usize,
        rounds: usize,
    ) -> Result<Vec<(CommandInfo, Vec<f64>)>> {
        self.domains[domain].program.time_commands(&self.gpu, rounds)
    }

    /// Seconds to encode and to submit a domain's forward and backward pass; waits for it afterwards.
    pub fn launch_seconds(&self, domain: usize) -> Result<Launch> {
        let d = &self.domains[domain];
        let launch = d.program.run_part(&self.gpu, 0..d.gradient_commands)?;
        self.gpu.wait()?;
        Ok(launch)
    }

    /// Losses of a domain's last run; waits for it.
    pub fn losses(&self, domain: usize) -> Result<Losses> {
        let d = &self.domains[domain];
        let words: Vec<f32> = d.program.read(&self.gpu, d.ends.loss)?;
        self.losses_of(&words)
    }

    fn losses_of(&self, words: &[f32]) -> Result<Losses> {
        let words =
            words.first_chunk().ok_or_else(|| Error::Internal("a loss cut short".into()))?;
        Ok(self.settings.loss.losses(words))
    }

    /// Logits N,K,D,H,W of a domain's last run; waits for it.
    pub fn logits(&self, domain: usize) -> Result<Vec<f32>> {
        let d = &self.domains[domain];
        d.logits_layout.unpack(&d.program.read(&self.gpu, d.ends.logits)?)
    }
}

impl DomainProgram {
    fn new(
        built: Built,
        program: Program,
        tail: &Tail,
        touched: &BTreeSet<usize>,
        plan: &Plan,
    ) -> Result<Self> {
        let gradient_commands = plan.steps.len();
        // nothing but the loss reads labels
        let is_loss = |step: &Step| match step {
            Step::Run(dispatch) => dispatch.reads(built.ends.labels),
            Step::Copy { .. } => false,
        };
        let forward_commands = plan.steps.iter().position(is_loss).unwrap_or(gradient_commands);
        let after = |update: &UpdateCommand| UpdateCommand {
            command: gradient_commands + update.command,
            ..*update
        };
        Ok(Self {
            program,
            layout: built.graph.layout(built.ends.image)?.clone(),
            logits_layout: built.graph.layout(built.ends.logits)?.clone(),
            ends: built.ends,
            forward_commands,
            gradient_commands,
            updates: tail.updates.iter().map(after).collect(),
            touched: touched.clone(),
        })
    }
}
