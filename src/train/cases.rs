//! The training cases of each domain in memory, and the thread that draws batches from them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::prelude::*;

use super::config::RunConfig;
use super::patches::{Cache, Sample, Source};
use super::schedule::Chooser;
use crate::data::{self, Dataset, Fingerprint, Fold, PatchSize, Prepared};
use crate::domain::{Domain, PlanOptions};
use crate::error::{Error, Result};

/// A domain with its training data.
pub struct DomainCases {
    pub domain: Domain,
    pub cases: Vec<Prepared>,
    /// Cases left out of training.
    pub held_out: Vec<data::Case>,
    pub dataset: Dataset,
}

impl DomainCases {
    /// A case's image, and its labels as the domain's classes.
    pub fn load(&self, case: &data::Case) -> Result<(data::Volume, data::LabelVolume)> {
        let (image, mut label) = self.dataset.load(case)?;
        self.domain.labels.encode(&mut label.data);
        Ok((image, label))
    }
}

/// Plans each domain of a run from its data.
pub fn plan(config: &RunConfig, options: &PlanOptions) -> Result<Vec<Domain>> {
    check_held_out(config)?;
    let each = config.data.iter().map(|dir| {
        let dataset = Dataset::open(dir)?;
        let (training, _) = dataset.split(&config.fold, config.seed)?;
        Domain::plan(&dataset, &Fingerprint::of(&dataset, &training)?, options)
    });
    each.collect()
}

/// Refuses a held-out case or a fold that no dataset has.
pub fn check_held_out(config: &RunConfig) -> Result<()> {
    let datasets = || config.data.iter().map(Dataset::open).collect::<Result<Vec<_>>>();
    match &config.fold {
        Fold::None => Ok(()),
        Fold::Index(index) => {
            let folds = datasets()?.iter().map(Dataset::folds).max().unwrap_or(0);
            if *index < folds {
                return Ok(());
            }
            Err(Error::flag(
                "--fold",
                index.to_string(),
                format!("less than {folds}, the folds that the cases allow"),
                "Use --fold none to train without validation, or add cases.",
            ))
        }
        Fold::HoldOut(ids) => {
            let datasets = datasets()?;
            match ids.iter().find(|id| !datasets.iter().any(|d| d.has(id))) {
                None => Ok(()),
                Some(id) => Err(Error::flag(
                    "--hold-out",
                    id.clone(),
                    "a case of one of the datasets",
                    "See the names in imagesTr.",
                )),
            }
        }
    }
}

/// Opens, splits, plans and prepares a dataset. `fixed` is the plan of an earlier run.
pub fn open(
    config: &RunConfig,
    dir: &std::path::Path,
    options: &PlanOptions,
    fixed: Option<&Domain>,
) -> Result<DomainCases> {
    let dataset = Dataset::open(dir)?;
    let (training, validation) = dataset.split(&config.fold, config.seed)?;
    let domain = match fixed {
        Some(domain) if domain.channels == dataset.channels.len() => domain.clone(),
        Some(domain) => {
            return Err(Error::file(
                dir,
                format!("{} channels: {}", dataset.channels.len(), dataset.channels.join(", ")),
                format!("{}, as plan.json says of domain {}", domain.channels, domain.name),
                "Correct plan.json, or dataset.json.",
            ));
        }
        None => Domain::plan(&dataset, &Fingerprint::of(&dataset, &training)?, options)?,
    };
    let prepare = |case: &&data::Case| -> Result<Prepared> {
        let (image, mut label) = dataset.load(case)?;
        domain.labels.encode(&mut label.data);
        data::prepare(&image, Some(&label), domain.spacing, &domain.normalisation)
    };
    let cases = training.par_iter().map(prepare).collect::<Result<Vec<_>>>()?;
    let held_out = validation.into_iter().cloned().collect();
    Ok(DomainCases { domain, cases, held_out, dataset })
}

/// A step's input, drawn.
pub struct Batch {
    pub domain: usize,
    pub samples: Vec<Sample>,
}

impl DomainCases {
    /// Cases and size of patches.
    pub fn source(&self) -> Source<'_> {
        let size = PatchSize { crop: self.domain.extent(), patch: self.domain.patch };
        Source { cases: &self.cases, size }
    }
}

/// Draws the batch of a domain's step.
fn batch(
    cases: &DomainCases,
    domain: usize,
    config: &RunConfig,
    step: u64,
    cache: &mut Cache,
) -> Result<Batch> {
    use rand::RngExt;
    let (count, source) = (cases.domain.batch, cases.source());
    let draw = |index: usize| {
        let mut rng = data::rng_for(config.seed, step, index as u64);
        let case = rng.random_range(0..source.cases.len());
        let focus = config.sampling.focus(index, count, &mut rng);
        let augment = &config.augment;
        (case, data::draw_patch(&source.cases[case], &source.size, focus, augment, &mut rng))
    };
    let drawn = (0..count).map(draw).collect();
    Ok(Batch { domain, samples: Sample::ready((domain, &source), drawn, cache)? })
}

/// Draws batches from step `first` on, a few ahead of the trainer, until the receiver is dropped.
pub fn stream(
    domains: Arc<Vec<DomainCases>>,
    config: RunConfig,
    chooser: Chooser,
    first: u64,
    mut cache: Cache,
) -> Result<Receiver<Result<Batch>>> {
    let (sender, receiver) = sync_channel(3);
    let work = move || {
        for step in first.. {
            let domain = chooser.domain(step);
            let batch = batch(&domains[domain], domain, &config, step, &mut cache);
            if sender.send(batch).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("batches".into())
        .spawn(work)
        .map_err(|e| Error::Internal(format!("no thread for batches: {e}")))?;
    Ok(receiver)
}
