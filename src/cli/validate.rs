//! Scores of a run's held-out cases, and of all folds together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data::{Case, Known, Match, Reference, read_labels_on, write_mask};
use crate::domain::CleanUp;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::infer::metrics::{DEFAULT_TOLERANCE_MM, Pair};
use crate::infer::postprocess::clean_up;
use crate::infer::summary::{CaseScores, Summary};
use crate::infer::{ClassKey, Decision, Kept, Predictor};
use crate::nn::Model;
use crate::train::{DomainCases, MODEL, read_plan};

use super::train::FOLD;

const VALIDATION: &str = "validation";
const SUMMARY: &str = "summary.json";

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
        let folder = out.join(VALIDATION).join(&cases.domain.name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let predictor = Predictor::new(gpu, model, index)?;
        let classes: Vec<u8> = (1..cases.domain.labels.outputs() as u8).collect();
        let mut decision = Decision::new(&classes);
        for case in &cases.held_out {
            let (image, truth) = cases.load(case)?;
            let labels = predictor.raw_labels(&image)?;
            if cases.domain.clean_up.is_empty() {
                decision.add(&truth.data, &labels, truth.shape)?;
            }
            write_mask(&mask(&folder, case), &labels, &image.grid)?;
        }
        let kept = decision.kept();
        for Kept { clean_up, before, after } in &kept {
            let class = &cases.domain.labels.classes[usize::from(clean_up.class)].name;
            let steps = &clean_up.steps;
            say!("clean-up of {class}: {steps:?}, mean Dice {before:.4} to {after:.4}");
        }
        if cases.domain.clean_up.is_empty() {
            model.domains[index].clean_up = kept.into_iter().map(|k| k.clean_up).collect();
        }
        let summary = score(cases, &classes, &model.domains[index].clean_up, &folder)?;
        summary.write(folder.join(SUMMARY))?;
        say!(
            "{}\n{}",
            cases.domain.name,
            summary.print_table(&names(&cases.domain.labels.names()))
        );
    }
    if domains.iter().any(|d| !d.held_out.is_empty()) {
        model.write(&out.join(MODEL))?;
    }
    Ok(())
}

fn mask(folder: &Path, case: &Case) -> PathBuf {
    folder.join(format!("{}.nii.gz", case.id))
}

/// Cleans the masks in `folder` up and scores them.
fn score(cases: &DomainCases, classes: &[u8], steps: &[CleanUp], folder: &Path) -> Result<Summary> {
    let mut scores = Vec::new();
    for case in &cases.held_out {
        let (image, truth) = cases.load(case)?;
        let file = mask(folder, case);
        let values = (0..cases.domain.labels.outputs() as u8).collect();
        let known = Known { values, source: "the model's classes".into() };
        let on = Reference { grid: &image.grid, path: &case.images[0] };
        let mut labels = read_labels_on(&file, &known, &on, Match::default())?.data;
        if !steps.is_empty() {
            clean_up(&mut labels, truth.shape, steps)?;
            write_mask(&file, &labels, &image.grid)?;
        }
        let pair = Pair::new(&truth.data, &labels, truth.shape, truth.spacing)?;
        let keys: Vec<ClassKey> = classes.iter().copied().map(ClassKey::from).collect();
        let metrics = pair.all_scores(&keys, DEFAULT_TOLERANCE_MM);
        scores.push(CaseScores {
            metrics: keys.into_iter().zip(metrics).collect(),
            prediction_file: file.display().to_string(),
            reference_file: case.label.display().to_string(),
        });
    }
    Ok(Summary::new(scores))
}

/// Names of classes by index.
fn names(names: &[String]) -> BTreeMap<ClassKey, String> {
    (0..=u8::MAX).map(ClassKey::from).zip(names.iter().cloned()).collect()
}

/// Scores the cases of all folds in a folder together, in the form of a single run's validation.
pub(super) fn combine(parent: &Path) -> Result<()> {
    let mut domains: BTreeMap<String, (Vec<String>, Vec<CaseScores>)> = BTreeMap::new();
    for fold in folders(parent)? {
        let is_fold = |name: &str| name.starts_with(FOLD);
        if !fold.file_name().is_some_and(|name| is_fold(&name.to_string_lossy())) {
            continue;
        }
        for plan in read_plan(&fold)? {
            let file = fold.join(VALIDATION).join(&plan.name).join(SUMMARY);
            // a domain with fewer cases than folds holds nothing out in the last ones
            if file.exists() {
                let (_, cases) =
                    domains.entry(plan.name).or_insert((plan.labels.names(), Vec::new()));
                cases.extend(Summary::read(&file)?.metric_per_case);
            }
        }
    }
    for (name, (classes, cases)) in domains {
        let folder = parent.join(VALIDATION).join(&name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let summary = Summary::new(cases);
        summary.write(folder.join(SUMMARY))?;
        say!("{name}, all folds\n{}", summary.print_table(&names(&classes)));
    }
    Ok(())
}

/// Folders in a folder, by name.
fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(parent).map_err(|e| Error::io(parent, e))?;
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}
