//! One run in its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::choose::choose;
use super::claim::{Beside, claim};
use super::folder::{
    ADDED, BEST, CHECKPOINT, MODEL, PLAN, PREVIOUS, RunFolder, TUNING, check_new, has_checkpoint,
    is_begun, read_plan, write_plan,
};
use super::log::{Log, rewind};
use super::observer::Observer;
use super::pictures::Pictures;
use super::progress;
use super::record::Record;
use super::report::write_at_end;
use super::saved;
use super::saved::Due;
use super::scores::DomainScores;
use super::validate::validate;
use crate::base::files::Claim;
use crate::base::{Error, Result};
use crate::dataset::prepared::{Progress, Store};
use crate::domain::{DomainPlan, PlanOptions, PresetChoice};
use crate::engine::exec::caps;
use crate::engine::gpu::{Gpu, Renewal};
use crate::engine::tune;
use crate::models;
use crate::net::Model;
use crate::segment::{Ensemble, PredictOptions, Predictor};
use crate::train;
use crate::train::{DomainCases, Freeze, Preparing, Reading, RunConfig, Start, Trainer};

/// What a run begins from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// From the data, whose values of a published task mean what this choice says.
    New(&'a PresetChoice),
    /// From its folder.
    Folder,
}

/// The variants that a run chose as it began.
struct Variants {
    record: tune::Record,
    report: tune::Report,
}

impl Variants {
    /// Keeps them in the run's folder and tells what tuning did.
    fn keep(&self, folder: &Path, observer: &mut dyn Observer) -> Result<()> {
        self.record.write(&folder.join(TUNING))?;
        match self.report.timed {
            0 => Ok(()),
            _ => observer.tuned(&self.report),
        }
    }
}

/// A run in its folder: begun or gone on with, trained with checkpoints and logs, validated.
pub struct Run {
    /// With the variants that it was given: those that the run chose are its training's.
    pub(super) gpu: Gpu,
    pub(super) folder: PathBuf,
    config: RunConfig,
    domains: Arc<Vec<DomainCases>>,
    /// Until the training is at its end.
    pub(super) trainer: Option<Trainer>,
    /// Steps done before this start, or with it once it has ended.
    pub(super) steps: u64,
    /// Steps that the last checkpoint holds; none where there is none.
    pub(super) saved: Option<u64>,
    _claim: Option<Claim>,
}

impl Run {
    /// Begins a run of one network: plans the data, chooses the variants of kernels, and writes `config.toml`, `plan.json` and
    /// `tuning.json` into its folder. Datasets of the independent mode and folds are [`Runs`](super::Runs).
    ///
    /// # Errors
    ///
    /// Where the folder holds a run that has a checkpoint, something that the run would write is something that it reads, the
    /// data or the settings cannot be trained with, or the GPU fails.
    pub fn begin(
        gpu: &Gpu,
        config: RunConfig,
        options: &PlanOptions,
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        check_new(folder)?;
        let store = config.store()?;
        let config = train::settled(config, &options.preset)?;
        let at = RunFolder { folder: folder.to_path_buf(), config };
        let claim = claim(std::slice::from_ref(&at), &options.preset, &Beside::default())?;
        let run = Self::begin_claimed(gpu, at, options, &store, observer)?;
        Ok(Self { _claim: Some(claim), ..run })
    }

    /// As [`Run::begin`], where what the run writes is claimed.
    pub(super) fn begin_claimed(
        gpu: &Gpu,
        at: RunFolder,
        options: &PlanOptions,
        store: &Arc<Store>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let caps = caps(gpu);
        let at = RunFolder { config: at.config.on(&caps), ..at };
        let stop = observer.stop();
        let tell = &mut |progress: &Progress| observer.preparing(progress);
        let mut preparing = Preparing { store, tell, ahead: true, stop };
        let planned = train::plan(&at.config, options, &caps, &mut preparing)?;
        let plans: Vec<DomainPlan> = planned.into_iter().map(|domain| domain.plan).collect();
        let origin = Origin::New(&options.preset);
        let (run, chosen) = Self::start(gpu, &at, &plans, origin, &mut preparing)?;
        write_plan(&run.config, &plans, &at.folder)?;
        rewind(&at.folder, 0)?;
        chosen.iter().try_for_each(|chosen| chosen.keep(&at.folder, observer))?;
        Ok(run)
    }

