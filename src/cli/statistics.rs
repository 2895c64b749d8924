//! Statistics beside the masks of `u2seg predict`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::base::files::{file_name, folder};
use crate::base::{Result, locked};
use crate::dataset::Labels;
use crate::imaging::{LabelMap, Volume};
use crate::score::{CaseStatistics, StatisticsFile};

/// What is measured of the masks of a call, written once at its end.
pub(super) struct Statistics {
    file: StatisticsFile,
    /// What earlier calls measured.
    earlier: BTreeMap<String, CaseStatistics>,
    new: Mutex<Vec<CaseStatistics>>,
}

impl Statistics {
    /// The files beside a mask.
    pub(super) fn files(mask: &Path) -> [PathBuf; 2] {
        StatisticsFile::of(folder(mask)).files()
    }

    /// Beside a mask; an error where something else lies in the file's place.
    pub(super) fn beside(mask: &Path) -> Result<Self> {
        let file = StatisticsFile::of(folder(mask));
        Ok(Self { earlier: file.read()?, file, new: Mutex::default() })
    }

    /// Whether a mask file was measured.
    pub(super) fn knows(&self, file: &Path) -> bool {
        self.earlier.contains_key(&file_name(file))
    }

    /// Whether what is there of a mask file is of this mask.
    pub(super) fn fits(&self, file: &Path, labels: &Labels, mask: &LabelMap) -> bool {
        self.earlier.get(&file_name(file)).is_some_and(|case| case.fits(labels, mask))
    }

    /// Measures a mask of label values over its image.
    pub(super) fn add(
        &self,
        case: &str,
        file: &Path,
        labels: &Labels,
        image: &Volume,
        mask: &LabelMap,
    ) -> Result<()> {
        let case = CaseStatistics::of(case, &file_name(file), labels, image, mask)?;
        locked(&self.new).push(case);
        Ok(())
    }

    /// Writes what was measured.
    pub(super) fn write(self) -> Result<()> {
        let new = self.new.into_inner().unwrap_or_else(PoisonError::into_inner);
        if new.is_empty() { Ok(()) } else { self.file.add(new) }
    }
}
