//! Which cases are left out of training: folds, drawn or nnU-Net's, and cases by name; groups stay together.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;

use super::case::Case;
use super::cases::Dataset;
use super::splits::SPLITS;
use crate::base::{Error, Result};

/// Which cases are left out of training, for validation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fold {
    /// One of five (fewer where there are fewer cases), or of those of `splits_final.json`.
    Index(usize),
    /// None: train on everything.
    #[serde(alias = "all")]
    None,
    /// These cases.
    HoldOut(Vec<String>),
    /// Of ten cases or more one in ten, at most twenty, drawn by the seed; of fewer none.
    Auto,
    /// So many cases of each dataset, drawn by the seed; where there are groups so many of them.
    Count(usize),
    /// So many percent of the cases of each dataset, at least one of them, drawn by the seed; where there are groups, of them.
    Percent(u8),
}

/// Cases from which on some are held out unless the user says otherwise, one of so many.
const ENOUGH: usize = 10;
/// Cases that are then held out at most.
const MOST: usize = 20;

impl Fold {
    /// How many of `all` cases, or groups, are drawn to be held out; none where the fold says which they are.
    fn drawn(&self, all: usize) -> Option<usize> {
        match self {
            Self::Auto => Some((all / ENOUGH).min(MOST)),
            Self::Count(count) => Some(*count),
            Self::Percent(percent) => Some((all * usize::from(*percent) / 100).max(1)),
            Self::Index(_) | Self::None | Self::HoldOut(_) => None,
        }
    }

    /// In words, as part of a sentence.
    pub fn described(&self) -> String {
        match self {
            Self::Index(index) => format!("fold {index}"),
            Self::None => "a run on all cases".into(),
            Self::HoldOut(names) => format!("a run without {}", names.join(", ")),
            Self::Auto => "a run without one case in ten".into(),
            Self::Count(count) => format!("a run without {count} cases"),
            Self::Percent(percent) => format!("a run without {percent} % of the cases"),
        }
    }
}

impl std::str::FromStr for Fold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => return Ok(Self::None),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        match text.parse() {
            Ok(index) => Ok(Self::Index(index)),
            Err(_) => Err(Error::setting(
                "fold",
                text,
                "a fold's number from 0, auto or none",
                "0 to 4 are usual.",
            )),
        }
    }
}

/// Folds of a cross-validation, fewer where there are fewer cases.
pub const FOLDS: usize = 5;
/// Makes the datasets of a run share their groups: a patient who is held out of one is held out of all.
pub fn share_groups(datasets: &mut [Dataset], fold: &Fold) -> Result<()> {
    let (mut all, mut held) = (BTreeSet::new(), BTreeSet::new());
    for dataset in datasets.iter().filter(|dataset| dataset.groups.is_some()) {
        all.extend(dataset.cases.iter().map(|case| dataset.unit(case)));
        if let Fold::HoldOut(names) = fold {
            for name in names {
                held.extend(dataset.named(name)?.map(|case| dataset.unit(case)));
            }
        }
    }
    for groups in datasets.iter_mut().filter_map(|dataset| dataset.groups.as_mut()) {
        (groups.all, groups.held) = (all.clone(), held.clone());
    }
    Ok(())
}

/// The cases of a dataset on both sides of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides<'a> {
    /// Cases to train on.
    pub training: Vec<&'a Case>,
    /// Cases that are held out.
    pub validation: Vec<&'a Case>,
}

impl Dataset {
    /// The case of this name, or the only one whose name ends in it (after a `/`).
    pub fn named(&self, name: &str) -> Result<Option<&Case>> {
        if let Some(case) = self.cases.iter().find(|case| case.id == name) {
            return Ok(Some(case));
        }
        let ending = format!("/{name}");
        let all: Vec<&Case> = self.cases.iter().filter(|case| case.id.ends_with(&ending)).collect();
        match all.as_slice() {
            [] => Ok(None),
            [case] => Ok(Some(*case)),
            [first, second, ..] => Err(Error::file(
                &self.dir,
                format!(
                    "{} cases called {name}: {} ({}) and {} ({})",
                    all.len(),
                    first.id,
                    first.label.display(),
                    second.id,
                    second.label.display()
                ),
                "the name of one case",
                "Give the longer name.",
            )),
        }
    }

    /// Folds that hold cases out.
    pub fn folds(&self) -> usize {
        match &self.splits {
            Some(splits) => splits.len(),
            None if self.units().len() > 1 => self.units().len().min(FOLDS),
            None => 0,
        }
    }

    /// What a fold holds out together: names of groups, or of cases where there are no groups.
    fn units(&self) -> Vec<String> {
        match &self.groups {
            Some(groups) => groups.all.iter().cloned().collect(),
            None => self.cases.iter().map(|case| case.id.clone()).collect(),
        }
    }

    fn unit(&self, case: &Case) -> String {
        let group = self.groups.as_ref().and_then(|groups| groups.of.get(&case.id));
        group.unwrap_or(&case.id).clone()
    }