    /// Goes on with the run in a folder from its last checkpoint, or from its start where there is none yet.
    ///
    /// # Errors
    ///
    /// Where the folder's files or the data cannot be read or do not fit each other, or the GPU fails.
    pub fn open(gpu: &Gpu, folder: &Path, observer: &mut dyn Observer) -> Result<Self> {
        let at = RunFolder::read(folder)?;
        let store = at.config.store()?;
        let claim = claim(std::slice::from_ref(&at), &PresetChoice::None, &Beside::default())?;
        Ok(Self { _claim: Some(claim), ..Self::open_claimed(gpu, &at, &store, observer)? })
    }

    /// As [`Run::open`], where what the run writes is claimed.
    pub(super) fn open_claimed(
        gpu: &Gpu,
        at: &RunFolder,
        store: &Arc<Store>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let RunFolder { folder, config } = at;
        let plans = read_plan(folder)?;
        if plans.len() != config.data.len() {
            return Err(Error::file(
                folder.join(PLAN),
                format!("{} plans", plans.len()),
                format!("{}, one a dataset of config.toml", config.data.len()),
                "Restore the file.",
            ));
        }
        let stop = observer.stop();
        let tell = &mut |progress: &Progress| observer.preparing(progress);
        let mut preparing = Preparing { store, tell, ahead: true, stop };
        let (run, chosen) = Self::start(gpu, at, &plans, Origin::Folder, &mut preparing)?;
        chosen.iter().try_for_each(|chosen| chosen.keep(folder, observer))?;
        rewind(folder, run.steps)?;
        Ok(run)
    }

    /// The one way in which a run with its plans begins or goes on: prepares the cases, chooses the kernels' variants (those of
    /// its record; where it has none and no checkpoint either, as its settings say, and the new record is given back), builds
    /// the network, and takes the weights of its checkpoint or draws them.
    fn start(
        gpu: &Gpu,
        at: &RunFolder,
        plans: &[DomainPlan],
        origin: Origin<'_>,
        preparing: &mut Preparing<'_>,
    ) -> Result<(Self, Option<Variants>)> {
        let RunFolder { folder, config } = at;
        let preset = match origin {
            Origin::New(preset) => preset,
            // what means nothing in the files stands in the plans
            Origin::Folder => &PresetChoice::None,
        };
        let domains = Arc::new(train::open(config, plans, preset, preparing)?);
        if !has_checkpoint(folder) {
            domains.iter().try_for_each(|domain| domain.check_held_out(preparing.tell))?;
        }
        train::warn_of_left_out(config, plans);
        let workloads = train::planned_workloads(config, plans)?;
        let goes_on = matches!(origin, Origin::Folder) && is_begun(folder);
        let (gpu, (trainer, chosen)) = Renewal::default().run(gpu, |gpu| {
            let (tuned, chosen) = if goes_on {
                (tune::Record::resume(gpu, &folder.join(TUNING), &workloads)?.0, None)
            } else {
                let (tuned, report) = tune::tuned(gpu, config.tune, &workloads, &preparing.stop)?;
                let record = tune::Record::of(&tuned, &workloads)?;
                (tuned, Some(Variants { record, report }))
            };
            Ok((trainer(&tuned, at, &domains)?, chosen))
        })?;
        let (folder, config) = (folder.clone(), config.clone());
        let (steps, trainer) = (trainer.steps(), Some(trainer));
        let saved = folder.join(CHECKPOINT).exists().then_some(steps);
        Ok((Self { gpu, folder, config, domains, trainer, steps, saved, _claim: None }, chosen))
    }

