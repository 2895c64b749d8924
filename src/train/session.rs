//! One program for each domain over one parameter store, and the update of what took part.

use std::collections::BTreeSet;

use super::footprint::{Fitted, Footprint, Memory, fit, smallest};
use super::targets::{DomainBatch, Given};
use crate::engine::exec::{CommandInfo, Launch, LossScale, Pool, Program, Readback, Store, caps};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{
    Caps, DType, Dispatch, Graph, Init, Layout, ParamSpec, Region, Scope, Storage, Value,
};
use crate::engine::ops;
use crate::engine::ops::{LossWeights, Optimizer};
use crate::engine::plan::Plan;
use crate::net;
use crate::net::NetConfig;
use crate::{Error, Result};

/// Which parameters stand still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
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

/// Loss and update rule of a session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SessionSettings {
    pub loss: LossWeights,
    pub optimizer: Optimizer,
    pub freeze: Freeze,
}

/// Total and the four losses alone.
const LOSSES: usize = 5;

/// A domain's forward, backward and update dispatches.
struct DomainProgram {
    program: Program,
    image: Value,
    labels: Value,
    given: Given,
    loss: Value,
    logits: Value,
    layout: Layout,
    logits_layout: Layout,
    /// Commands before the update.
    gradient_commands: usize,
    /// Command of each update dispatch and a parameter whose count of updates it shares.
    updates: Vec<(usize, usize)>,
    /// Parameters that take part, by position in the store.
    touched: Vec<usize>,
}

/// A network under training.
pub struct Session {
    gpu: Gpu,
    store: Store,
    settings: SessionSettings,
    footprint: Footprint,
    domains: Vec<DomainProgram>,
    /// Updates so far of each parameter.
    counts: Vec<u64>,
    memory: Memory,
    readings: Readback,
}

/// A domain's graph and what the host reads and writes of it.
struct Built {
    graph: Graph,
    image: Value,
    labels: Value,
    given: Given,
    loss: Value,
    logits: Value,
}

fn build(
    config: &NetConfig,
    index: usize,
    batch: &DomainBatch,
    (settings, dtype): (&SessionSettings, DType),
    caps: &Caps,
) -> Result<Built> {
    let domain = config.domain(index)?;
    let mut graph = Graph::sized_for(&caps.storing(dtype));
    let layout = Layout::new(batch.samples, domain.channels, batch.patch);
    let voxels = layout.n * layout.voxels();
    let image = graph.input("image", layout);
    let labels = graph.input_words("labels", voxels);
    let logits = net::network(&mut graph, config, index, image)?;
    let logits = ops::materialise(&mut graph, logits)?;
    let scaled = dtype == DType::F16;
    let loss = batch.targets.loss(&mut graph, [logits, labels], (settings.loss, scaled))?;
    graph.freeze(|spec| settings.freeze.holds(spec));
    graph.keep(logits);
    graph.keep(loss.result);
    graph.backward(loss.result, loss.result)?;
    let stays = |value: Value| value == logits || Some(value) == loss.merged;
    graph.store_as_f16(|value, info| scaled && info.storage == Storage::Tensor && !stays(value));
    Ok(Built { graph, image, labels, given: loss.given, loss: loss.result, logits })
}

/// The graphs of all domains.
fn build_all(
    config: &NetConfig,
    batches: &[DomainBatch],
    kind: (&SessionSettings, DType),
    caps: &Caps,
) -> Result<Vec<Built>> {
    if batches.len() != config.domains.len() {
        return Err(Error::Internal("a batch size for each domain".into()));
    }
    let domains = batches.iter().enumerate();
    domains.map(|(index, batch)| build(config, index, batch, kind, caps)).collect()
}

