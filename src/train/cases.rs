//! The cases of each domain: planned from, prepared for training, and left out of it.

use std::path::Path;
use std::sync::Arc;

use super::config::RunConfig;
use super::search::{PlannedDomain, choose};
use crate::base::{Error, Result, Stop};
use crate::dataset::prepared::{Cohort, KeptCases, Recipe, Store, StoredCase, Summary, Tell};
use crate::dataset::{Case, Dataset, Exclusion, Fingerprint, Fold, Labels, Sides};
use crate::domain::{DomainPlan, PlanOptions, PresetChoice};
use crate::engine::graph::Caps;
use crate::imaging::{LabelMap, Volume};
use crate::patch::{MAX_EXTENT, PatchSize, Source};
use crate::{dataset, imaging};

/// A domain with its training data.
pub struct DomainCases {
    /// How the domain is trained.
    pub domain: DomainPlan,
    /// Its training cases, on the network's grid.
    pub cases: Vec<StoredCase>,
    /// Bits of the classes or regions whose labels each of them lacks.
    pub unlabelled: Vec<[u32; 8]>,
    /// Cases left out of training.
    pub held_out: Vec<Case>,
    /// Those of them whose patches are scored while training, on the network's grid.
    pub scored: Vec<StoredCase>,
    /// Bits of the classes or regions whose labels each of those lacks.
    pub scored_unlabelled: Vec<[u32; 8]>,
    /// The folder that all of them are from.
    pub dataset: Dataset,
    cohort: Cohort,
}

/// How a plan prepares cases.
fn recipe(domain: &DomainPlan) -> Recipe {
    Recipe {
        spacing: domain.spacing,
        normalisation: domain.normalisation,
        resampling: domain.resampling,
        labels: domain.labels.clone(),
    }
}

/// How cases will be prepared, where that follows from the settings and not from what the cases hold: where it is the same for
/// cases that have nothing in common.
fn recipe_before_reading(dataset: &Dataset, options: &PlanOptions) -> Option<Recipe> {
    let is_ct = Fingerprint::of(dataset, &[]).is_ct;
    let of = |cases: usize, spacing: f64, foreground: [f32; 4]| {
        let (shapes, spacings) = (vec![[MAX_EXTENT; 3]; cases], vec![[spacing; 3]; cases]);
        let fingerprint = Fingerprint { shapes, spacings, foreground, is_ct };
        DomainPlan::plan(dataset, &fingerprint, options).ok().map(|plan| recipe(&plan))
    };
    let one = of(1, 1.0, [-3e4, 3e4, 0.0, 1e4])?;
    (of(100, 2.0, [1.0, 2.0, 1.5, 0.5])? == one).then_some(one)
}

/// Where prepared cases are kept, and who is told how far the work on them is.
pub struct Preparing<'a> {
    /// The prepared cases.
    pub store: &'a Arc<Store>,
    /// Is told of progress.
    pub tell: &'a mut Tell<'a>,
    /// Whether cases that are read to make a plan are prepared at once, where it is known before how.
    pub ahead: bool,
    /// What asks to stop, which the choice of kernels hears.
    pub stop: Stop,
}

impl DomainCases {
    /// Splits and prepares a dataset by its plan.
    fn open(
        config: &RunConfig,
        mut dataset: Dataset,
        domain: &DomainPlan,
        store: &Arc<Store>,
        tell: &mut Tell<'_>,
    ) -> Result<Self> {
        check_plan(&dataset, domain)?;
        // what meant nothing where the plan was made means nothing now
        dataset.labels.stray.clone_from(&domain.labels.stray);
        let cohort = Cohort::new(store.clone(), dataset.clone());
        let Sides { training, validation } = dataset.split(&config.fold, config.seed)?;
        let cases = cohort.prepared(&training, &recipe(domain), tell)?;
        for (case, summary) in training.iter().zip(cohort.summaries(&training, tell)?) {
            tell_oddities(case, &summary, &dataset, &domain.labels);
        }
        if cases.iter().all(|case| case.facts().smallest.is_none()) {
            log::warn!("{}: nothing is labelled in any case to train on", domain.name);
        }
        let lacks = |cases: &[&Case]| {
            cases.iter().map(|case| unlabelled(domain, &dataset, case)).collect::<Vec<_>>()
        };
        let scored = match config.validation {
            Some(_) => evenly(&validation, SCORED),
            None => Vec::new(),
        };
        Ok(Self {
            unlabelled: lacks(&training),
            held_out: validation.into_iter().cloned().collect(),
            scored_unlabelled: lacks(&scored),
            scored: cohort.prepared(&scored, &recipe(domain), tell)?,
            domain: domain.clone(),
            cases,
            dataset,
            cohort,
        })
    }

