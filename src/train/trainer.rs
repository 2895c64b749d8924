//! The training loop: domains take turns, checkpoints are written aside and renamed, a killed run goes on bit for bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cases;
use super::cases::{Batch, DomainCases};
use super::config::{Length, RunConfig};
use super::footprint::{Footprint, Memory, reserved};
use super::progress;
use super::schedule::{Chooser, Falls, Losses};
use super::session::{Freeze, Session, SessionSettings, graphs};
use super::targets::{DomainBatch, Targets};
use super::watch::{Done, LOG, Watch, rewind};
use crate::base::files::{read_json, write_atomically};
use crate::domain::{DomainPlan, PlanOptions, PresetChoice};
use crate::engine::exec::{LossScale, caps};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, Graph, Region};
use crate::engine::tune;
use crate::net::{DomainNet, Model, NetConfig, Tensor, read_tensors, write_tensors};
use crate::patch::{Patches, Target};
use crate::{Error, Result};

/// Where a run stands; part of its checkpoint.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct State {
    /// Steps done.
    step: u64,
    /// Seconds of training before this start.
    seconds: f64,
    /// Updates of each parameter, in the order of the store.
    counts: Vec<u64>,
    /// What the next domains are chosen by.
    #[serde(default)]
    losses: Losses,
    /// Where gradients pass through f16.
    #[serde(default)]
    loss_scale: Option<LossScale>,
    /// What the learning rate falls by.
    #[serde(default)]
    falls: Falls,
}

/// What a run begins from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// From the data, whose values of a published task mean what this choice says.
    New(&'a PresetChoice),
    /// From its folder.
    Folder,
}

/// A run in its folder.
pub struct Trainer {
    gpu: Gpu,
    config: RunConfig,
    out: PathBuf,
    domains: Arc<Vec<DomainCases>>,
    network: NetConfig,
    session: Session,
    patches: Patches,
    state: State,
}

/// The settings of a run.
pub const CONFIG: &str = "config.toml";
/// The plans of the domains.
const PLAN: &str = "plan.json";
const CHECKPOINT: &str = "last.safetensors";
/// The variants of kernels that the run uses.
const TUNING: &str = "tuning.json";
/// The loss of each domain over the steps.
const PROGRESS: &str = "progress.png";
/// The new domain alone, where a run adapted a model.
pub const ADDED: &str = "domain.safetensors";
/// The model of a finished run.
pub const MODEL: &str = "model.safetensors";

/// Files that a run writes into its folder, beside the masks and scores of held-out cases and TensorBoard's events, whose
/// names are new at each start.
pub(super) fn run_files(config: &RunConfig) -> Vec<&'static str> {
    let mut files = vec![CONFIG, PLAN, TUNING, CHECKPOINT, MODEL, LOG, PROGRESS];
    files.extend(config.start.as_ref().map(|_| ADDED));
    files
}

fn network(config: &RunConfig, domains: &[DomainPlan]) -> NetConfig {
    NetConfig {
        mode: config.mode,
        adapter: config.adapter,
        downsample: config.downsample,
        base: config.base,
        domains: domains
            .iter()
            .map(|d| DomainNet {
                name: d.name.clone(),
                channels: d.channels,
                classes: d.labels.outputs(),
                pools: d.pools,
            })
            .collect(),
    }
}

fn check(config: &RunConfig, domains: &[DomainCases]) -> Result<()> {
    for (index, d) in domains.iter().enumerate() {
        if domains[..index].iter().any(|other| other.domain.name == d.domain.name) {
            return Err(Error::file(
                &d.dataset.dir,
                format!("the name {} a second time", d.domain.name),
                "a name of its own for each domain",
                "Change \"name\" in dataset.json.",
            ));
        }
    }
    config.check(domains.len())
}

