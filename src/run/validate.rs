//! The held-out cases of a run: segmented, cleaned up as it helps, and scored.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::folder::{mask_file, validation_folder};
use super::observer::{Observer, Segmenting};
use super::pictures::{Pictures, Scored};
use super::scores::{ChosenCleanUp, DomainScores, key};
use crate::base::{Error, Result, Stop, locked};
use crate::dataset::Case;
use crate::domain::DomainPlan;
use crate::imaging::{Known, LabelMap, Match, Reference, Volume, read_labels_on};
use crate::score::ClassKey;
use crate::score::metrics::{Comparison, DEFAULT_TOLERANCE_MM};
use crate::score::summary::CaseScores;
use crate::segment::{CaseWork, Decision, Ensemble, Kept, finish};
use crate::train::DomainCases;

/// Segments the held-out cases of a domain into `out`, the folder of its run, chooses the clean-up that helps unless the plan has
/// one, scores them with it and draws them; `plan` gets what was chosen. An error where somebody asks to stop.
pub(super) fn validate(
    ensemble: &Ensemble,
    cases: &DomainCases,
    plan: &mut DomainPlan,
    out: &Path,
    pictures: &mut Pictures,
    observer: &mut dyn Observer,
) -> Result<DomainScores> {
    let stop = &observer.stop();
    let folder = validation_folder(out, &cases.domain.name);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let mut chosen = Vec::new();
    if let Some(decision) = segment(ensemble, cases, &folder, observer)? {
        plan.clean_up.clear();
        for Kept { clean_up, before, after } in decision.kept() {
            let class = cases.domain.labels.classes[usize::from(clean_up.class)].name.clone();
            chosen.push(ChosenCleanUp { class, steps: clean_up.steps.clone(), before, after });
            plan.clean_up.push(clean_up);
        }
    }
    let each = cases.held_out.iter();
    let mut scored = |case| {
        stop.check()?;
        score(cases, plan, case, &folder, pictures)
    };
    let scores = each.map(&mut scored).collect::<Result<_>>()?;
    let scores = DomainScores::write(out, &cases.domain.name, &cases.domain.labels, scores)?;
    pictures.scores(&scores);
    Ok(DomainScores { clean_up: chosen, ..scores })
}

/// Writes the masks of the held-out cases as the network makes them; collects what clean-up would do to them, unless the plan
/// has one or regions may overlap.
fn segment(
    ensemble: &Ensemble,
    cases: &DomainCases,
    folder: &Path,
    observer: &mut dyn Observer,
) -> Result<Option<Decision>> {
    let stop = &observer.stop();
    let labels = &cases.domain.labels;
    let classes: Vec<u8> = (1..labels.outputs()).zip(1..=u8::MAX).map(|(_, class)| class).collect();
    let decides = cases.domain.clean_up.is_empty() && !labels.regions;
    let decision = Mutex::new(decides.then(|| Decision::new(&classes)));
    let work = Work { cases, folder, decision: &decision, stop };
    let mut done = observer.segmenting(&Segmenting {
        domain: cases.domain.name.clone(),
        compared: None,
        cases: cases.held_out.len(),
    });
    let mut outcome = Ok(());
    ensemble.segment_all(&work, &cases.held_out, &mut |_, written| {
        done();
        outcome = written;
        outcome.is_ok()
    });
    outcome?;
    Ok(decision.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What is done with each held-out case before and after the network.
struct Work<'a> {
    cases: &'a DomainCases,
    folder: &'a Path,
    /// None where nothing is decided.
    decision: &'a Mutex<Option<Decision>>,
    stop: &'a Stop,
}

impl CaseWork for Work<'_> {
    type Job = Case;
    /// The true labels.
    type Kept = LabelMap;

    fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn read(&self, case: &Case) -> Result<(Volume, LabelMap)> {
        self.cases.load(case)
    }

    fn about(&self, case: &Case, error: Error) -> Error {
        error.about(&case.images[0])
    }

    fn write(&self, case: &Case, truth: LabelMap, mut mask: LabelMap) -> Result<()> {
        let mut decision = locked(self.decision);
        if let Some(decision) = decision.as_mut() {
            let labelled = |class| self.cases.has_labels_of(case, usize::from(class));
            decision.add(&truth, &mask, labelled)?;
        }
        let labels = &self.cases.domain.labels;
        if !labels.regions {
            labels.decode(mask.as_mut_slice());
        }
        mask.write(&mask_file(self.folder, case))
    }
}

/// Cleans a mask in `folder` up as the plan says, scores what is labelled in its case, and draws it.
fn score(
    cases: &DomainCases,
    plan: &DomainPlan,
    case: &Case,
    folder: &Path,
    pictures: &mut Pictures,
) -> Result<CaseScores> {
    let labels = &plan.labels;
    let (image, mut truth) = cases.dataset.load(case)?;
    labels.canonical(truth.as_mut_slice());
    let file = mask_file(folder, case);
    let known = Known { values: labels.known(), source: "the run's plan".into() };
    let on = Reference { grid: image.grid(), path: &case.images[0] };
    let mut mask = read_labels_on(&file, &known, &on, Match::ByPlace)?;
    if !plan.clean_up.is_empty() {
        labels.encode(mask.as_mut_slice());
        finish(plan, &mut mask);
        mask.write(&file)?;
    }
    let first = labels.outputs() - labels.scored().len();
    let labelled = labels.scored().iter().enumerate();
    let labelled = labelled.filter(|(index, _)| cases.has_labels_of(case, first + index));
    let keys: Vec<ClassKey> = labelled.map(|(_, class)| key(labels, class)).collect();
    let masks = Comparison::of(&truth, &mask)?.ignoring(labels.ignore);
    let metrics = masks.all_scores(&keys, DEFAULT_TOLERANCE_MM);
    let scores = CaseScores {
        metrics: keys.into_iter().zip(metrics).collect(),
        prediction_file: file.display().to_string(),
        reference_file: case.label.display().to_string(),
    };
    let scored = Scored { case, image: &image, truth, mask: &mask, scores: &scores };
    pictures.add(&cases.domain.name, labels, folder, scored);
    Ok(scores)
}