    /// The training anew on this device, from the last checkpoint or the start; logs forget what comes again.
    pub(super) fn restart(&mut self, gpu: &Gpu) -> Result<()> {
        let at = RunFolder { folder: self.folder.clone(), config: self.config.clone() };
        let trainer = trainer(gpu, &at, &self.domains)?;
        self.steps = trainer.steps();
        self.trainer = Some(trainer);
        rewind(&self.folder, self.steps)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The settings.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Domains with their plans, training cases and held-out cases.
    pub fn domains(&self) -> &[DomainCases] {
        &self.domains
    }

    /// Steps done before this start, and with it once it has ended.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// As [`Run::train`], on the device that there is.
    pub(super) fn train_on(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let Some(trainer) = &mut self.trainer else { return Ok(true) };
        observer.started(trainer)?;
        let record = Record::begin(&self.folder, trainer, observer.command());
        let mut log = Log::open(&self.folder)?;
        let mut due = Due::of(&self.config);
        let mut stopped = false;
        while !stopped {
            let step = trainer.step();
            if step.is_err() {
                tell(&mut log, &trainer.untold(), observer)?;
            }
            let Some(step) = step? else { break };
            tell(&mut log, &step.readings, observer)?;
            stopped = observer.step(&step)?.is_break() || observer.stop().cause().is_some();
            // also before a checkpoint that a stop asks for: one holds the validations up to its step
            if trainer.validation_is_due() {
                score_patches(&self.folder, trainer, &mut log, observer)?;
            }
            // the last step's follows below
            if due.at(step.number) && !stopped && !trainer.is_finished() {
                if save(&self.folder, trainer, &mut log, observer)? {
                    self.saved = Some(step.number);
                }
                due.saved();
            }
        }
        settle(&mut log, trainer, observer)?;
        log::info!("the GPU had nothing to do for {:.1} % of the time", 100.0 * trainer.gpu_idle());
        self.steps = trainer.steps();
        if self.saved != Some(self.steps) && save(&self.folder, trainer, &mut log, observer)? {
            self.saved = Some(self.steps);
        }
        let finished = trainer.is_finished();
        if finished {
            write_model(&self.folder, &self.config, trainer)?;
        }
        record.end(trainer);
        observer.ended(trainer)?;
        if finished {
            self.trainer = None;
        }
        Ok(finished)
    }

    /// The finished model.
    ///
    /// # Errors
    ///
    /// Where the run is not trained to its end, or the file cannot be read.
    pub fn model(&self) -> Result<Model> {
        self.check_finished()?;
        Model::read(&self.folder.join(MODEL))
    }

    fn check_finished(&self) -> Result<()> {
        if let Some(trainer) = self.trainer.as_ref().filter(|trainer| !trainer.is_finished()) {
            return Err(Error::file(
                &self.folder,
                format!("a run of {} steps that is not at its end", trainer.steps()),
                "a trained run",
                "Train it to its end first.",
            ));
        }
        Ok(())
    }

    /// Chooses the weights of the model, where patches were scored while training: of the last ones, their moving average and the
    /// best by those patches whichever segment whole held-out cases best. Then segments and scores the held-out cases of each
    /// domain. The clean-up that helps joins the model's file, unless the plan has one; masks, pictures and
    /// `summary.json` lie in `validation/DOMAIN`.
    ///
    /// # Errors
    ///
    /// As [`Run::model`], where the GPU fails, a case cannot be read or a file cannot be written, and [`Error::Stopped`] where the
    /// observer asks to stop.
    pub fn validate(&mut self, observer: &mut dyn Observer) -> Result<Vec<DomainScores>> {
        let mut all = Vec::new();
        if self.domains.iter().all(|d| d.held_out.is_empty()) {
            return Ok(all);
        }
        self.check_finished()?;
        // frees what training takes before the predictors take theirs
        self.trainer = None;
        let since = Instant::now();
        let mut pictures = Pictures::begin(&self.folder, self.steps);
        let chosen = choose(&self.gpu, &self.folder, &self.domains, observer)?;
        let mut model = assemble(&self.config, chosen)?;
        if let Some(chosen) = &model.chosen {
            observer.weights_chosen(chosen)?;
        }
        for cases in self.domains.iter().filter(|d| !d.held_out.is_empty()) {
            let index = model.domain(Some(&cases.domain.name))?;
            let options = PredictOptions::default();
            let (gpu, predictor) = Renewal::default()
                .run(&self.gpu, |gpu| Predictor::new(gpu, &model, index, &options))?;
            self.gpu = gpu;
            let ensemble = Ensemble::new(vec![predictor])?;
            let scores = validate(
                &ensemble,
                cases,
                &mut model.domains[index],
                &self.folder,
                &mut pictures,
                observer,
            )?;
            observer.validated(&scores)?;
            if let Some(trained) = model.trained.get_mut(&cases.domain.name) {
                trained.held_out = Some(scores.held_out());
            }
            all.push(scores);
        }
        Record::validated(&self.folder, since.elapsed().as_secs_f64());
        model.write(&self.folder.join(MODEL))?;
        if adds(&self.config).is_some() {
            let name = self.domains.first().map(|cases| cases.domain.name.as_str());
            model.export(model.domain(name)?)?.write(&self.folder.join(ADDED))?;
        }
        Ok(all)
    }

    /// Trains to the end and validates; gives whether it came to that, or the observer stopped it.
    ///
    /// # Errors
    ///
    /// As [`Run::train`] and [`Run::validate`].
    pub fn complete(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        if !self.train(observer)? {
            return Ok(false);
        }
        self.validate(observer)?;
        write_at_end(&self.folder);
        observer.finished(&self.folder)?;
        Ok(true)
    }
}

/// The training of a run, from its last checkpoint or its start.
fn trainer(gpu: &Gpu, at: &RunFolder, domains: &Arc<Vec<DomainCases>>) -> Result<Trainer> {
    let RunFolder { folder, config } = at;
    match saved::read(folder)? {
        Some(checkpoint) => Trainer::resume(gpu, config.clone(), domains.clone(), checkpoint),
        None => Trainer::new(gpu, config.clone(), domains.clone()),
    }
}

/// The model that a run adds its domain to, where its shared weights stand still.
fn adds(config: &RunConfig) -> Option<&Start> {
    config.start.as_ref().filter(|start| start.freeze == Freeze::Shared)
}

/// Writes the model of a training at its end, of its last weights.
fn write_model(folder: &Path, config: &RunConfig, trainer: &Trainer) -> Result<()> {
    let model = trainer.model()?;
    if adds(config).is_some() {
        model.write(&folder.join(ADDED))?;
    }
    assemble(config, model)?.write(&folder.join(MODEL))
}

/// A run's model of what it trained. An adapted one holds the old domains too, unless shared weights were trained.
fn assemble(config: &RunConfig, trained: Model) -> Result<Model> {
    let Some(start) = adds(config) else { return Ok(trained) };
    let merged = models::read(&start.model)?.merge(&trained)?;
    Ok(Model { chosen: trained.chosen, ..merged })
}

/// Scores held-out patches, notes and tells the scores, and keeps the weights where they are the best so far.
fn score_patches(
    folder: &Path,
    trainer: &mut Trainer,
    log: &mut Log,
    observer: &mut dyn Observer,
) -> Result<()> {
    settle(log, trainer, observer)?;
    let step = trainer.steps();
    let scores = trainer.validate(|best| best.write(&folder.join(BEST)))?;
    scores.iter().try_for_each(|scores| log.add_scores(step, scores))?;
    observer.patches_scored(&scores)
}

/// Notes readings, and tells of them.
fn tell(log: &mut Log, readings: &[Reading], observer: &mut dyn Observer) -> Result<()> {
    readings.iter().try_for_each(|reading| {
        log.add(reading)?;
        observer.losses(reading)
    })
}

/// Waits for the last step, and notes and tells the readings up to it, also where it fails.
fn settle(log: &mut Log, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<()> {
    let last = trainer.settle();
    if last.is_err() {
        tell(log, &trainer.untold(), observer)?;
    }
    tell(log, &last?, observer)
}

/// Writes a checkpoint, behind the readings of all its steps; not where the last step changed nothing, of which it gives false.
fn save(
    folder: &Path,
    trainer: &mut Trainer,
    log: &mut Log,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let file = folder.join(CHECKPOINT);
    settle(log, trainer, observer)?;
    if !trainer.is_sound()? && !trainer.is_finished() {
        log::warn!("the last step changed nothing: {} stays as it is", file.display());
        return Ok(false);
    }
    log.sync()?;
    trainer.save(&file, Some(&folder.join(PREVIOUS)))?;
    progress::draw(folder)?;
    observer.checkpoint(&file)?;
    Ok(true)
}