    /// Training and validation cases. Names to hold out that other datasets have mean nothing here, and a fold beyond
    /// [`Dataset::folds`] holds nothing out. A group stays on one side.
    pub fn split(&self, fold: &Fold, seed: u64) -> Result<Sides<'_>> {
        let sides = match (fold, &self.splits) {
            (Fold::None, _) => self.apart(&[]),
            (Fold::Auto | Fold::Count(_) | Fold::Percent(_), _) => {
                let mut units = splits(&self.units(), 1, seed).concat();
                units.truncate(fold.drawn(units.len()).unwrap_or(0));
                self.apart(&units)
            }
            (Fold::Index(_), Some(_)) if self.groups.is_some() => {
                let file = self.dir.join(SPLITS);
                return Err(Error::setting(
                    "group",
                    format!("groups beside {}", file.display()),
                    "one of the two to decide folds",
                    "Leave `group` out, or move the file away.",
                ));
            }
            (Fold::Index(index), Some(splits)) if *index < splits.len() => {
                let of = |names: &[String]| {
                    self.cases.iter().filter(|case| names.contains(&case.id)).collect()
                };
                Sides { training: of(&splits[*index].train), validation: of(&splits[*index].val) }
            }
            (Fold::Index(index), _) => {
                let folds = splits(&self.units(), FOLDS, seed);
                let held = folds.get(*index).filter(|_| *index < self.folds());
                self.apart(held.map(Vec::as_slice).unwrap_or_default())
            }
            (Fold::HoldOut(names), _) => {
                let named =
                    names.iter().map(|name| self.named(name)).collect::<Result<Vec<_>>>()?;
                let named: Vec<&Case> = named.into_iter().flatten().collect();
                let elsewhere = self.groups.iter().flat_map(|groups| groups.held.iter().cloned());
                let units: Vec<String> =
                    named.iter().map(|case| self.unit(case)).chain(elsewhere).collect();
                let sides = self.apart(&units);
                for more in sides.validation.iter().filter(|case| !named.contains(case)) {
                    log::warn!(
                        "{} is held out, too: it is of the group {}",
                        more.id,
                        self.unit(more)
                    );
                }
                sides
            }
        };
        if sides.training.is_empty() {
            return Err(Error::file(
                &self.dir,
                "no case left to train on",
                "at least one",
                "Hold fewer cases out.",
            ));
        }
        Ok(sides)
    }

    fn apart(&self, held: &[String]) -> Sides<'_> {
        let (validation, training) =
            self.cases.iter().partition(|case| held.contains(&self.unit(case)));
        Sides { training, validation }
    }
}

