//! Training, step by step: domains take their turns, losses are read behind the steps, and a training that goes on from its
//! checkpoint repeats every bit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::advice;
use super::batches::{Batch, Batches};
use super::cases::DomainCases;
use super::checkpoint;
use super::checkpoint::{Checkpoint, State};
use super::config::{Length, RunConfig};
use super::domain_sampling::DomainSampler;
use super::footprint::Memory;
use super::guard::{Drawn, Guard, diverged, listed};
use super::held_out;
use super::held_out::{HeldOut, PatchScores, Scoring};
use super::idle::IdleTime;
use super::init;
use super::session::{Outcome, Session};
use super::setup;
use super::validations::Pace;
use crate::base::{Error, Result};
use crate::domain::DomainPlan;
use crate::engine::exec::{LossScale, Verdict, caps};
use crate::engine::gpu::Gpu;
use crate::engine::graph::Region;
use crate::engine::ops::Losses;
use crate::models;
use crate::net::{Model, NetConfig, Trained};
use crate::patch::{Patches, Sample, Target};

/// A training step that was submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Steps done, with this one.
    pub number: u64,
    /// Index of the domain that it trained.
    pub domain: usize,
    /// Its learning rate.
    pub lr: f64,
    /// Losses that came in meanwhile: as a rule of an earlier step, since the GPU does not wait for them.
    pub readings: Vec<Reading>,
}

/// Losses of a step that were read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Number of the step, from 1.
    pub step: u64,
    /// Index of the domain that it trained.
    pub domain: usize,
    /// Name of that domain.
    pub name: String,
    /// The step's learning rate.
    pub lr: f64,
    /// Its losses.
    pub losses: Losses,
    /// Mean over the steps since the reading before.
    pub seconds_per_step: f64,
    /// Share of the time since then in which the GPU had nothing to do, from 0 to 1.
    pub gpu_idle: f64,
    /// Share of the training that is done, from 0 to 1.
    pub progress: f64,
    /// Steps so far, with this one, whose loss or gradients were not finite: they changed nothing.
    pub skipped: u64,
    /// What was drawn for the step, where it is one of those and no smaller loss scale heals it; else none.
    pub left_out: Vec<Drawn>,
}

/// A step whose losses are not taken in.
struct Pending {
    step: u64,
    domain: usize,
    lr: f64,
    /// Whether its losses are told in any case.
    read: bool,
    /// The patches.
    drawn: Vec<Drawn>,
}

/// When losses were read last, of which step, and how long the GPU was idle till then.
struct LastReading {
    at: Instant,
    step: u64,
    idle: f64,
}

/// What a training that has begun to step needs.
struct Drive {
    batches: Batches,
    sampler: DomainSampler,
    start: Instant,
    /// Steps before this start.
    first: u64,
    last: LastReading,
    idle: IdleTime,
    pending: Option<Pending>,
    guard: Guard,
}

/// The training of a network on prepared cases.
pub struct Trainer {
    gpu: Gpu,
    config: RunConfig,
    domains: Arc<Vec<DomainCases>>,
    network: NetConfig,
    session: Session,
    patches: Patches,
    /// Of each domain that has held-out patches.
    held_out: Vec<HeldOut>,
    state: State,
    drive: Option<Drive>,
    /// Readings that nobody was told of.
    readings: Vec<Reading>,
}

impl Trainer {
    /// A training at its start: weights are drawn from the seed or those of the model to start from, and those that stand still are
    /// the model's to adapt.
    ///
    /// # Errors
    ///
    /// Where the memory of the adapter, or the budget of the settings, is too small, or the model to adapt does not fit.
    pub fn new(gpu: &Gpu, config: RunConfig, domains: Arc<Vec<DomainCases>>) -> Result<Self> {
        let trainer = Self::build(gpu, config, domains)?;
        trainer.initialise()?;
        Ok(trainer)
    }