/// The batch of each domain.
fn batches(domains: &[DomainPlan]) -> Vec<DomainBatch> {
    let batch = |d: &DomainPlan| {
        let targets = Targets { regions: d.labels.region_bits(), partial: d.labels.partial };
        DomainBatch { targets, ..DomainBatch::new(d.batch, d.patch) }
    };
    domains.iter().map(batch).collect()
}

fn settings(config: &RunConfig) -> SessionSettings {
    let freeze = config.start.as_ref().map_or(Freeze::Nothing, |start| start.freeze);
    SessionSettings { loss: config.loss, optimizer: config.optimizer, freeze }
}

/// Memory that training these domains takes on an adapter.
pub fn planned_memory(config: &RunConfig, domains: &[DomainPlan], caps: &Caps) -> Result<Memory> {
    let (network, batches) = (network(config, domains), batches(domains));
    let footprint = Footprint::of(config, reserved(config, domains));
    Memory::planned(&network, &batches, &settings(config), footprint, caps)
}

/// What training these domains runs, for an adapter.
fn planned_graphs(config: &RunConfig, domains: &[DomainPlan], caps: &Caps) -> Result<Vec<Graph>> {
    let (network, batches) = (network(config, domains), batches(domains));
    graphs(&network, &batches, (&settings(config), config.precision), caps)
}

/// Whether a run's kernels are chosen, or it has a checkpoint.
pub fn is_begun(out: &Path) -> bool {
    out.join(TUNING).exists() || out.join(CHECKPOINT).exists()
}

/// Refuses the folder of a run that has a checkpoint.
pub fn check_new(out: &Path) -> Result<()> {
    if out.join(CHECKPOINT).exists() {
        return Err(Error::file(
            out,
            "a run that was begun before",
            "a new folder",
            "Add `continue` to go on with it, or choose another `out`.",
        ));
    }
    Ok(())
}

/// Writes `config.toml` and `plan.json` of a run that is not begun.
pub fn write_plan(config: &RunConfig, domains: &[DomainPlan], out: &Path) -> Result<()> {
    check_new(out)?;
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    config.write(&out.join(CONFIG))?;
    let json = serde_json::to_vec_pretty(&domains).map_err(|e| Error::Internal(e.to_string()))?;
    write_atomically(&out.join(PLAN), &json)?;
    // what an earlier start left, which the new one would go on with
    match std::fs::remove_file(out.join(TUNING)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(out.join(TUNING), e)),
        _ => Ok(()),
    }
}

/// Reads `plan.json` of a run.
pub fn read_plan(out: &Path) -> Result<Vec<DomainPlan>> {
    let path = out.join(PLAN);
    let remedy = "Correct the file, or start a new run.";
    let plans: Vec<DomainPlan> = read_json(&path, "a plan for each domain", remedy)?;
    plans.iter().try_for_each(|plan| plan.check(&path))?;
    Ok(plans)
}

impl Trainer {
    /// Starts a run: plans the data and begins; then writes `config.toml` and `plan.json`.
    pub fn start(gpu: &Gpu, config: RunConfig, options: &PlanOptions, out: &Path) -> Result<Self> {
        check_new(out)?;
        let plans = cases::plan(&config, options)?;
        let (trainer, record) =
            Self::begin(gpu, config, &plans, Origin::New(&options.preset), out)?;
        write_plan(&trainer.config, &plans, out)?;
        record.iter().try_for_each(|record| record.write(&out.join(TUNING)))?;
        Ok(trainer)
    }

    /// Goes on with the run in `out` from its last checkpoint, or from its start if there is none yet.
    pub fn resume(gpu: &Gpu, out: &Path) -> Result<Self> {
        let config = RunConfig::read(&out.join(CONFIG))?;
        let plans = read_plan(out)?;
        if plans.len() != config.data.len() {
            return Err(Error::file(
                out.join(PLAN),
                format!("{} plans", plans.len()),
                format!("{}, one a dataset of config.toml", config.data.len()),
                "Restore the file.",
            ));
        }
        let (trainer, record) = Self::begin(gpu, config, &plans, Origin::Folder, out)?;
        record.iter().try_for_each(|record| record.write(&out.join(TUNING)))?;
        rewind(out, trainer.state.step)?;
        Ok(trainer)
    }

