//! Scores of the held-out cases of a domain, and of the folds of a cross-validation together.

use std::collections::BTreeMap;
use std::path::Path;

use super::folder::{SUMMARY, read_plan, validation_folder};
use crate::base::{Error, Result};
use crate::dataset::{Class, Labels};
use crate::domain::CleanUpStep;
use crate::net::HeldOutScores;
use crate::score::ClassKey;
use crate::score::summary::{CaseScores, Summary};

/// Clean-up of a class that helps, with the mean Dice of its held-out masks without and with it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenCleanUp {
    /// Name of the class.
    pub class: String,
    /// What is done, in order.
    pub steps: Vec<CleanUpStep>,
    /// Mean Dice without.
    pub before: f64,
    /// Mean Dice with it.
    pub after: f64,
}

/// What came of a domain's held-out cases.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainScores {
    /// The domain's name.
    pub domain: String,
    /// What its classes or regions are called, by what they are scored as.
    pub names: BTreeMap<ClassKey, String>,
    /// The clean-up that validation chose; the scores are with it.
    pub clean_up: Vec<ChosenCleanUp>,
    /// The scores, also in `summary.json` beside the masks.
    pub summary: Summary,
}

impl DomainScores {
    /// Writes `summary.json` of a domain under the folder of a run or of several folds.
    pub(super) fn write(
        out: &Path,
        domain: &str,
        labels: &Labels,
        cases: Vec<CaseScores>,
    ) -> Result<Self> {
        let folder = validation_folder(out, domain);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let summary = Summary::new(cases);
        summary.write(folder.join(SUMMARY))?;
        let names = labels.scored().iter();
        let names = names.map(|class| (key(labels, class), class.name.clone())).collect();
        Ok(Self { domain: domain.into(), names, clean_up: Vec::new(), summary })
    }

    /// What a model's file keeps of the scores.
    pub(super) fn held_out(&self) -> HeldOutScores {
        let dice = |key: &ClassKey| self.summary.mean.get(key).map(|mean| mean.dice);
        let dice = |key| dice(key).filter(|dice| dice.is_finite());
        let classes = self.names.iter();
        let dice = classes.map(|(key, name)| (name.clone(), dice(key))).collect();
        HeldOutScores { cases: self.summary.metric_per_case.len(), dice }
    }

    /// The scores as a table for people.
    pub fn table(&self) -> String {
        self.summary.print_table(&self.names)
    }
}

/// What a class is scored as: the value of its masks, or the values of a region.
pub(super) fn key(labels: &Labels, class: &Class) -> ClassKey {
    match labels.regions {
        true => ClassKey::new(class.values.iter().copied()),
        false => ClassKey::from(class.value),
    }
}

/// Scores the cases of some folds together, in the form of a single run's validation, into the folder that they share.
pub(super) fn combine(parent: &Path, folds: &[&Path]) -> Result<Vec<DomainScores>> {
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
    let write = |(name, (labels, cases)): (String, (Labels, Vec<CaseScores>))| {
        DomainScores::write(parent, &name, &labels, cases)
    };
    domains.into_iter().map(write).collect()
}
