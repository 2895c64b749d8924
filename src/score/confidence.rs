//! What was written beside a mask of how sure it is, against the reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::calibration::{Bins, MARGIN_MM};
use super::class_key::ClassKey;
use super::doubt::Doubt;
use super::{ENTROPY, PROBABILITIES, UNCERTAINTY};
use crate::base::Result;
use crate::base::files::safe_name;
use crate::imaging::{LabelMap, Match, Reference, VoxelBox, by_stem, read_image_on};

/// The maps of a case.
pub(super) struct CaseMaps {
    /// Probabilities of the classes that have a file.
    probabilities: BTreeMap<ClassKey, PathBuf>,
    entropy: Option<PathBuf>,
}

/// What came of them.
#[derive(Debug, Default)]
pub(super) struct CaseConfidence {
    pub bins: BTreeMap<ClassKey, Bins>,
    pub doubt: Option<Doubt>,
}

/// Where the maps of folders of predictions lie, and what its classes are called.
pub(super) struct Maps<'a> {
    pub folder: &'a Path,
    pub names: &'a BTreeMap<ClassKey, String>,
}

impl Maps<'_> {
    /// The maps of a case that has any; its folder has one of these names.
    pub fn find(&self, names: [Option<String>; 2]) -> Option<CaseMaps> {
        let names = || names.iter().flatten().map(|name| safe_name(name));
        let files = |kind: &str| {
            let mut folders = names().map(|name| self.folder.join(kind).join(name));
            by_stem(&folders.find(|folder| folder.is_dir())?).ok()
        };
        let first = |files: Option<&Vec<PathBuf>>| files.and_then(|files| files.first().cloned());
        let there = files(PROBABILITIES).unwrap_or_default();
        let file = |(class, name): (&ClassKey, &String)| {
            first(there.get(&safe_name(name))).map(|file| (class.clone(), file))
        };
        let probabilities: BTreeMap<_, _> = self.names.iter().filter_map(file).collect();
        let entropy = first(files(UNCERTAINTY).unwrap_or_default().get(ENTROPY));
        let none = probabilities.is_empty() && entropy.is_none();
        (!none).then_some(CaseMaps { probabilities, entropy })
    }
}

/// A case's masks, as they are scored.
pub(super) struct Masks<'a> {
    pub truth: &'a LabelMap,
    pub prediction: &'a LabelMap,
    /// The file of the reference, for messages.
    pub reference: &'a Path,
    pub matching: Match,
    pub ignore: Option<u8>,
}

impl Masks<'_> {
    fn counts(&self, index: usize) -> bool {
        Some(self.truth.as_slice()[index]) != self.ignore
    }

    /// The box about the foreground of both, grown; none where neither has any.
    fn bounds(&self) -> Option<VoxelBox> {
        let (truth, prediction) = (self.truth.as_slice(), self.prediction.as_slice());
        let either =
            |index: usize| self.counts(index) && (truth[index] != 0 || prediction[index] != 0);
        let shape = self.truth.shape();
        let VoxelBox { low, high } = VoxelBox::around(shape, either)?;
        let margin = self.truth.spacing().map(|mm| (MARGIN_MM / mm).ceil() as usize);
        Some(VoxelBox {
            low: [0, 1, 2].map(|axis| low[axis].saturating_sub(margin[axis])),
            high: [0, 1, 2].map(|axis| (high[axis] + margin[axis]).min(shape[axis])),
        })
    }

    /// A map on the reference's grid.
    fn read(&self, file: &Path) -> Result<Vec<f32>> {
        let on = Reference { grid: self.truth.grid(), path: self.reference };
        let map = read_image_on(file, &on, self.matching)?;
        Ok(map.into_data().into_raw_vec_and_offset().0)
    }
}

impl CaseMaps {
    /// Holds the maps to the reference, of these classes; a map at a time is in memory.
    pub fn measure(&self, masks: &Masks<'_>, classes: &[ClassKey]) -> Result<CaseConfidence> {
        let Some(bounds) = masks.bounds() else { return Ok(CaseConfidence::default()) };
        let shape = masks.truth.shape();
        let voxels = || bounds.rows(shape).flatten().filter(|index| masks.counts(*index));
        let (truth, prediction) = (masks.truth.as_slice(), masks.prediction.as_slice());
        let mut told = CaseConfidence::default();
        for class in classes {
            let Some(file) = self.probabilities.get(class) else { continue };
            let (map, table) = (masks.read(file)?, class.table());
            let mut bins = Bins::default();
            voxels().for_each(|at| bins.add(map[at], table[usize::from(truth[at])]));
            told.bins.insert(class.clone(), bins);
        }
        if let Some(file) = &self.entropy {
            let map = masks.read(file)?;
            let tables = classes.iter().map(|class| (class, class.table()));
            let tables: Vec<(&ClassKey, [bool; 256])> = tables.collect();
            let mut doubt = Doubt::default();
            for at in voxels() {
                let pair = [truth[at], prediction[at]].map(usize::from);
                let level = doubt.add(map[at], pair[1] != 0);
                for (class, table) in &tables {
                    doubt.add_class(class, level, pair.map(|value| table[value]));
                }
            }
            told.doubt = Some(doubt);
        }
        Ok(told)
    }
}