/// The cases that each fold holds out, shuffled by a seed; at most as many folds as cases.
pub fn splits(ids: &[String], folds: usize, seed: u64) -> Vec<Vec<String>> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
    let folds = folds.min(ids.len()).max(1);
    (0..folds).map(|fold| ids.iter().skip(fold).step_by(folds).cloned().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::groups::groups;
    use super::super::splits::read_splits;
    use super::*;

    fn dataset(names: &[&str]) -> Dataset {
        let case = |name: &&str| Case { id: (*name).into(), ..Case::default() };
        Dataset { cases: names.iter().map(case).collect(), ..Dataset::default() }
    }

    fn ids(cases: &[&Case]) -> Vec<String> {
        cases.iter().map(|case| case.id.clone()).collect()
    }

    #[test]
    fn a_group_stays_on_one_side() {
        let names = ["p1_a", "p1_b", "p2_a", "p2_b", "p3_a", "p4_a", "p4_b", "p5_a"];
        let mut data = dataset(&names);
        data.groups = Some(groups(r"^(p\d+)_", &data.cases).unwrap());
        assert_eq!(data.folds(), 5);
        let mut seen = Vec::new();
        for fold in 0..5 {
            let Sides { training, validation } = data.split(&Fold::Index(fold), 3).unwrap();
            assert_eq!(training.len() + validation.len(), names.len());
            for case in &validation {
                assert!(training.iter().all(|other| other.id[..2] != case.id[..2]));
            }
            seen.extend(ids(&validation));
        }
        seen.sort();
        assert_eq!(seen, names);
        let sides = data.split(&Fold::HoldOut(vec!["p4_b".into()]), 0).unwrap();
        assert_eq!(ids(&sides.validation), ["p4_a", "p4_b"]);
        for (pattern, part) in [("p[", "regular expression"), ("^(q)", "p1_a, which")] {
            let message = groups(pattern, &data.cases).unwrap_err().to_string();
            assert!(message.contains("group: found") && message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_patient_of_two_datasets_is_held_out_of_both() {
        let mut both = [dataset(&["pA_1", "pB_1", "pD_2"]), dataset(&["pA_2", "pD_1", "pC_1"])];
        for data in &mut both {
            data.groups = Some(groups("^(p.)", &data.cases).unwrap());
        }
        let fold = Fold::HoldOut(vec!["pD_1".into()]);
        share_groups(&mut both, &fold).unwrap();
        assert_eq!(ids(&both[0].split(&fold, 0).unwrap().validation), ["pD_2"]);
        assert_eq!(ids(&both[1].split(&fold, 0).unwrap().validation), ["pD_1"]);
        for index in 0..both[0].folds() {
            let fold = Fold::Index(index);
            let [a, b] = both.each_ref().map(|data| data.split(&fold, 5).unwrap());
            let patients = |cases: &[&Case]| -> BTreeSet<String> {
                cases.iter().map(|case| case.id[..2].to_string()).collect()
            };
            let held = &patients(&a.validation) | &patients(&b.validation);
            assert!((&patients(&a.training) | &patients(&b.training)).is_disjoint(&held));
        }
    }

    #[test]
    fn without_groups_folds_are_as_they_were() {
        let data = dataset(&["a", "b", "c", "d", "e", "f"]);
        let names: Vec<String> = data.cases.iter().map(|case| case.id.clone()).collect();
        for (fold, held) in splits(&names, FOLDS, 7).into_iter().enumerate() {
            let mut held = held;
            held.sort();
            assert_eq!(ids(&data.split(&Fold::Index(fold), 7).unwrap().validation), held);
        }
    }

    #[test]
    fn a_share_is_drawn_by_the_seed_and_of_few_cases_none() {
        let names: Vec<String> = (0..250).map(|index| format!("c{index:03}")).collect();
        let of = |count: usize| {
            dataset(&names.iter().take(count).map(String::as_str).collect::<Vec<_>>())
        };
        let held = |count: usize, fold: Fold, seed: u64| {
            let data = of(count);
            let sides = data.split(&fold, seed).unwrap();
            assert_eq!(sides.training.len() + sides.validation.len(), count);
            ids(&sides.validation)
        };
        for (count, expected) in [(1, 0), (9, 0), (10, 1), (19, 1), (20, 2), (199, 19), (250, 20)] {
            assert_eq!(held(count, Fold::Auto, 0).len(), expected, "{count} cases");
        }
        for (fold, expected) in [(Fold::Count(3), 3), (Fold::Percent(10), 2), (Fold::Percent(1), 1)]
        {
            assert_eq!(held(20, fold, 0).len(), expected);
        }
        assert_eq!(held(50, Fold::Auto, 3), held(50, Fold::Auto, 3));
        assert_ne!(held(50, Fold::Auto, 3), held(50, Fold::Auto, 4));
        assert!(of(3).split(&Fold::Count(3), 0).unwrap_err().to_string().contains("no case left"));
        // of groups as many are drawn, which stay together in every dataset of the run
        let mut both = [of(40), of(12)];
        for data in &mut both {
            data.groups = Some(groups(r"^(c\d\d)", &data.cases).unwrap());
        }
        share_groups(&mut both, &Fold::Count(1)).unwrap();
        let [a, b] = both.each_ref().map(|data| {
            let groups: BTreeSet<String> = ids(&data.split(&Fold::Count(1), 5).unwrap().validation)
                .iter()
                .map(|id| id[..3].to_string())
                .collect();
            groups
        });
        assert_eq!(a.len(), 1);
        assert!(b.is_subset(&a));
    }

    #[test]
    fn a_short_name_must_mean_one_case() {
        let data = dataset(&["a/scan", "b/scan", "b/other"]);
        assert_eq!(data.named("other").unwrap().unwrap().id, "b/other");
        assert_eq!(data.named("a/scan").unwrap().unwrap().id, "a/scan");
        assert!(data.named("nobody").unwrap().is_none());
        let message = data.named("scan").unwrap_err().to_string();
        assert!(message.contains("a/scan") && message.contains("b/scan"), "{message}");
    }

    #[test]
    fn splits_of_nnunet_are_taken_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SPLITS);
        let mut data = dataset(&["a", "b", "c"]);
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_splits(folder.path(), &data.cases)
        };
        for (text, part) in [
            (r#"[{"train": ["a"], "val": ["x"]}]"#, "the case x in fold 0"),
            (r#"[{"train": ["a", "b"], "val": ["b"]}]"#, "the case b on both sides"),
            (r#"[{"train": [], "val": ["b"]}]"#, "fold 0 without a case in train"),
            ("[]", "no fold"),
            ("{}", "a list of folds"),
            (r#"[[["a"], ["b"]]]"#, "[0]: invalid type: list, expected an object with train and"),
            (r#"[{"train": ["a"], "val": 1}]"#, "[0].val: invalid type: integer `1`"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains(SPLITS), "{message}");
        }
        data.splits =
            read(r#"[{"train": ["a"], "val": ["c"]}, {"train": ["b"], "val": []}]"#).unwrap();
        assert_eq!(data.folds(), 2);
        let Sides { training, validation } = data.split(&Fold::Index(0), 0).unwrap();
        assert_eq!((ids(&training), ids(&validation)), (vec!["a".into()], vec!["c".to_string()]));
    }
}