/// The graphs of all domains, planned.
fn plan_all(
    config: &NetConfig,
    batches: &[DomainBatch],
    (settings, footprint): (&SessionSettings, Footprint),
    (params, caps): (&[ParamSpec], &Caps),
) -> Result<(Vec<Built>, Fitted)> {
    let built = build_all(config, batches, (settings, footprint.dtype), caps)?;
    let graphs = built.iter().map(|b| b.graph.clone()).collect();
    let fitted = fit(graphs, params, footprint, caps)?;
    Ok((built, fitted))
}

impl Memory {
    /// Plans the session on paper.
    pub fn planned(
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: &SessionSettings,
        footprint: Footprint,
        caps: &Caps,
    ) -> Result<Self> {
        let params = net::parameters(config)?;
        Ok(plan_all(config, batches, (settings, footprint), (&params, caps))?.1.memory)
    }

    /// The least that a session can do with, with all recomputed that pays.
    pub fn least(
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: &SessionSettings,
        dtype: DType,
        caps: &Caps,
    ) -> Result<Self> {
        let params = net::parameters(config)?;
        let graphs = graphs(config, batches, (settings, dtype), caps)?;
        Ok(smallest(&graphs, &params, caps)?.memory)
    }
}

/// The graphs of all domains, for an adapter: what is tuned.
pub fn graphs(
    config: &NetConfig,
    batches: &[DomainBatch],
    kind: (&SessionSettings, DType),
    caps: &Caps,
) -> Result<Vec<Graph>> {
    Ok(build_all(config, batches, kind, caps)?.into_iter().map(|built| built.graph).collect())
}

impl Session {
    /// Builds the programs of all domains; weights are zero until [`Session::initialise`] or [`Session::write`].
    pub fn new(
        gpu: &Gpu,
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: SessionSettings,
    ) -> Result<Self> {
        Self::within(gpu, config, batches, settings, Footprint::default())
    }

    /// As [`Session::new`], with tensors stored and memory kept to as `footprint` says.
    pub fn within(
        gpu: &Gpu,
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: SessionSettings,
        footprint: Footprint,
    ) -> Result<Self> {
        let params = net::parameters(config)?;
        let kind = (&settings, footprint);
        let (built, fitted) = plan_all(config, batches, kind, (&params, &caps(gpu)))?;
        let store = Store::new(gpu, &params, true)?;
        store.write_loss_scale(gpu, &LossScale::default())?;
        let pool = Pool::new(gpu, &fitted.plans)?;
        let touched =
            built.iter().map(|b| touched(&b.graph, &store)).collect::<Result<Vec<_>>>()?;
        let mut domains = Vec::new();
        let plans = fitted.graphs.into_iter().zip(&fitted.plans);
        for ((built, (graph, plan)), mine) in built.into_iter().zip(plans).zip(&touched) {
            let built = Built { graph, ..built };
            let update = Update { mine, all: &touched, settings: &settings, footprint };
            domains.push(DomainProgram::new(gpu, (built, plan), &update, (&store, &pool))?);
        }
        let counts = vec![0; store.params().len()];
        // one under way while the next is asked for
        let readings = Readback::new(gpu, LOSSES, 2)?;
        let (gpu, memory) = (gpu.clone(), fitted.memory);
        Ok(Self { gpu, store, settings, footprint, domains, counts, memory, readings })
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

    /// All tensors of a region in file order, in the order of the store.
    pub fn read(&self, region: Region) -> Result<Vec<Vec<f32>>> {
        self.store.read_all(&self.gpu, region)
    }

    /// Updates so far of each parameter, in the order of the store.
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
        match self.footprint.dtype {
            DType::F32 => Ok(None),
            DType::F16 => self.store.read_loss_scale(&self.gpu).map(Some),
        }
    }

    /// Sets the loss scale, as a checkpoint has it.
    pub fn set_loss_scale(&self, state: &LossScale) -> Result<()> {
        self.store.write_loss_scale(&self.gpu, state)
    }