    /// A training that goes on from a checkpoint that [`Trainer::save`] wrote.
    ///
    /// # Errors
    ///
    /// As [`Trainer::new`], and where the checkpoint is not of this network.
    pub fn resume(
        gpu: &Gpu,
        config: RunConfig,
        domains: Arc<Vec<DomainCases>>,
        checkpoint: Checkpoint,
    ) -> Result<Self> {
        let mut trainer = Self::build(gpu, config, domains)?;
        trainer.state = checkpoint.restore(&mut trainer.session)?;
        Ok(trainer)
    }

    fn build(gpu: &Gpu, config: RunConfig, domains: Arc<Vec<DomainCases>>) -> Result<Self> {
        let built = Self::build_in(gpu, config.clone(), domains.clone());
        built.map_err(|error| error.with_memory_remedy(|| remedy(gpu, &config, &domains)))
    }

    fn build_in(gpu: &Gpu, config: RunConfig, domains: Arc<Vec<DomainCases>>) -> Result<Self> {
        let plans: Vec<DomainPlan> = domains.iter().map(|d| d.domain.clone()).collect();
        let network = setup::network(&config, &plans);
        let sources: Vec<_> = domains.iter().map(DomainCases::source).collect();
        let scored: Vec<_> = domains.iter().map(DomainCases::scored_source).collect();
        let (caps, bytes) = (caps(gpu), config.case_bytes());
        let patches = Patches::with_boxes(gpu, &caps, &sources, &scored, &config.augment, bytes)?;
        let drawn = domains.iter().enumerate();
        let drawn = drawn.filter_map(|(at, d)| held_out::draw(&config, at, d).transpose());
        let held_out = drawn.collect::<Result<Vec<_>>>()?;
        let settings = setup::settings(&config, patches.bytes());
        let session = Session::new(gpu, &network, &setup::batches(&plans), settings)?;
        Ok(Self {
            gpu: gpu.clone(),
            config,
            domains,
            network,
            session,
            patches,
            held_out,
            state: State::default(),
            drive: None,
            readings: Vec::new(),
        })
    }