    /// The one way in which a run with its plans begins or goes on: prepares the cases, chooses the kernels' variants (those of
    /// its record; where it has none and no checkpoint either, as its settings say, and the new record is given back), builds
    /// the network, and takes the weights of its checkpoint or draws them.
    fn begin(
        gpu: &Gpu,
        config: RunConfig,
        plans: &[DomainPlan],
        origin: Origin<'_>,
        out: &Path,
    ) -> Result<(Self, Option<tune::Record>)> {
        let preset = match origin {
            Origin::New(preset) => preset,
            // what means nothing in the files stands in the plans
            Origin::Folder => &PresetChoice::None,
        };
        let datasets = cases::datasets(&config, preset)?.into_iter().zip(plans);
        let open = |(dataset, plan)| cases::open(&config, dataset, plan);
        let domains = datasets.map(open).collect::<Result<Vec<_>>>()?;
        check(&config, &domains)?;
        if !out.join(CHECKPOINT).exists() {
            domains.iter().try_for_each(DomainCases::check_held_out)?;
        }
        cases::warn_of_left_out(&config, plans);
        let graphs = |caps: &Caps| planned_graphs(&config, plans, caps);
        let checkpoint = out.join(CHECKPOINT);
        let (gpu, record) = if matches!(origin, Origin::Folder) && is_begun(out) {
            (tune::Record::resume(gpu, &out.join(TUNING), &graphs)?.0, None)
        } else {
            let (gpu, _) = tune::tuned(gpu, config.tune, &graphs)?;
            let record = tune::Record::of(&gpu, &graphs)?;
            (gpu, Some(record))
        };
        let mut trainer = Self::build(&gpu, config, domains, out)?;
        if checkpoint.exists() {
            trainer.load(&checkpoint)?;
        } else {
            trainer.initialise()?;
        }
        Ok((trainer, record))
    }

    fn build(gpu: &Gpu, config: RunConfig, domains: Vec<DomainCases>, out: &Path) -> Result<Self> {
        let plans: Vec<DomainPlan> = domains.iter().map(|d| d.domain.clone()).collect();
        let network = network(&config, &plans);
        let (batches, settings) = (batches(&plans), settings(&config));
        let sources: Vec<_> = domains.iter().map(DomainCases::source).collect();
        let patches =
            Patches::new(gpu, &caps(gpu), &sources, &config.augment, config.case_bytes())?;
        let footprint = Footprint::of(&config, patches.bytes());
        let session = Session::within(gpu, &network, &batches, settings, footprint)?;
        let counts = session.counts().to_vec();
        Ok(Self {
            gpu: gpu.clone(),
            config,
            out: out.to_path_buf(),
            domains: Arc::new(domains),
            network,
            session,
            patches,
            state: State {
                step: 0,
                seconds: 0.0,
                counts,
                losses: Losses::default(),
                loss_scale: None,
                falls: Falls::default(),
            },
        })
    }

    /// Draws the weights, then takes those that stand still from the model to adapt.
    fn initialise(&self) -> Result<()> {
        self.session.initialise(self.config.seed)?;
        let Some(start) = &self.config.start else { return Ok(()) };
        let shared = Model::read(&start.model)?.shared()?;
        for stored in self.session.store().params() {
            let name = &stored.spec.name;
            if !start.freeze.holds(&stored.spec) {
                continue;
            }
            let tensor = shared.get(name).filter(|tensor| tensor.dims == stored.spec.dims);
            let tensor = tensor.ok_or_else(|| {
                Error::file(
                    &start.model,
                    format!("no shared weight {name} of shape {:?}", stored.spec.dims),
                    "the shared weights of every level of the new domain",
                    "Use fewer `pools`, or adapt a deeper model.",
                )
            })?;
            self.session.write(Region::Weights, name, &tensor.values)?;
        }
        Ok(())
    }

