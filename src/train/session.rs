//! One program for each domain over one parameter store, and the update of what took part.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::exec::{CommandInfo, Pool, Program, Readback, Store, caps, region_words};
use crate::gpu::Gpu;
use crate::graph::{Caps, Dispatch, Graph, Init, Layout, ParamSpec, Region, Scope, Value};
use crate::nn::{self, NetConfig};
use crate::ops::{self, LossWeights, Optimizer};
use crate::plan::Plan;

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

/// Samples and patch (D, H, W) of a domain's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainBatch {
    pub samples: usize,
    pub patch: [usize; 3],
}

/// Total and the four losses alone.
const LOSSES: usize = 5;

/// A domain's forward, backward and update dispatches.
struct DomainProgram {
    program: Program,
    image: Value,
    labels: Value,
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
    domains: Vec<DomainProgram>,
    /// Updates so far of each parameter.
    counts: Vec<u64>,
    slot_bytes: u64,
    readings: Readback<()>,
}

struct Built {
    graph: Graph,
    plan: Plan,
    image: Value,
    labels: Value,
    loss: Value,
    logits: Value,
}

fn build(
    config: &NetConfig,
    index: usize,
    batch: DomainBatch,
    settings: &SessionSettings,
    caps: &Caps,
) -> Result<Built> {
    let domain = config.domain(index)?;
    let mut graph = Graph::sized_for(caps);
    let layout = Layout::new(batch.samples, domain.channels, batch.patch);
    let voxels = layout.n * layout.voxels();
    let image = graph.input("image", layout);
    let labels = graph.input_words("labels", voxels);
    let logits = nn::network(&mut graph, config, index, image)?;
    let logits = ops::materialise(&mut graph, logits)?;
    let result = ops::segmentation_loss(&mut graph, logits, labels, settings.loss)?;
    graph.freeze(|spec| settings.freeze.holds(spec));
    graph.keep(logits);
    graph.keep(result);
    graph.backward(result, result)?;
    let plan = Plan::new(&graph, caps)?;
    Ok(Built { graph, plan, image, labels, loss: result, logits })
}

/// The programs of all domains, planned.
fn build_all(
    config: &NetConfig,
    batches: &[DomainBatch],
    settings: &SessionSettings,
    caps: &Caps,
) -> Result<Vec<Built>> {
    if batches.len() != config.domains.len() {
        return Err(Error::Internal("a batch size for each domain".into()));
    }
    let domains = batches.iter().enumerate();
    domains.map(|(index, batch)| build(config, index, *batch, settings, caps)).collect()
}

/// Bytes that a session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Weights, gradients and both moments.
    pub parameters: u64,
    /// Activations, shared by all domains.
    pub activations: u64,
}

impl Memory {
    /// Plans the session on paper.
    pub fn planned(
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: &SessionSettings,
        caps: &Caps,
    ) -> Result<Self> {
        let params = nn::parameters(config)?;
        let built = build_all(config, batches, settings, caps)?;
        Ok(Self {
            parameters: 16 * region_words(&params) as u64,
            activations: Pool::sizes(built.iter().map(|b| &b.plan)).iter().sum(),
        })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.parameters + self.activations
    }
}

/// The graphs of all domains, for an adapter: what is tuned.
pub fn graphs(
    config: &NetConfig,
    batches: &[DomainBatch],
    settings: &SessionSettings,
    caps: &Caps,
) -> Result<Vec<Graph>> {
    Ok(build_all(config, batches, settings, caps)?.into_iter().map(|built| built.graph).collect())
}

