//! Scores of a run's held-out cases, and of all folds together.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dataset::{Case, Class, Labels};
use crate::domain::{CleanUp, DomainPlan};
use crate::engine::gpu::Gpu;
use crate::imaging::{Known, Match, Reference, read_labels_on};
use crate::net::Model;
use crate::score::ClassKey;
use crate::score::metrics::{Comparison, DEFAULT_TOLERANCE_MM};
use crate::score::summary::{CaseScores, Summary};
use crate::segment::{Decision, Kept, PredictOptions, Predictor, finish};
use crate::train::{DomainCases, MODEL, SUMMARY, mask_file, read_plan, validation_folder};
use crate::{Error, Result};

/// Segments the held-out cases of each domain, keeps the clean-up that helps in the model unless its plan has one, and
/// scores.
pub(super) fn validate(
    gpu: &Gpu,
    model: &mut Model,
    domains: &[DomainCases],
    out: &Path,
) -> Result<()> {
    for cases in domains.iter().filter(|d| !d.held_out.is_empty()) {
        let index = model.domain(Some(&cases.domain.name))?;
        let folder = validation_folder(out, &cases.domain.name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let predictor = Predictor::new(gpu, model, index, &PredictOptions::default())?;
        let decision = segment(&predictor, cases, &folder)?;
        if let Some(decision) = decision {
            model.domains[index].clean_up = kept(&decision, &cases.domain.labels)?;
        }
        let each = cases.held_out.iter();
        let plan = &model.domains[index];
        let scores = each.map(|case| score(cases, plan, case, &folder)).collect::<Result<_>>()?;
        let summary = Summary::new(scores);
        summary.write(folder.join(SUMMARY))?;
        say!("{}\n{}", cases.domain.name, summary.print_table(&names(&cases.domain.labels)));
    }
    if domains.iter().any(|d| !d.held_out.is_empty()) {
        model.write(&out.join(MODEL))?;
    }
    Ok(())
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

/// The clean-up that helps.
fn kept(decision: &Decision, labels: &Labels) -> Result<Vec<CleanUp>> {
    let mut all = Vec::new();
    for Kept { clean_up, before, after } in decision.kept() {
        let class = &labels.classes[usize::from(clean_up.class)].name;
        let steps = &clean_up.steps;
        say!("clean-up of {class}: {steps:?}, mean Dice {before:.4} to {after:.4}");
        all.push(clean_up);
    }
    Ok(all)
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

/// What a class is scored as: the value of its masks, or the values of a region.
fn key(labels: &Labels, class: &Class) -> ClassKey {
    match labels.regions {
        true => ClassKey::new(class.values.iter().copied()),
        false => ClassKey::from(class.value),
    }
}

fn names(labels: &Labels) -> BTreeMap<ClassKey, String> {
    labels.scored().iter().map(|class| (key(labels, class), class.name.clone())).collect()
}

/// Scores the cases of some folds together, in the form of a single run's validation.
pub(super) fn combine(parent: &Path, folds: &[&Path]) -> Result<()> {
    let mut domains: BTreeMap<String, (Labels, Vec<CaseScores>)> = BTreeMap::new();
    for fold in folds {
        for plan in read_plan(fold)? {
            let file = validation_folder(fold, &plan.name).join(SUMMARY);
            // a domain with fewer cases than folds holds nothing out in the last ones
            if file.exists() {
                let (_, cases) = domains.entry(plan.name).or_insert((plan.labels, Vec::new()));
                cases.extend(Summary::read(&file)?.metric_per_case);
            }
        }
    }
    for (name, (labels, cases)) in domains {
        let folder = validation_folder(parent, &name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let summary = Summary::new(cases);
        summary.write(folder.join(SUMMARY))?;
        say!("{name}, all folds\n{}", summary.print_table(&names(&labels)));
    }
    Ok(())
}