    /// Domains with their plans and held-out cases.
    pub fn domains(&self) -> &[DomainCases] {
        &self.domains
    }

    /// What training takes of the GPU's memory.
    pub fn memory(&self) -> &Memory {
        self.session.memory()
    }

    /// The loss scale, where gradients pass through f16.
    pub fn loss_scale(&self) -> Result<Option<LossScale>> {
        self.session.loss_scale()
    }

    /// The domains alone: the memory of training is free again.
    pub fn into_domains(self) -> Arc<Vec<DomainCases>> {
        self.domains
    }

    /// Bytes of GPU memory that cases and patches take at most.
    pub fn patch_bytes(&self) -> u64 {
        self.patches.bytes()
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    fn chooser(&self) -> Chooser {
        let cases = self.domains.iter().map(|d| d.cases.len()).collect();
        Chooser::new(&self.config.schedule, self.config.seed, cases, self.state.losses.clone())
    }

    fn progress(&self, seconds: f64) -> f64 {
        match self.config.length {
            Length::Steps(steps) => self.state.step as f64 / steps as f64,
            Length::Minutes(minutes) => (self.state.seconds + seconds) / (minutes * 60.0),
        }
    }

    /// The learning rate of the next step; none at the end.
    fn rate(&self, seconds: f64) -> Option<f64> {
        let progress = self.progress(seconds);
        let RunConfig { rate, lr, .. } = &self.config;
        rate.at(*lr, progress, &self.state.falls).filter(|_| progress < 1.0)
    }

    /// Trains to the end, with a progress bar and a log, and writes the model.
    pub fn run(&mut self) -> Result<Model> {
        let chooser = self.chooser();
        let batches = cases::stream(
            self.domains.clone(),
            self.config.clone(),
            chooser.clone(),
            self.state.step,
            self.patches.cache(),
        )?;
        let lines = self.config.interval() * 10;
        let mut watch = Watch::open(&self.out, chooser, self.state.step, lines)?;
        let mut before: Option<Done> = None;
        while let Some(rate) = self.rate(watch.seconds()) {
            let batch =
                batches.recv().map_err(|_| Error::Internal("the batch thread ended".into()))??;
            let domain = batch.domain;
            self.make(&batch)?;
            self.session.update(domain, rate)?;
            self.state.step += 1;
            let step = self.state.step;
            let read = self.config.reads(step);
            if read {
                self.session.ask_losses(domain)?;
            }
            // the losses of the step before are read while this one runs
            if let Some(done) = before.replace(Done { step, domain, rate, read }) {
                self.end(&done, &mut watch)?;
            }
            let saves = step.is_multiple_of(self.config.checkpoint_every);
            if (saves || self.config.rate.changes(step))
                && let Some(done) = before.take()
            {
                self.end(&done, &mut watch)?;
            }
            if saves {
                self.save(watch.seconds())?;
            }
        }
        if let Some(done) = before {
            self.end(&done, &mut watch)?;
        }
        self.gpu.wait()?;
        watch.close();
        self.save(watch.seconds())?;
        self.finish()
    }

    /// Makes the drawn patches where the session reads them.
    fn make(&mut self, batch: &Batch) -> Result<()> {
        let source = self.domains[batch.domain].source();
        if self.domains[batch.domain].domain.labels.partial {
            let lacks = batch.samples.iter().map(|sample| source.cases[sample.case()].unlabelled);
            self.session.set_unlabelled(batch.domain, &lacks.collect::<Vec<_>>())?;
        }
        let [image, labels] = self.session.inputs(batch.domain)?;
        let target = Target { image, labels };
        for (at, sample) in batch.samples.iter().enumerate() {
            self.patches.make(&source, sample, at, &target)?;
        }
        Ok(())
    }

    /// Takes in what a submitted step left: its losses, where they are read, go to the log and to the choice of domains.
    fn end(&mut self, done: &Done, watch: &mut Watch) -> Result<()> {
        let mut reading = None;
        if done.read {
            let losses = self.session.take_losses()?;
            let losses = losses.ok_or_else(|| Error::Internal("no losses were read".into()))?;
            reading = Some((done.domain, f64::from(losses[0])));
            let name = &self.domains[done.domain].domain.name;
            watch.read(done, name, losses, self.progress(watch.seconds()))?;
        }
        watch.chooser.report(done.step - 1, reading);
        let loss = reading.map(|(_, loss)| loss);
        self.state.falls.add(&self.config.rate, done.step - 1, loss);
        self.state.losses = watch.chooser.losses();
        Ok(())
    }

    /// Writes the finished model; an adapted one holds the old domains too, unless shared weights were trained.
    fn finish(&self) -> Result<Model> {
        let mut model = self.model()?;
        if let Some(start) = self.config.start.as_ref().filter(|s| s.freeze == Freeze::Shared) {
            model.write(&self.out.join(ADDED))?;
            model = Model::read(&start.model)?.merge(&model)?;
        }
        model.write(&self.out.join(MODEL))?;
        Ok(model)
    }

    /// The weights as a model.
    pub fn model(&self) -> Result<Model> {
        let mut model = Model {
            network: self.network.clone(),
            domains: self.domains.iter().map(|d| d.domain.clone()).collect(),
            weights: BTreeMap::new(),
        };
        self.collect("", Region::Weights, &mut model.weights)?;
        Ok(model)
    }

    fn collect(
        &self,
        prefix: &str,
        region: Region,
        tensors: &mut BTreeMap<String, Tensor>,
    ) -> Result<()> {
        let values = self.session.read(region)?;
        for (stored, values) in self.session.store().params().iter().zip(values) {
            let dims = stored.spec.dims.clone();
            tensors.insert(format!("{prefix}{}", stored.spec.name), Tensor { dims, values });
        }
        Ok(())
    }

    fn save(&mut self, seconds: f64) -> Result<()> {
        let mut model = self.model()?;
        let state = State {
            step: self.state.step,
            seconds: self.state.seconds + seconds,
            counts: self.session.counts().to_vec(),
            losses: self.state.losses.clone(),
            loss_scale: self.session.loss_scale()?,
            falls: self.state.falls.clone(),
        };
        let mut metadata = model.metadata()?;
        let json = serde_json::to_string(&state).map_err(|e| Error::Internal(e.to_string()))?;
        metadata.insert("state".into(), json);
        self.collect("moment1/", Region::Moment1, &mut model.weights)?;
        self.collect("moment2/", Region::Moment2, &mut model.weights)?;
        write_tensors(&self.out.join(CHECKPOINT), &model.weights, metadata)?;
        progress::draw(&self.out.join(LOG), &self.out.join(PROGRESS))
    }

    fn load(&mut self, path: &Path) -> Result<()> {
        let (tensors, metadata) = read_tensors(path)?;
        let refuse = |found: String| {
            Error::file(
                path,
                found,
                "a checkpoint of this run",
                "Restore the file, or start a new run.",
            )
        };
        let state = metadata.get("state").ok_or_else(|| refuse("no training state".into()))?;
        let state: State = serde_json::from_str(state).map_err(|e| refuse(e.to_string()))?;
        for stored in self.session.store().params() {
            for (prefix, region) in [
                ("", Region::Weights),
                ("moment1/", Region::Moment1),
                ("moment2/", Region::Moment2),
            ] {
                let name = format!("{prefix}{}", stored.spec.name);
                let tensor =
                    tensors.get(&name).ok_or_else(|| refuse(format!("no tensor {name}")))?;
                self.session.write(region, &stored.spec.name, &tensor.values)?;
            }
        }
        self.session.set_counts(state.counts.clone())?;
        if let Some(scale) = &state.loss_scale {
            self.session.set_loss_scale(scale)?;
        }
        self.state = state;
        Ok(())
    }
}
