//! The cases of each domain: planned from, prepared for training, and left out of it.

use std::path::Path;

use rayon::prelude::*;

use super::config::RunConfig;
use super::search::{PlannedDomain, choose};
use crate::base::{Error, Result};
use crate::dataset::{Case, Dataset, Exclusion, Fingerprint, Fold, Labels, Sides};
use crate::domain::{DomainPlan, PlanOptions, PresetChoice};
use crate::engine::graph::Caps;
use crate::imaging::{LabelMap, Prepared, Volume};
use crate::patch::{PatchSize, Source};
use crate::{dataset, imaging};

/// A domain with its training data.
pub struct DomainCases {
    /// How the domain is trained.
    pub domain: DomainPlan,
    /// Its training cases, on the network's grid.
    pub cases: Vec<Prepared>,
    /// Cases left out of training.
    pub held_out: Vec<Case>,
    /// The folder that all of them are from.
    pub dataset: Dataset,
}

impl DomainCases {
    /// Splits and prepares a dataset by its plan.
    fn open(config: &RunConfig, mut dataset: Dataset, domain: &DomainPlan) -> Result<Self> {
        check_plan(&dataset, domain)?;
        // what meant nothing where the plan was made means nothing now
        dataset.labels.stray.clone_from(&domain.labels.stray);
        let Sides { training, validation } = dataset.split(&config.fold, config.seed)?;
        let prepare = |case: &&Case| -> Result<Prepared> {
            let (image, mut label) = dataset.load(case)?;
            for note in image.notes() {
                log::warn!("{}: {}", case.id, note.describe(&dataset.channels));
            }
            let stray = label.as_slice().iter().filter(|v| domain.labels.stray.contains(v)).count();
            if stray > 0 {
                log::warn!("{}: {stray} voxels with a stray label count as background", case.id);
            }
            domain.labels.encode(label.as_mut_slice());
            let normalisation = &domain.normalisation;
            let mut prepared = imaging::prepare(
                &image,
                Some(&label),
                domain.spacing,
                normalisation,
                domain.resampling,
            )
            .map_err(|e| e.about(&case.images[0]))?;
            prepared.unlabelled = unlabelled(domain, &dataset, case);
            Ok(prepared)
        };
        let cases = training.par_iter().map(prepare).collect::<Result<Vec<_>>>()?;
        if cases.iter().all(|case| case.smallest.is_none()) {
            log::warn!("{}: nothing is labelled in any case to train on", domain.name);
        }
        let held_out = validation.into_iter().cloned().collect();
        Ok(Self { domain: domain.clone(), cases, held_out, dataset })
    }

    /// Cases and size of patches.
    pub fn source(&self) -> Source<'_> {
        let size = PatchSize { crop: self.domain.crop_size(), patch: self.domain.patch };
        Source { cases: &self.cases, size }
    }

    /// Reads the held-out cases once, so that one that cannot be scored is refused before hours of training.
    pub fn check_held_out(&self) -> Result<()> {
        self.held_out.par_iter().try_for_each(|case| {
            let (image, _) = self.load(case)?;
            imaging::prepared_size(&image, self.domain.spacing)
                .map(|_| ())
                .map_err(|e| e.about(&case.images[0]))
        })
    }

    /// A case's image, and its labels as the domain's label indices.
    pub fn load(&self, case: &Case) -> Result<(Volume, LabelMap)> {
        let (image, mut label) = self.dataset.load(case)?;
        self.domain.labels.encode(label.as_mut_slice());
        Ok((image, label))
    }

    /// Whether a class or region is labelled in a case.
    pub fn has_labels_of(&self, case: &Case, class: usize) -> bool {
        unlabelled(&self.domain, &self.dataset, case)[class / 32] >> (class % 32) & 1 == 0
    }
}

/// The datasets of a run with the cases that it uses; refuses held-out or excluded cases, or a fold, that none has.
pub fn datasets(config: &RunConfig, preset: &PresetChoice) -> Result<Vec<Dataset>> {
    let opened = config.data.iter().map(|dir| preset.open(dir)).collect::<Result<Vec<_>>>()?;
    Exclusion::check(&config.selection.exclude, &opened.iter().collect::<Vec<_>>())?;
    let selected = opened.into_iter().map(|dataset| dataset.select(&config.selection));
    let mut datasets = selected.collect::<Result<Vec<_>>>()?;
    dataset::share_groups(&mut datasets, &config.fold)?;
    check_held_out(config, &datasets)?;
    Ok(datasets)
}