    fn upload(&self, domain: usize, image: &[f32], labels: &[u8]) -> Result<()> {
        let d = &self.domains[domain];
        d.program.write(&self.gpu, d.image, &d.layout.pack(image)?)?;
        let words: Vec<u32> = labels.iter().map(|label| u32::from(*label)).collect();
        if words.len() != d.layout.n * d.layout.voxels() {
            return Err(Error::shape("labels", format!("{} labels for {}", words.len(), d.layout)));
        }
        d.program.write(&self.gpu, d.labels, &words)
    }

    /// Sets which classes or regions each sample of a partly labelled domain's next batches does not label, until set again: bit
    /// `k % 32` of word `k / 32` for output k. Background is always labelled. No voxel of a sample may hold a class that it does
    /// not label.
    pub fn set_unlabelled(&mut self, domain: usize, samples: &[[u32; 8]]) -> Result<()> {
        self.domains[domain].given.set_unlabelled(samples)
    }

    /// Forward and backward pass, no update. Image N,C,D,H,W, labels N,D,H,W. Where gradients pass through f16 those of the
    /// parameters are still multiplied by the loss scale.
    pub fn gradients(&self, domain: usize, image: &[f32], labels: &[u8]) -> Result<()> {
        self.upload(domain, image, labels)?;
        let d = &self.domains[domain];
        d.given.write(&self.gpu, &d.program)?;
        d.program.run_part(&self.gpu, 0..d.gradient_commands)?;
        Ok(())
    }

    /// One training step at learning rate `lr`. Image N,C,D,H,W, labels N,D,H,W.
    pub fn step(&mut self, domain: usize, image: &[f32], labels: &[u8], lr: f64) -> Result<()> {
        self.upload(domain, image, labels)?;
        self.update(domain, lr)
    }

    /// Buffers of a domain's packed image and of its labels, a word each, for who writes them on the GPU.
    pub fn inputs(&self, domain: usize) -> Result<[&wgpu::Buffer; 2]> {
        let d = &self.domains[domain];
        Ok([d.program.value(d.image)?.0, d.program.value(d.labels)?.0])
    }

    /// One training step at learning rate `lr` on inputs that are in place.
    pub fn update(&mut self, domain: usize, lr: f64) -> Result<()> {
        let d = &self.domains[domain];
        for position in &d.touched {
            self.counts[*position] += 1;
        }
        for (command, position) in &d.updates {
            let params = self.settings.optimizer.step_params(lr, self.counts[*position]);
            d.program.set_params(&self.gpu, *command, &params)?;
        }
        d.given.write(&self.gpu, &d.program)?;
        d.program.run(&self.gpu)
    }

    /// What each command of a domain's step is and its seconds, one by one; the inputs are whatever the last step left.
    pub fn time_commands(&self, domain: usize) -> Result<Vec<(CommandInfo, f64)>> {
        self.domains[domain].program.time_commands(&self.gpu)
    }

    /// Seconds to encode and to submit a domain's forward and backward pass; waits for it afterwards.
    pub fn launch_seconds(&self, domain: usize) -> Result<Launch> {
        let d = &self.domains[domain];
        let launch = d.program.run_part(&self.gpu, 0..d.gradient_commands)?;
        self.gpu.wait()?;
        Ok(launch)
    }

    /// Total, cross-entropy, focal, Dice and Lovász loss of a domain's last run; waits for it.
    pub fn losses(&self, domain: usize) -> Result<[f32; LOSSES]> {
        let d = &self.domains[domain];
        let values: Vec<f32> = d.program.read(&self.gpu, d.loss)?;
        Ok([values[0], values[1], values[2], values[3], values[4]])
    }

    /// Asks for the losses of a domain's last run, which [`Session::take_losses`] gives; waits for nothing.
    pub fn ask_losses(&mut self, domain: usize) -> Result<()> {
        let d = &self.domains[domain];
        let (buffer, _) = d.program.value(d.loss)?;
        self.readings.ask(&self.gpu, buffer, LOSSES)
    }

