//! Names of cases that look like several scans of one patient.

use std::collections::BTreeMap;

/// Cases of one patient beyond which a common beginning is taken for the dataset's.
const MOST: usize = 12;

/// Words for a visit, a series or a moment that end the name of a scan, in lower case.
const WORDS: [&str; 29] = [
    "scan",
    "series",
    "visit",
    "ses",
    "session",
    "study",
    "exam",
    "time",
    "timepoint",
    "tp",
    "day",
    "week",
    "month",
    "year",
    "run",
    "acq",
    "frame",
    "phase",
    "ed",
    "es",
    "pre",
    "post",
    "baseline",
    "followup",
    "fu",
    "left",
    "right",
    "v",
    "t",
];

/// Whether the end of a name tells a scan of what stands before it, in lower case: a word, alone or with a number; a letter;
/// a date; or any number after a patient's number.
fn is_scan(part: &str, patient: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let word = part.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    let letter = part.len() == 1 && part.bytes().all(|b| b.is_ascii_alphabetic());
    let date =
        part.len() == 8 && number(part) && (part.starts_with("19") || part.starts_with("20"));
    letter || date || number(part) && number(patient) && patient.len() > 1 || WORDS.contains(&word)
}

/// The patient that a name tells of: what stands before its scan, of which the last part has a number.
fn patient(name: &str) -> Option<&str> {
    // BIDS says it
    let bids = name.split(['/', '_']).find(|part| part.starts_with("sub-") && part.len() > 4);
    if bids.is_some() {
        return bids;
    }
    let at = name.rfind(['_', '-', '.', '/', ' '])?;
    let (before, scan) = (&name[..at], &name[at + 1..]);
    let last = before.rsplit(['_', '-', '.', '/', ' ']).next()?;
    let numbered = last.bytes().any(|b| b.is_ascii_digit());
    (numbered && is_scan(&scan.to_lowercase(), last)).then_some(before)
}

/// Groups of names that look like one patient's, in their order.
pub(super) fn same_patient<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        if let Some(patient) = patient(name) {
            groups.entry(patient).or_default().push(name);
        }
    }
    // a beginning that all cases share is the dataset's
    let all = |group: &Vec<&str>| group.len() == names.len() && names.len() > 2;
    let groups = groups.into_values().filter(|group| group.len() > 1 && group.len() <= MOST);
    groups.filter(|group| !all(group)).collect()
}

/// The warning about a group.
pub(super) fn shared(group: &[&str]) -> String {
    format!(
        "{} look like scans of one patient: `group` keeps them on one side of a split",
        group.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_of_one_patient_are_known_by_their_names() {
        let names = ["pat01_a", "pat01_b", "pat02_a", "pat03"];
        assert_eq!(same_patient(&names), [["pat01_a", "pat01_b"]]);
        let names = ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"];
        assert_eq!(same_patient(&names), [[names[0], names[1]]]);
        let names = ["sub-01/ses-1/anat", "sub-01/ses-2/anat", "sub-02/ses-1/anat"];
        assert_eq!(same_patient(&names), [[names[0], names[1]]]);
        for names in [
            ["P7_visit1", "P7_visit2", "P8_visit1"],
            ["patient001_frame01", "patient001_frame12", "patient002_frame01"],
            ["A0S9V9_ED", "A0S9V9_ES", "B1_ED"],
            ["10005_1000005", "10005_1000006", "10006_1000007"],
            ["p01_20200101", "p01_20210101", "p02_20200101"],
        ] {
            assert_eq!(same_patient(&names), [[names[0], names[1]]]);
        }
    }

    #[test]
    fn numbers_of_cases_are_no_scans() {
        let names = ["hippocampus_003", "hippocampus_004", "spleen_2", "case_00", "case_01"];
        assert!(same_patient(&names).is_empty());
        let study = ["study1_001", "study1_002", "study1_003"];
        assert!(same_patient(&study).is_empty());
        let sites: Vec<String> = (0..40).map(|i| format!("site{}_{:03}", i / 20, i)).collect();
        assert!(same_patient(&sites.iter().map(String::as_str).collect::<Vec<_>>()).is_empty());
        assert!(same_patient(&["patA/segmentation", "patB/segmentation"]).is_empty());
        assert!(same_patient(&["KiTS19_001", "KiTS19_002"]).is_empty());
        assert!(
            same_patient(&["H1-001", "H1-002", "H2-001", "3Dircadb1.1", "3Dircadb1.2"]).is_empty()
        );
    }
}