impl Session {
    /// Builds the programs of all domains; weights are zero until [`Session::initialise`] or [`Session::write`].
    pub fn new(
        gpu: &Gpu,
        config: &NetConfig,
        batches: &[DomainBatch],
        settings: SessionSettings,
    ) -> Result<Self> {
        let params = nn::parameters(config)?;
        let store = Store::new(gpu, &params, true)?;
        let built = build_all(config, batches, &settings, &caps(gpu))?;
        let pool = Pool::new(gpu, built.iter().map(|b| &b.plan))?;
        let touched =
            built.iter().map(|b| touched(&b.graph, &store)).collect::<Result<Vec<_>>>()?;
        let mut domains = Vec::new();
        for (built, mine) in built.into_iter().zip(&touched) {
            domains.push(DomainProgram::new(
                gpu,
                built,
                mine,
                (&touched, &settings),
                (&store, &pool),
            )?);
        }
        let counts = vec![0; store.params().len()];
        // one under way while the next is asked for
        let readings = Readback::new(gpu, LOSSES, 2)?;
        let (gpu, slot_bytes) = (gpu.clone(), pool.bytes());
        Ok(Self { gpu, store, settings, domains, counts, slot_bytes, readings })
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

    /// Bytes of parameters, moments and activations.
    pub fn bytes(&self) -> u64 {
        self.slot_bytes + self.store.bytes()
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

    /// Forward and backward pass, no update. Image N,C,D,H,W, labels N,D,H,W.
    pub fn gradients(&self, domain: usize, image: &[f32], labels: &[u8]) -> Result<()> {
        self.upload(domain, image, labels)?;
        let d = &self.domains[domain];
        d.program.run_part(&self.gpu, 0..d.gradient_commands)?;
        Ok(())
    }

    /// One training step at learning rate `lr`. Image N,C,D,H,W, labels N,D,H,W.
    pub fn step(&mut self, domain: usize, image: &[f32], labels: &[u8], lr: f64) -> Result<()> {
        self.upload(domain, image, labels)?;
        let d = &self.domains[domain];
        for position in &d.touched {
            self.counts[*position] += 1;
        }
        for (command, position) in &d.updates {
            let params = self.settings.optimizer.step_params(lr, self.counts[*position]);
            d.program.set_params(&self.gpu, *command, &params)?;
        }
        d.program.run(&self.gpu)
    }

    /// What each command of a domain's step is and its seconds, one by one; the inputs are whatever the last step left.
    pub fn time_commands(&self, domain: usize) -> Result<Vec<(CommandInfo, f64)>> {
        self.domains[domain].program.time_commands(&self.gpu)
    }

    /// Seconds to encode and to submit a domain's forward and backward pass; waits for it afterwards.
    pub fn launch_seconds(&self, domain: usize) -> Result<[f64; 2]> {
        let d = &self.domains[domain];
        let seconds = d.program.run_part(&self.gpu, 0..d.gradient_commands)?;
        self.gpu.wait()?;
        Ok(seconds)
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
        self.readings.ask(&self.gpu, (), buffer, LOSSES)
    }

    /// The losses that were asked for longest ago, as [`Session::losses`] gives them; waits for their run, not for later ones.
    pub fn take_losses(&mut self) -> Result<Option<[f32; LOSSES]>> {
        let reading = self.readings.take::<f32>(&self.gpu)?;
        Ok(reading.and_then(|((), values)| values.try_into().ok()))
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

impl DomainProgram {
    fn new(
        gpu: &Gpu,
        built: Built,
        mine: &BTreeSet<usize>,
        (all, settings): (&[BTreeSet<usize>], &SessionSettings),
        (store, pool): (&Store, &Pool),
    ) -> Result<Self> {
        let gradient_commands = built.plan.steps.len();
        let mut tail: Vec<Dispatch> = Vec::new();
        let mut updates = Vec::new();
        for (first, last) in ranges(mine, all) {
            let start = store.params()[first].start;
            let end = store.params()[last].start + store.params()[last].span;
            for dispatch in
                ops::optimizer_dispatch(&settings.optimizer, start, end - start, &caps(gpu))?
            {
                updates.push((gradient_commands + tail.len(), first));
                tail.push(dispatch);
            }
        }
        let program = Program::new(gpu, &built.graph, &built.plan, &tail, (store, pool))?;
        Ok(Self {
            program,
            image: built.image,
            labels: built.labels,
            loss: built.loss,
            logits: built.logits,
            layout: built.graph.layout(built.image)?.clone(),
            logits_layout: built.graph.layout(built.logits)?.clone(),
            gradient_commands,
            updates,
            touched: mine.iter().copied().collect(),
        })
    }
}
