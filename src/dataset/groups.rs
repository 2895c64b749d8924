//! Groups of cases, such as those of one patient.

use std::collections::{BTreeMap, BTreeSet};

use super::case::Case;
use crate::base::{Error, Result};

/// Groups of cases that stay on one side of every split.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    /// The group of each case.
    pub(super) of: BTreeMap<String, String>,
    /// All groups, also those of the other datasets of a run.
    pub(super) all: BTreeSet<String>,
    /// Those that a case of which is held out, by whatever dataset has it.
    pub(super) held: BTreeSet<String>,
}

/// What a pattern captures in each case's name: its first group, or all that it matches.
pub(super) fn groups(pattern: &str, cases: &[Case]) -> Result<Groups> {
    let regex = regex::Regex::new(pattern).map_err(|e| {
        // the last line says what is wrong with it
        let why = e.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        Error::setting(
            "group",
            format!("{pattern:?}, {why}"),
            "a regular expression",
            "For patients such as pat01 in pat01_scan2 it is \"^(pat\\d+)\".",
        )
    })?;
    let group = |case: &Case| {
        let found = regex.captures(&case.id);
        let text =
            found.and_then(|found| Some(found.get(1).or(found.get(0))?.as_str().to_string()));
        let text = text.ok_or_else(|| {
            Error::setting(
                "group",
                format!("the case {}, which {pattern:?} does not match", case.id),
                "a match in the name of every case",
                "Widen the pattern.",
            )
        })?;
        Ok((case.id.clone(), text))
    };
    let of: BTreeMap<String, String> = cases.iter().map(group).collect::<Result<_>>()?;
    let all = of.values().cloned().collect();
    Ok(Groups { of, all, held: BTreeSet::new() })
}
