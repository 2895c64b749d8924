//! What of a dataset a run uses: which cases it leaves out, how their files are matched, which of them belong together.

use std::path::Path;

use super::cases::Dataset;
use super::groups::groups;
use crate::base::files::read_text;
use crate::base::{Error, Result};
use crate::imaging::Match;

/// A case to leave out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exclusion {
    /// Name of its dataset; any that has such a case where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The name of the case.
    pub case: String,
}

/// What of a dataset a run uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Selection {
    /// How the files of a case are matched.
    #[serde(rename = "match")]
    pub matching: Match,
    /// A regular expression: cases of which it captures the same stay on one side of every split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Cases to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Exclusion>,
}

/// A name as a list has it: in quotes where it would not come back otherwise.
fn quoted(name: &str) -> String {
    let odd = name.is_empty() || name.trim() != name || name.contains(char::is_control);
    let odd = odd || name.starts_with(['#', '"']);
    if odd { serde_json::Value::from(name).to_string() } else { name.into() }
}

fn unquoted(field: &str) -> String {
    let field = field.trim();
    let name = field.starts_with('"').then(|| serde_json::from_str(field).ok()).flatten();
    name.unwrap_or_else(|| field.into())
}

impl Exclusion {
    /// Reads a list: a case a line, its dataset's name and a tab before it where several datasets have such a case; lines
    /// that begin with # say nothing. A name in double quotes is a JSON string.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let text = read_text(path)?;
        let says = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let exclusion = |line: &str| match line.split_once('\t') {
            Some((dataset, case)) => {
                Self { dataset: Some(unquoted(dataset)), case: unquoted(case) }
            }
            None => Self { dataset: None, case: unquoted(line) },
        };
        Ok(text.lines().filter(says).map(exclusion).collect())
    }

    /// The line of a list that means it.
    pub fn line(&self) -> String {
        let dataset = self.dataset.as_ref().map(|dataset| format!("{}\t", quoted(dataset)));
        format!("{}{}\n", dataset.unwrap_or_default(), quoted(&self.case))
    }

    /// Whether it may be about a case of this dataset.
    fn is_about(&self, dataset: &Dataset) -> bool {
        self.dataset.as_ref().is_none_or(|name| *name == dataset.name)
    }

    /// Whether it is about this case of a dataset.
    pub fn means(&self, dataset: &Dataset, case: &str) -> bool {
        self.is_about(dataset) && self.case == case
    }

    /// Refuses exclusions of cases that none of these datasets has; the datasets as they were opened.
    pub fn check(all: &[Self], datasets: &[&Dataset]) -> Result<()> {
        let known = |exclusion: &&Self| {
            let has = |d: &Dataset| d.cases.iter().any(|case| exclusion.means(d, &case.id));
            datasets.iter().copied().any(has)
        };
        match all.iter().find(|exclusion| !known(exclusion)) {
            None => Ok(()),
            Some(Self { dataset, case }) => Err(Error::setting(
                "exclude",
                format!(
                    "the case {case}{}",
                    dataset.iter().map(|d| format!(" of {d}")).collect::<String>()
                ),
                "cases of the datasets in `data`",
                "Correct the list, or write it anew with `verify` and `fix_list`.",
            )),
        }
    }
}

impl Dataset {
    /// Without the excluded cases, its files matched as said.
    pub fn without(mut self, selection: &Selection) -> Self {
        let left_out: Vec<String> = self
            .cases
            .iter()
            .filter(|case| selection.exclude.iter().any(|e| e.means(&self, &case.id)))
            .map(|case| case.id.clone())
            .collect();
        self.cases.retain(|case| !left_out.contains(&case.id));
        self.faults.retain(|fault| !fault.case.as_ref().is_some_and(|id| left_out.contains(id)));
        self.matching = selection.matching;
        self
    }

    /// Keeps what a run uses; refuses a dataset of which something is still at fault, or nothing is left.
    pub fn select(self, selection: &Selection) -> Result<Self> {
        let mut selected = self.without(selection);
        let rest = selected.faults.len().saturating_sub(1);
        if let Some(fault) = selected.faults.first() {
            let mut fault = fault.clone();
            if rest > 0 {
                let more = format!(" {rest} more faults: `u2seg verify` lists them.");
                fault.remedy.push_str(&more);
            }
            return Err(fault.error());
        }
        if selected.cases.is_empty() {
            let remedy = "Leave fewer cases out.";
            return Err(Error::file(
                &selected.dir,
                "no case that is not excluded",
                "at least one",
                remedy,
            ));
        }
        if let Some(pattern) = &selection.group {
            selected.groups = Some(groups(pattern, &selected.cases)?);
        }
        Ok(selected)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, Fault};
    use super::*;

    fn dataset(name: &str, cases: &[&str]) -> Dataset {
        let case = |id: &&str| Case { id: (*id).into(), ..Case::default() };
        Dataset { name: name.into(), cases: cases.iter().map(case).collect(), ..Dataset::default() }
    }

    #[test]
    fn every_name_survives_its_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("leave.txt");
        let names =
            ["a", "#1 Spleen", "a b", "x ", " y", "t\tq", "t\nq", "\"q\"", "", "sub/c", "ä"];
        let all: Vec<Exclusion> = names
            .iter()
            .flat_map(|name| [None, Some("#d\t".to_string())].map(|d| (d, name)))
            .map(|(dataset, name)| Exclusion { dataset, case: (*name).into() })
            .collect();
        let text: String = all.iter().map(Exclusion::line).collect();
        std::fs::write(&file, format!("   # a list\n{text}").replace('\n', "\r\n")).unwrap();
        assert_eq!(Exclusion::read(&file).unwrap(), all);
    }

    #[test]
    fn excluded_cases_take_their_faults_along() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("leave.txt");
        std::fs::write(&file, "\u{feff}# no image\r\nA\tsub/b\r\n\r\nc\n").unwrap();
        let exclude = Exclusion::read(&file).unwrap();
        assert_eq!(exclude.len(), 2);
        let mut data = dataset("A", &["a", "sub/b", "c"]);
        data.faults
            .push(Fault::new("b.nii", "no such file", "an image", "Restore it.").of("sub/b"));
        Exclusion::check(&exclude, &[&data]).unwrap();
        assert!(data.clone().select(&Selection::default()).is_err());
        let selection = Selection { exclude: exclude.clone(), ..Selection::default() };
        let left = data.clone().select(&selection).unwrap();
        assert_eq!(left.cases.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["a"]);
        // of another dataset of such a case only the one without a name is meant
        let other = dataset("B", &["sub/b", "d"]);
        assert_eq!(other.clone().select(&selection).unwrap().cases.len(), 2);
        let message = Exclusion::check(&exclude, &[&other]).unwrap_err().to_string();
        assert!(message.contains("exclude: found") && message.contains("sub/b of A"), "{message}");
        let all = Selection { exclude, ..Selection::default() };
        let message = dataset("A", &["c"]).select(&all).unwrap_err().to_string();
        assert!(message.contains("no case that is not excluded"), "{message}");
    }
}