/// Plans each domain of a run from its data, for an adapter.
pub fn plan(config: &RunConfig, options: &PlanOptions, caps: &Caps) -> Result<Vec<PlannedDomain>> {
    let datasets = datasets(config, &options.preset)?;
    datasets.iter().try_for_each(|dataset| check_loss(config, &dataset.labels, &dataset.dir))?;
    let each = datasets.iter().map(|dataset| {
        let training = dataset.split(&config.fold, config.seed)?.training;
        let fingerprint = Fingerprint::of(dataset, &training)?;
        Ok((DomainPlan::plan(dataset, &fingerprint, options)?, fingerprint))
    });
    choose(config, each.collect::<Result<Vec<_>>>()?, options, caps)
}

/// Refuses a loss of classes that exclude one another where there are regions.
fn check_loss(config: &RunConfig, labels: &Labels, dir: &Path) -> Result<()> {
    if !labels.regions || config.loss.fits_regions() {
        return Ok(());
    }
    Err(Error::setting(
        "loss",
        format!("focal or Lovász loss for {}, whose regions may overlap", dir.display()),
        "dice-ce or ce",
        "Add `loss` dice-ce.",
    ))
}

/// Class that the published Lovász loss leaves out.
const LEFT_OUT: usize = 10;

/// Says where the published loss leaves a class out.
pub fn warn_of_left_out(config: &RunConfig, domains: &[DomainPlan]) {
    let leaves_out = config.loss.lovasz != 0.0 && config.loss.lovasz_leaves_out_10;
    for domain in domains.iter().filter(|_| leaves_out) {
        if let Some(class) = domain.labels.classes.get(LEFT_OUT) {
            log::warn!(
                "{}: the Lovász loss leaves out class {LEFT_OUT} ({}), as published; `loss` u2net beside `recipe` u2net keeps it in",
                domain.name,
                class.name
            );
        }
    }
}

/// Refuses a held-out case or a fold that no dataset has.
fn check_held_out(config: &RunConfig, datasets: &[Dataset]) -> Result<()> {
    match &config.fold {
        Fold::None => Ok(()),
        Fold::Index(index) => {
            let folds = datasets.iter().map(Dataset::folds).max().unwrap_or(0);
            if *index < folds {
                return Ok(());
            }
            let remedy = match &config.selection.group {
                Some(pattern) => format!("Use `fold` none, or a `group` other than {pattern:?}."),
                None => "Use `fold` none to train without validation, or add cases.".into(),
            };
            let expected = format!("less than {folds}, the folds that the cases allow");
            Err(Error::setting("fold", index.to_string(), expected, remedy))
        }
        Fold::HoldOut(names) => {
            for name in names {
                let found = datasets.iter().map(|dataset| dataset.named(name));
                if found.collect::<Result<Vec<_>>>()?.iter().all(Option::is_none) {
                    return Err(Error::setting(
                        "hold_out",
                        name.clone(),
                        "a case of one of the datasets",
                        "See the names in imagesTr.",
                    ));
                }
            }
            Ok(())
        }
    }
}

/// Refuses a plan that does not fit its dataset.
fn check_plan(dataset: &Dataset, domain: &DomainPlan) -> Result<()> {
    let refuse = |found: String, expected: String| {
        let expected = format!("{expected}, as plan.json says of domain {}", domain.name);
        Err(Error::file(&dataset.dir, found, expected, "Correct plan.json, or dataset.json."))
    };
    let channels = &dataset.channels;
    if domain.channels != channels.len() {
        let found = format!("{} channels: {}", channels.len(), channels.join(", "));
        return refuse(found, domain.channels.to_string());
    }
    let known = domain.labels.known();
    if let Some(value) = dataset.labels.known().iter().find(|value| !known.contains(value)) {
        return refuse(format!("the label value {value}"), format!("the values {known:?}"));
    }
    if dataset.cases.iter().any(|c| !c.unlabelled.is_empty()) && !domain.labels.partial {
        return refuse("unlabelled classes".into(), "labels.partial false".into());
    }
    Ok(())
}

/// Refuses domains of one name.
fn check_names(domains: &[DomainCases]) -> Result<()> {
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
    Ok(())
}

/// Splits and prepares the datasets of a run by their plans; values of a published task mean what `preset` says.
///
/// # Errors
///
/// Where a case cannot be read or does not fit its plan, two domains have one name, or the settings cannot be trained with.
pub fn open(
    config: &RunConfig,
    plans: &[DomainPlan],
    preset: &PresetChoice,
) -> Result<Vec<DomainCases>> {
    let datasets = datasets(config, preset)?.into_iter().zip(plans);
    let domains = datasets.map(|(dataset, plan)| DomainCases::open(config, dataset, plan));
    let domains = domains.collect::<Result<Vec<_>>>()?;
    check_names(&domains)?;
    config.check(domains.len())?;
    Ok(domains)
}

/// Bits of the classes that a case lacks the labels of; opening the dataset has checked the names.
fn unlabelled(domain: &DomainPlan, dataset: &Dataset, case: &Case) -> [u32; 8] {
    domain.labels.unlabelled(&dataset.labels, &case.unlabelled).unwrap_or_default()
}
