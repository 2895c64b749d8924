//! The held-out cases of a run: segmented, cleaned up as it helps, and scored.

use std::path::Path;

use super::folder::{mask_file, validation_folder};
use super::scores::{ChosenCleanUp, DomainScores, key};
use crate::base::{Error, Result};
use crate::dataset::Case;
use crate::domain::DomainPlan;
use crate::imaging::{Known, Match, Reference, read_labels_on};
use crate::score::ClassKey;
use crate::score::metrics::{Comparison, DEFAULT_TOLERANCE_MM};
use crate::score::summary::CaseScores;
use crate::segment::{Decision, Kept, Predictor, finish};
use crate::train::DomainCases;

/// Segments the held-out cases of a domain into `out`, the folder of its run, chooses the clean-up that helps unless the plan has
/// one, and scores them with it; `plan` gets what was chosen.
pub(super) fn validate(
    predictor: &Predictor,
    cases: &DomainCases,
    plan: &mut DomainPlan,
    out: &Path,
) -> Result<DomainScores> {
    let folder = validation_folder(out, &cases.domain.name);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let mut chosen = Vec::new();
    if let Some(decision) = segment(predictor, cases, &folder)? {
        plan.clean_up.clear();
        for Kept { clean_up, before, after } in decision.kept() {
            let class = cases.domain.labels.classes[usize::from(clean_up.class)].name.clone();
            chosen.push(ChosenCleanUp { class, steps: clean_up.steps.clone(), before, after });
            plan.clean_up.push(clean_up);
        }
    }
    let each = cases.held_out.iter();
    let scores = each.map(|case| score(cases, plan, case, &folder)).collect::<Result<_>>()?;
    let scores = DomainScores::write(out, &cases.domain.name, &cases.domain.labels, scores)?;
    Ok(DomainScores { clean_up: chosen, ..scores })
}

/// Writes the masks of the held-out cases as the network makes them; collects what clean-up would do to them, unless the plan
/// has one or regions may overlap.
fn segment(predictor: &Predictor, cases: &DomainCases, folder: &Path) -> Result<Option<Decision>> {
    let labels = &cases.domain.labels;
    let classes: Vec<u8> = (1..labels.outputs()).zip(1..=u8::MAX).map(|(_, class)| class).collect();
    let decides = cases.domain.clean_up.is_empty() && !labels.regions;
    let mut decision = decides.then(|| Decision::new(&classes));
    for case in &cases.held_out {
        let (image, truth) = cases.load(case)?;
        let mask = predictor.raw_labels(&image);
        let mut mask = mask.map_err(|e| e.about(&case.images[0]))?;
        if let Some(decision) = &mut decision {
            let labelled = |class| cases.has_labels_of(case, usize::from(class));
            decision.add(&truth, &mask, labelled)?;
        }
        if !labels.regions {
            labels.decode(mask.as_mut_slice());
        }
        mask.write(&mask_file(folder, case))?;
    }
    Ok(decision)
}

/// Cleans a mask in `folder` up as the plan says and scores what is labelled in its case.
fn score(cases: &DomainCases, plan: &DomainPlan, case: &Case, folder: &Path) -> Result<CaseScores> {
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
    Ok(CaseScores {
        metrics: keys.into_iter().zip(metrics).collect(),
        prediction_file: file.display().to_string(),
        reference_file: case.label.display().to_string(),
    })
}