    /// Cases and size of patches.
    pub fn source(&self) -> Source<'_> {
        let size = PatchSize { crop: self.domain.crop_size(), patch: self.domain.patch };
        Source::new(&self.cases, size)
    }

    /// Those held-out cases of which patches are scored while training, and size of patches.
    pub fn scored_source(&self) -> Source<'_> {
        Source::new(&self.scored, self.source().size)
    }

    /// Reads the held-out cases, unless they were read before, so that one that cannot be scored is refused before hours of
    /// training.
    ///
    /// # Errors
    ///
    /// Where one cannot be read or would become too large, and what `tell` gives.
    pub fn check_held_out(&self, tell: &mut Tell<'_>) -> Result<()> {
        let cases: Vec<&Case> = self.held_out.iter().collect();
        for (case, summary) in cases.iter().zip(self.cohort.summaries(&cases, tell)?) {
            imaging::resampled_size(summary.cropped, summary.spacing, self.domain.spacing)
                .map_err(|e| e.about(&case.images[0]))?;
        }
        Ok(())
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

/// Held-out cases whose patches are scored while training, at most.
const SCORED: usize = 20;

/// At most so many of some cases, spread over all of them.
fn evenly<'a>(cases: &[&'a Case], most: usize) -> Vec<&'a Case> {
    cases.iter().step_by(cases.len().div_ceil(most).max(1)).copied().collect()
}

/// Says what is odd about a case that is trained on.
fn tell_oddities(case: &Case, summary: &Summary, dataset: &Dataset, labels: &Labels) {
    for note in &summary.notes {
        log::warn!("{}: {}", case.id, note.describe(&dataset.channels));
    }
    let stray = summary.stray(labels);
    if stray > 0 {
        log::warn!("{}: {stray} voxels with a stray label count as background", case.id);
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

/// The settings as they are for these datasets: where `auto` holds nothing out of any of them, the fold is none.
///
/// # Errors
///
/// As [`datasets`].
pub fn settled(config: RunConfig, preset: &PresetChoice) -> Result<RunConfig> {
    if config.fold != Fold::Auto {
        return Ok(config);
    }
    let holds_out = |dataset: &Dataset| {
        dataset.split(&Fold::Auto, config.seed).map(|sides| !sides.validation.is_empty())
    };
    let datasets = datasets(&config, preset)?;
    let any = datasets.iter().map(holds_out).collect::<Result<Vec<_>>>()?.contains(&true);
    Ok(RunConfig { fold: if any { Fold::Auto } else { Fold::None }, ..config })
}

/// The cases that a plan follows from. Folds of a cross-validation share their plan, and with it their prepared cases, as if
/// all were trained at once; a case that is named to be left out has no say.
fn planned_from<'a>(dataset: &'a Dataset, config: &RunConfig) -> Result<Sides<'a>> {
    let Sides { training, validation } = dataset.split(&config.fold, config.seed)?;
    let validation = match config.fold {
        Fold::Index(_) | Fold::Auto | Fold::Count(_) | Fold::Percent(_) => validation,
        Fold::None | Fold::HoldOut(_) => Vec::new(),
    };
    Ok(Sides { training, validation })
}

/// Plans each domain of a run from its data, for an adapter.
///
/// # Errors
///
/// Where the data or the settings cannot be trained with, or a case cannot be read.
pub fn plan(
    config: &RunConfig,
    options: &PlanOptions,
    caps: &Caps,
    preparing: &mut Preparing<'_>,
) -> Result<Vec<PlannedDomain>> {
    choose(config, small_plans(config, options, preparing)?, options, caps)
}