    /// The losses that were asked for longest ago, as [`Session::losses`] gives them; waits for their run, not for later ones.
    pub fn take_losses(&mut self) -> Result<Option<[f32; LOSSES]>> {
        let reading = self.readings.take::<f32>(&self.gpu)?;
        Ok(reading.and_then(|values| values.try_into().ok()))
    }

    /// Logits N,K,D,H,W of a domain's last run; waits for it.
    pub fn logits(&self, domain: usize) -> Result<Vec<f32>> {
        let d = &self.domains[domain];
        d.logits_layout.unpack(&d.program.read(&self.gpu, d.logits)?)
    }
}

fn touched(graph: &Graph, store: &Store) -> Result<BTreeSet<usize>> {
    graph
        .trained_params()
        .into_iter()
        .map(|index| {
            let name = &graph.params()[index].name;
            store.position(name).ok_or_else(|| Error::Internal(format!("{name} is not stored")))
        })
        .collect()
}

/// Neighbouring parameters that the same domains update: they share their count of updates.
fn ranges(mine: &BTreeSet<usize>, all: &[BTreeSet<usize>]) -> Vec<(usize, usize)> {
    let set = |position: usize| all.iter().map(|t| t.contains(&position)).collect::<Vec<_>>();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &position in mine {
        match ranges.last_mut() {
            Some((first, last)) if *last + 1 == position && set(*first) == set(position) => {
                *last = position;
            }
            _ => ranges.push((position, position)),
        }
    }
    ranges
}

/// What is updated after a domain's backward pass, and how.
struct Update<'a> {
    /// Parameters of this domain and of every domain.
    mine: &'a BTreeSet<usize>,
    all: &'a [BTreeSet<usize>],
    settings: &'a SessionSettings,
    footprint: Footprint,
}

impl Update<'_> {
    fn lower(&self, store: &Store, caps: &Caps) -> Result<Tail> {
        let scaled = self.footprint.dtype == DType::F16;
        let spans: Vec<(usize, usize, usize)> = ranges(self.mine, self.all)
            .into_iter()
            .map(|(first, last)| {
                let last = &store.params()[last];
                let start = store.params()[first].start;
                (first, start, last.start + last.span - start)
            })
            .collect();
        let mut tail = Vec::new();
        if scaled {
            let words: Vec<_> = spans.iter().map(|(_, start, words)| (*start, *words)).collect();
            tail = ops::loss_scale_dispatches(&words, caps)?;
        }
        let mut updates = Vec::new();
        for (first, start, words) in spans {
            for dispatch in ops::optimizer_dispatch(&self.settings.optimizer, start, words, caps)? {
                updates.push((tail.len(), first));
                tail.push(if scaled { dispatch.scaled() } else { dispatch });
            }
        }
        Ok(Tail { dispatches: tail, updates })
    }
}

/// What follows a domain's backward pass.
struct Tail {
    dispatches: Vec<Dispatch>,
    /// Place of each update among them and a parameter whose count of updates it shares.
    updates: Vec<(usize, usize)>,
}

impl DomainProgram {
    fn new(
        gpu: &Gpu,
        (built, plan): (Built, &Plan),
        update: &Update<'_>,
        (store, pool): (&Store, &Pool),
    ) -> Result<Self> {
        let gradient_commands = plan.steps.len();
        let tail = update.lower(store, &caps(gpu))?;
        let program = Program::new(gpu, &built.graph, plan, &tail.dispatches, store, pool)?;
        let after = |(at, first)| (gradient_commands + at, first);
        Ok(Self {
            program,
            image: built.image,
            labels: built.labels,
            given: built.given,
            loss: built.loss,
            logits: built.logits,
            layout: built.graph.layout(built.image)?.clone(),
            logits_layout: built.graph.layout(built.logits)?.clone(),
            gradient_commands,
            updates: tail.updates.into_iter().map(after).collect(),
            touched: update.mine.iter().copied().collect(),
        })
    }
}
