//! The statistics of a folder of masks: `statistics.json`, and the same as a table in `statistics.csv`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::statistics::CaseStatistics;
use crate::base::files::{Lock, read_json, write_atomically};
use crate::base::{Error, Result};

/// The file beside the masks.
pub const STATISTICS: &str = "statistics.json";
/// The same as a table.
pub const STATISTICS_TABLE: &str = "statistics.csv";
/// Held while the files are written, by one of several processes that segment parts of the same images.
const LOCK: &str = ".statistics.lock";

/// The file as JSON has it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    cases: Vec<CaseStatistics>,
}

/// The statistics of a folder of masks.
#[derive(Debug, Clone, PartialEq)]
pub struct StatisticsFile {
    folder: PathBuf,
}

impl StatisticsFile {
    /// Of this folder.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// The files, which need not be there.
    pub fn files(&self) -> [PathBuf; 2] {
        [STATISTICS, STATISTICS_TABLE].map(|name| self.folder.join(name))
    }

    /// The cases by the files of their masks; none where there is no file.
    ///
    /// # Errors
    ///
    /// Where the file holds something else.
    pub fn read(&self) -> Result<BTreeMap<String, CaseStatistics>> {
        let [file, _] = self.files();
        if !file.is_file() {
            return Ok(BTreeMap::new());
        }
        let expected = "statistics of masks, as `predict` writes them";
        let remedy = "Move the file away, or choose another folder for the masks.";
        let Contents { cases } = read_json(&file, expected, remedy)?;
        Ok(cases.into_iter().map(|case| (case.mask.clone(), case)).collect())
    }

    /// Adds cases, in place of those of the same masks; cases whose masks are gone are left out.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read or written.
    pub fn add(&self, cases: impl IntoIterator<Item = CaseStatistics>) -> Result<()> {
        let _lock = self.lock();
        let mut all = self.read()?;
        all.extend(cases.into_iter().map(|case| (case.mask.clone(), case)));
        all.retain(|_, case| self.folder.join(&case.mask).is_file());
        let cases: Vec<CaseStatistics> = all.into_values().collect();
        let [json, csv] = self.files();
        write_atomically(&csv, &table(&cases).map_err(|e| Error::Internal(e.to_string()))?)?;
        let told = serde_json::to_string_pretty(&Contents { cases });
        let told = told.map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(&json, format!("{told}\n").as_bytes())
    }

    /// None where the file system has no locks, which is no reason not to write.
    fn lock(&self) -> Option<Removed> {
        let path = self.folder.join(LOCK);
        loop {
            match Lock::wait(&path) {
                Ok(lock) if lock.is_at_its_path() => return Some(Removed(lock)),
                // another process removed the file in between, and is done
                Ok(_) => {}
                Err(error) => {
                    log::warn!("{error} Several processes may overwrite each other's {STATISTICS}");
                    return None;
                }
            }
        }
    }
}

/// A lock whose file goes away with it.
struct Removed(Lock);

impl Drop for Removed {
    fn drop(&mut self) {
        // one that cannot be removed is taken again by the next process
        let _ = std::fs::remove_file(self.0.path());
    }
}

/// A row a class of a case; what a class has not is empty.
fn table(cases: &[CaseStatistics]) -> std::result::Result<Vec<u8>, csv::Error> {
    let classes = || cases.iter().flat_map(|case| &case.classes);
    let channels = classes().map(|class| class.intensity.len()).max().unwrap_or(0);
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut titles: Vec<String> =
        ["case", "class", "label", "voxels", "volume_ml", "components"].map(String::from).into();
    titles.extend((0..channels).flat_map(|c| [format!("mean_{c}"), format!("std_{c}")]));
    table.write_record(&titles)?;
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for case in cases {
        for class in &case.classes {
            let mut row = vec![
                case.case.clone(),
                class.class.clone(),
                class.label.to_string(),
                class.voxels.to_string(),
                class.volume_ml.to_string(),
                class.components.to_string(),
            ];
            row.extend(class.intensity.iter().flat_map(|i| [number(i.mean), number(i.std)]));
            row.resize(titles.len(), String::new());
            table.write_record(&row)?;
        }
    }
    table.into_inner().map_err(|e| e.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::super::statistics::{ClassStatistics, Intensity};
    use super::*;

    fn case(name: &str, voxels: u64) -> CaseStatistics {
        let told = (voxels > 0).then_some(1.5);
        let class = ClassStatistics {
            class: "liver, left".into(),
            label: 1.into(),
            voxels,
            volume_ml: voxels as f64 / 8.0,
            components: 1,
            intensity: vec![Intensity { mean: told, std: told }],
        };
        CaseStatistics { case: name.into(), mask: format!("{name}.nii.gz"), classes: vec![class] }
    }

    #[test]
    fn cases_are_added_and_those_without_a_mask_leave() {
        let folder = tempfile::tempdir().unwrap();
        let mask = |name: &str| std::fs::write(folder.path().join(format!("{name}.nii.gz")), "");
        ["a", "b"].iter().for_each(|name| mask(name).unwrap());
        let file = StatisticsFile::of(folder.path());
        assert!(file.read().unwrap().is_empty());
        file.add([case("b", 4), case("c", 4)]).unwrap();
        file.add([case("a", 0)]).unwrap();
        let names: Vec<String> = file.read().unwrap().into_keys().collect();
        assert_eq!(names, ["a.nii.gz", "b.nii.gz"]);
        let csv = std::fs::read_to_string(folder.path().join(STATISTICS_TABLE)).unwrap();
        let expected = "case,class,label,voxels,volume_ml,components,mean_0,std_0\n\
                        a,\"liver, left\",1,0,0,1,,\nb,\"liver, left\",1,4,0.5,1,1.5,1.5\n";
        assert_eq!(csv, expected);
        assert!(!folder.path().join(LOCK).exists());
        // a file that is something else is not written over
        std::fs::write(folder.path().join(STATISTICS), "[]").unwrap();
        assert!(file.add([case("a", 1)]).unwrap_err().to_string().contains(STATISTICS));
    }

    #[test]
    fn parts_that_end_together_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..8).map(|n| format!("case_{n}")).collect();
        for name in &names {
            std::fs::write(folder.path().join(format!("{name}.nii.gz")), "").unwrap();
        }
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| StatisticsFile::of(folder.path()).add([case(name, 1)]).unwrap());
            }
        });
        let told = StatisticsFile::of(folder.path()).read().unwrap();
        let cases: Vec<String> = told.into_values().map(|case| case.case).collect();
        assert_eq!(cases, names);
    }
}