    /// Draws the weights, then takes those of the model to start from, and those that stand still from the model to adapt.
    fn initialise(&self) -> Result<()> {
        self.session.initialise(self.config.seed)?;
        if let Some(file) = &self.config.init {
            init::start_from(file, &self.network, &self.session)?;
        }
        let Some(start) = &self.config.start else { return Ok(()) };
        let shared = models::read(&start.model)?.shared()?;
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

    /// The device, with the variants of kernels that the training runs.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The settings.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Domains with their plans and cases.
    pub fn domains(&self) -> &[DomainCases] {
        &self.domains
    }

    /// What training takes of the GPU's memory.
    pub fn memory(&self) -> &Memory {
        self.session.memory()
    }

    /// Bytes of GPU memory that cases and patches take at most.
    pub fn patch_bytes(&self) -> u64 {
        self.patches.bytes()
    }

    /// Steps so far whose loss or gradients were not finite, so that they changed nothing.
    pub fn skipped(&self) -> u64 {
        self.state.skipped
    }

    /// Whether the last step changed the weights, or only a smaller loss scale was wanted; waits for it. Otherwise what is on disk may
    /// be better than what would be saved.
    ///
    /// # Errors
    ///
    /// Where the GPU fails, or too many steps were left out.
    pub fn is_sound(&mut self) -> Result<bool> {
        self.end_last()?;
        Ok(self.drive.as_ref().is_none_or(|drive| drive.guard.in_a_row() == 0))
    }

    /// The loss scale, where gradients pass through f16; waits for the last step.
    pub fn loss_scale(&self) -> Result<Option<LossScale>> {
        self.session.loss_scale()
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.state.step
    }

    /// Share of the time since the first step of this start in which the GPU had nothing to do, from 0 to 1.
    pub fn gpu_idle(&self) -> f64 {
        let idle = self.drive.as_ref().map_or(0.0, |drive| drive.idle.seconds());
        idle / self.seconds().max(f64::EPSILON)
    }

    /// Seconds since the first step of this start.
    fn seconds(&self) -> f64 {
        self.drive.as_ref().map_or(0.0, |drive| drive.start.elapsed().as_secs_f64())
    }

    /// Share of the training that is done. Minutes run from the first step on, also between steps.
    fn progress(&self) -> f64 {
        match self.config.length {
            Length::Steps(steps) => self.state.step as f64 / steps as f64,
            Length::Minutes(minutes) => (self.state.seconds + self.seconds()) / (minutes * 60.0),
        }
    }

    /// Whether there is no further step.
    pub fn is_finished(&self) -> bool {
        self.lr().is_none()
    }

    /// The learning rate of the next step; none at the end.
    fn lr(&self) -> Option<f64> {
        let progress = self.progress();
        let RunConfig { lr_schedule, lr, .. } = &self.config;
        lr_schedule.at(*lr, progress, &self.state.lr).filter(|_| progress < 1.0)
    }

    fn drive(&mut self) -> Result<&mut Drive> {
        if self.drive.is_none() {
            let RunConfig { domain_sampling, seed, .. } = &self.config;
            let cases = self.domains.iter().map(|d| d.cases.len()).collect();
            let history = self.state.loss_history.clone();
            let sampler = DomainSampler::new(domain_sampling, *seed, cases, history);
            let (domains, config) = (self.domains.clone(), self.config.clone());
            let (first, cache) = (self.state.step, self.patches.cache());
            let batches = Batches::stream(domains, config, sampler.clone(), first, cache)?;
            let start = Instant::now();
            let last = LastReading { at: start, step: first, idle: 0.0 };
            let (idle, pending, guard) = (IdleTime::default(), None, Guard::default());
            self.drive = Some(Drive { batches, sampler, start, first, last, idle, pending, guard });
        }
        self.drive.as_mut().ok_or_else(|| Error::Internal("a training that does not step".into()))
    }

    /// Submits the next step; none where the training has come to its end. A step whose loss or gradients are not finite changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// Where the GPU fails, or too many steps changed nothing.
    pub fn step(&mut self) -> Result<Option<Step>> {
        let stepped = self.submit_step();
        let told = || remedy(&self.gpu, &self.config, &self.domains);
        stepped.map_err(|error| error.with_memory_remedy(told))
    }

    fn submit_step(&mut self) -> Result<Option<Step>> {
        self.drive()?;
        let Some(lr) = self.lr() else { return Ok(None) };
        let gpu = self.gpu.clone();
        let batch = self.drive()?.batches.next(|| gpu.poll())?;
        let domain = batch.domain;
        self.drive()?.idle.resumes(&gpu)?;
        self.make(&batch)?;
        let drawn = self.drawn(&batch);
        let outcome = self.session.update(domain, lr)?;
        self.drive()?.idle.submitted(&gpu);
        self.state.step += 1;
        let step = self.state.step;
        let read = self.config.reads(step);
        // what became of the step before is known while this one runs
        let before = self.drive()?.pending.replace(Pending { step, domain, lr, read, drawn });
        before.map_or(Ok(()), |before| self.end(&before, outcome))?;
        // the next rate needs this one's, too
        if self.config.lr_schedule.changes(step) {
            self.end_last()?;
        }
        let batches = self.held_out.iter().map(HeldOut::batches).sum();
        let pace = self.pace();
        self.state.validations.begin(&self.config, batches, &pace);
        Ok(Some(Step { number: step, domain, lr, readings: self.untold() }))
    }

    fn pace(&self) -> Pace {
        let (step, seconds_here) = (self.state.step, self.seconds());
        let first = self.drive.as_ref().map_or(step, |drive| drive.first);
        Pace {
            step,
            here: step - first,
            seconds: self.state.seconds + seconds_here,
            seconds_here,
            validating: self.state.validating,
        }
    }

    /// Whether [`Trainer::validate`] is to follow the last step.
    pub fn validation_is_due(&self) -> bool {
        self.state.validations.is_due(self.state.step)
    }

    /// Scores the held-out patches with the weights as they are, a domain after another, and decides when to do so next. Where
    /// they are the best so far, by the smoothed mean, `keep` gets them.
    ///
    /// # Errors
    ///
    /// Where a case cannot be read or the GPU fails, and what `keep` gives.
    pub fn validate(
        &mut self,
        keep: impl FnOnce(&Model) -> Result<()>,
    ) -> Result<Vec<PatchScores>> {
        self.end_last()?;
        self.gpu.wait()?;
        let start = Instant::now();
        let Self { session, patches, domains, held_out, .. } = self;
        let score = |held: &HeldOut| {
            held.score(&mut Scoring { session, patches, cases: &domains[held.domain()] })
        };
        let mut scores = held_out.iter().map(score).collect::<Result<Vec<_>>>()?;
        if self.state.validations.take(self.state.step, &mut scores) {
            keep(&self.model()?)?;
        }
        let took = start.elapsed();
        self.state.validating += took.as_secs_f64();
        if let Some(drive) = &mut self.drive {
            // neither steps nor idle time
            drive.last.at += took;
            drive.idle.forget();
        }
        let pace = self.pace();
        self.state.validations.go_on(&self.config, &pace);
        Ok(scores)
    }

    /// Losses that were read and that nobody was told of, such as those of steps before an error.
    pub fn untold(&mut self) -> Vec<Reading> {
        std::mem::take(&mut self.readings)
    }

    /// Waits for the last step and gives the losses that nobody was told of.
    ///
    /// # Errors
    ///
    /// Where the GPU fails, or too many steps changed nothing.
    pub fn settle(&mut self) -> Result<Vec<Reading>> {
        self.end_last()?;
        self.gpu.wait()?;
        Ok(self.untold())
    }

    /// Makes the drawn patches where the session reads them.
    fn make(&mut self, batch: &Batch) -> Result<()> {
        let source = self.domains[batch.domain].source();
        if self.domains[batch.domain].domain.labels.partial {
            let lacks = batch
                .samples
                .iter()
                .map(|sample| self.domains[batch.domain].unlabelled[sample.case()]);
            self.session.set_unlabelled(batch.domain, &lacks.collect::<Vec<_>>())?;
        }
        let [image, labels] = self.session.inputs(batch.domain)?;
        let target = Target { image, labels };
        for (at, sample) in batch.samples.iter().enumerate() {
            self.patches.make(&source, sample, at, &target)?;
        }
        Ok(())
    }

    fn drawn(&self, batch: &Batch) -> Vec<Drawn> {
        let cases = &self.domains[batch.domain].cases;
        let drawn = |sample: &Sample| Drawn {
            case: cases[sample.case()].name().to_string(),
            centre: sample.centre(),
        };
        batch.samples.iter().map(drawn).collect()
    }

    fn end_last(&mut self) -> Result<()> {
        let Some(last) = self.drive.as_mut().and_then(|drive| drive.pending.take()) else {
            return Ok(());
        };
        let outcome = self.session.settle()?;
        self.end(&last, outcome)
    }

    /// Takes in what became of a submitted step: its losses, where they are read, go to the choice of domains and of the rate.
    fn end(&mut self, done: &Pending, outcome: Option<Outcome>) -> Result<()> {
        let outcome = outcome.ok_or_else(|| Error::Internal("no losses were read".into()))?;
        let verdict = outcome.verdict;
        let counts = done.read && verdict == Verdict::Counted;
        let loss = counts.then_some(f64::from(outcome.losses.total));
        self.state.skipped += u64::from(verdict != Verdict::Counted);
        let sampler = &self.drive()?.sampler;
        sampler.report(done.step - 1, loss.map(|loss| (done.domain, loss)));
        let history = sampler.history();
        self.state.loss_history = history;
        self.state.lr.add(&self.config.lr_schedule, done.step - 1, loss);
        let is_last = self.is_finished() && done.step == self.state.step;
        if done.read || is_last || verdict == Verdict::LeftOut {
            self.tell(done, outcome)?;
        }
        self.guard(done, verdict)
    }

    /// Puts the reading of a step to those that are told.
    fn tell(&mut self, done: &Pending, outcome: Outcome) -> Result<()> {
        let (progress, skipped) = (self.progress(), self.state.skipped);
        let Pending { step, domain, lr, .. } = *done;
        let name = self.domains[domain].domain.name.clone();
        let drive = self.drive()?;
        let now = LastReading { at: Instant::now(), step, idle: drive.idle.seconds() };
        let (idle, before) = (now.idle, std::mem::replace(&mut drive.last, now));
        let seconds = before.at.elapsed().as_secs_f64();
        let seconds_per_step = seconds / step.saturating_sub(before.step).max(1) as f64;
        let gpu_idle = (idle - before.idle) / seconds.max(f64::EPSILON);
        let Outcome { losses, verdict } = outcome;
        let left_out = if verdict == Verdict::LeftOut { done.drawn.clone() } else { Vec::new() };
        self.readings.push(Reading {
            step,
            domain,
            name,
            lr,
            losses,
            seconds_per_step,
            gpu_idle,
            progress,
            skipped,
            left_out,
        });
        Ok(())
    }

    /// Names a step that was left out, and stops where there are too many of them.
    fn guard(&mut self, done: &Pending, verdict: Verdict) -> Result<()> {
        let at_the_end = self.is_finished() && done.step == self.state.step;
        let name = || {
            let domain = &self.domains[done.domain].domain.name;
            format!("step {} of {domain}: {}", done.step, listed(&done.drawn))
        };
        let named = (verdict == Verdict::LeftOut).then(name);
        if let Some(step) = &named {
            log::warn!("loss or gradients are not finite, and nothing changes in {step}");
        }
        let drive = self.drive()?;
        drive.guard.add(verdict);
        match drive.guard.stop(at_the_end) {
            Some(steps) => Err(diverged(done.lr, &steps, &named.unwrap_or_default())),
            None => Ok(()),
        }
    }

    /// The network and its domains without weights.
    fn bare_model(&self) -> Model {
        let domains = self.domains.iter().map(|d| d.domain.clone()).collect();
        let trained = |cases: &DomainCases| Trained {
            version: env!("CARGO_PKG_VERSION").into(),
            channels: cases.dataset.channels.clone(),
            cases: cases.cases.len(),
            steps: self.steps(),
            mirrored: Some(self.config.augment.mirror.map(|probability| probability > 0.0)),
            held_out: None,
        };
        let trained = self.domains.iter().map(|d| (d.domain.name.clone(), trained(d))).collect();
        let (network, weights) = (self.network.clone(), BTreeMap::new());
        Model { network, domains, weights, chosen: None, trained }
    }

    /// The weights as a model of the domains that are trained; waits for the last step.
    ///
    /// # Errors
    ///
    /// Where the GPU fails.
    pub fn model(&self) -> Result<Model> {
        let weights = checkpoint::tensors(&self.session, "", Region::Weights)?;
        Ok(Model { weights, ..self.bare_model() })
    }

    /// Writes a checkpoint: weights, moments, and where the training stands. The one that was there is kept under the name
    /// `earlier`, where that is given. The next steps are the same bit for bit whether they follow it here or after
    /// [`Trainer::resume`].
    ///
    /// # Errors
    ///
    /// Where the GPU fails or the file cannot be written.
    pub fn save(&mut self, path: &Path, earlier: Option<&Path>) -> Result<()> {
        self.end_last()?;
        let state = State {
            seconds: self.state.seconds + self.seconds(),
            counts: self.session.counts().to_vec(),
            loss_scale: self.session.loss_scale()?,
            ..self.state.clone()
        };
        checkpoint::write(path, earlier, &self.bare_model(), &self.session, &state)
    }
}

/// What to do where the adapter has not the memory for a training.
fn remedy(gpu: &Gpu, config: &RunConfig, domains: &[DomainCases]) -> String {
    let plans: Vec<DomainPlan> = domains.iter().map(|d| d.domain.clone()).collect();
    advice::remedy(config, &plans, &caps(gpu))
}