/// The plan of each domain with a patch that every adapter has memory for, and what the data says.
fn small_plans(
    config: &RunConfig,
    options: &PlanOptions,
    preparing: &mut Preparing<'_>,
) -> Result<Vec<(DomainPlan, Fingerprint)>> {
    let datasets = datasets(config, &options.preset)?;
    datasets.iter().try_for_each(|dataset| check_loss(config, &dataset.labels, &dataset.dir))?;
    let each = datasets.iter().map(|dataset| {
        let cohort = Cohort::new(preparing.store.clone(), dataset.clone());
        let tell = &mut *preparing.tell;
        let Sides { training, validation } = planned_from(dataset, config)?;
        let recipe = preparing.ahead.then(|| recipe_before_reading(dataset, options)).flatten();
        let mut summaries = match recipe {
            Some(recipe) => cohort.summaries_with(&training, &recipe, tell)?,
            None => cohort.summaries(&training, tell)?,
        };
        summaries.extend(cohort.summaries(&validation, tell)?);
        let fingerprint = Fingerprint::of(dataset, &summaries);
        Ok((DomainPlan::plan(dataset, &fingerprint, options)?, fingerprint))
    });
    each.collect()
}

/// The cases that a domain's plan follows from, and how it prepares them.
pub(super) struct PlannedCases<'a> {
    pub domain: &'a DomainPlan,
    cohort: Cohort,
    cases: Vec<Case>,
    recipe: Recipe,
}

/// Those of all domains of a run.
pub(super) fn planned_cases<'a>(
    config: &RunConfig,
    plans: &'a [DomainPlan],
    preset: &PresetChoice,
    store: &Arc<Store>,
) -> Result<Vec<PlannedCases<'a>>> {
    let of = |(dataset, domain): (Dataset, &'a DomainPlan)| {
        check_plan(&dataset, domain)?;
        let cohort = Cohort::new(store.clone(), dataset);
        let Sides { training, validation } = planned_from(cohort.dataset(), config)?;
        let cases = training.into_iter().chain(validation).cloned().collect();
        Ok(PlannedCases { domain, cases, recipe: recipe(domain), cohort })
    };
    datasets(config, preset)?.into_iter().zip(plans).map(of).collect()
}

impl PlannedCases<'_> {
    fn cases(&self) -> Vec<&Case> {
        self.cases.iter().collect()
    }

    /// What they hold.
    pub fn summaries(&self, tell: &mut Tell<'_>) -> Result<Vec<Summary>> {
        self.cohort.summaries(&self.cases(), tell)
    }

    /// What of them is prepared.
    pub fn kept(&self) -> KeptCases {
        self.cohort.kept(&self.cases(), &self.recipe)
    }

    /// Bytes of memory that preparing them takes at most, about.
    pub fn making(&self) -> u64 {
        self.cohort.making(&self.cases(), &self.recipe)
    }
}

/// Plans each domain of a run from its data and prepares the cases that the run trains on, or all that its folds do.
///
/// # Errors
///
/// Where the data cannot be trained with, or a case cannot be read, prepared or kept.
pub fn prepare(
    config: &RunConfig,
    options: &PlanOptions,
    preparing: &mut Preparing<'_>,
) -> Result<Vec<(DomainPlan, KeptCases)>> {
    let plans = small_plans(config, options, preparing)?;
    let plans: Vec<DomainPlan> = plans.into_iter().map(|(plan, _)| plan).collect();
    let mut kept = Vec::new();
    for planned in planned_cases(config, &plans, &options.preset, preparing.store)? {
        let cases = planned.cohort.prepared(&planned.cases(), &planned.recipe, preparing.tell)?;
        let bytes = cases.iter().map(StoredCase::bytes).sum();
        kept.push((planned.domain.clone(), KeptCases { cases: cases.len(), bytes }));
    }
    Ok(kept)
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
        Fold::None | Fold::Auto | Fold::Count(1..) | Fold::Percent(1..=99) => Ok(()),
        Fold::Count(_) | Fold::Percent(_) => Err(Error::setting(
            "hold_out",
            config.fold.described(),
            "one case at least, or 1 to 99 %",
            "Use `fold` none to hold nothing out.",
        )),
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
    preparing: &mut Preparing<'_>,
) -> Result<Vec<DomainCases>> {
    let datasets = datasets(config, preset)?.into_iter().zip(plans);
    let domains = datasets.map(|(dataset, plan)| {
        DomainCases::open(config, dataset, plan, preparing.store, preparing.tell)
    });
    let domains = domains.collect::<Result<Vec<_>>>()?;
    check_names(&domains)?;
    config.check(domains.len())?;
    Ok(domains)
}

/// Bits of the classes that a case lacks the labels of; opening the dataset has checked the names.
fn unlabelled(domain: &DomainPlan, dataset: &Dataset, case: &Case) -> [u32; 8] {
    domain.labels.unlabelled(&dataset.labels, &case.unlabelled).unwrap_or_default()
}
