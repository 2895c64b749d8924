//! What plans need to know of a case, taken once while its files are read.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::contents::Key;
use crate::base::files::{read_bytes, write_atomically};
use crate::base::{Error, Result};
use crate::dataset::{Case, Dataset, Labels};
use crate::imaging::{IGNORED, LabelMap, Note, Volume, nonzero_box};

/// What a case holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Summary {
    /// Image channels.
    pub channels: usize,
    /// Voxels of the image, D, H, W.
    pub shape: [usize; 3],
    /// Voxels of its non-zero box, D, H, W.
    pub cropped: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Voxels of each value of the label file.
    pub values: BTreeMap<u8, usize>,
    /// What is odd about the image.
    pub notes: Vec<Note>,
    /// Values of the first channel where something is labelled, thinned evenly.
    #[serde(skip)]
    pub foreground: Vec<f32>,
}

/// Foreground intensities taken from a case.
const SAMPLES: usize = 10_000;
/// Of what is kept of a case; another one where it would be taken otherwise.
const VERSION: u32 = 1;
const FOREGROUND: &str = "foreground";
const SUMMARY: &str = "summary";
const CHECK: &str = "crc32c";

/// For each label value whether it is of the foreground.
fn foreground(labels: &Labels) -> Vec<u8> {
    let mut table: Vec<u8> = (0..=u8::MAX).collect();
    labels.encode(&mut table);
    table.into_iter().map(|index| u8::from(index > 0 && index != IGNORED)).collect()
}

impl Summary {
    /// Of a case as [`Dataset::load`] gives it.
    pub(super) fn of(image: &Volume, label: &LabelMap, labels: &Labels) -> Self {
        let table = foreground(labels);
        let mut counts = [0; 256];
        label.as_slice().iter().for_each(|value| counts[usize::from(*value)] += 1);
        let values: BTreeMap<u8, usize> =
            (0..=u8::MAX).zip(counts).filter(|(_, count)| *count > 0).collect();
        let is_inside = |value: u8| table[usize::from(value)] > 0;
        let count: usize = values.iter().filter(|(v, _)| is_inside(**v)).map(|(_, n)| n).sum();
        let inside = label.as_slice().iter().zip(image.as_slice());
        let inside = inside.filter(|(value, _)| is_inside(**value)).map(|(_, v)| *v);
        Self {
            channels: image.channels().len(),
            shape: image.shape(),
            cropped: nonzero_box(image).shape(),
            spacing: image.spacing(),
            values,
            notes: image.notes().to_vec(),
            foreground: inside.step_by(count.div_ceil(SAMPLES).max(1)).collect(),
        }
    }

    /// The key of a case of these contents.
    pub(super) fn key(dataset: &Dataset, contents: &[Key]) -> Key {
        let matching = format!("{:?}", dataset.matching);
        let table = foreground(&dataset.labels);
        let version = VERSION.to_le_bytes();
        let parts = [b"summary".as_slice(), &version, matching.as_bytes(), &table];
        Key::of(parts.into_iter().chain(contents.iter().map(|key| key.as_str().as_bytes())))
    }

    /// Whether [`Dataset::load`] would give the case, with its description as it is now.
    pub(super) fn fits(&self, dataset: &Dataset, case: &Case) -> bool {
        let known = dataset.labels.known();
        let lacks = |value: &u8| {
            let mut classes = dataset.labels.scored().iter();
            classes.any(|c| case.unlabelled.contains(&c.name) && c.values.contains(value))
        };
        let fits = |value: &u8| known.contains(value) && (dataset.labels.regions || !lacks(value));
        self.channels == dataset.channels.len() && self.values.keys().all(fits)
    }

    /// Voxels whose value means nothing.
    pub fn stray(&self, labels: &Labels) -> usize {
        labels.stray.iter().filter_map(|value| self.values.get(value)).sum()
    }

    /// Reads what was kept; none where it is not there or not whole.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let bytes = read_bytes(path, "what is known of a case").ok()?;
        let summary = Self::parse(&bytes);
        if summary.is_none() {
            log::warn!("{}: damaged; the case is read again", path.display());
        }
        summary
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        let metadata = header.metadata().as_ref()?;
        let json = metadata.get(SUMMARY)?;
        let tensors = SafeTensors::deserialize(bytes).ok()?;
        let data = tensors.tensor(FOREGROUND).ok()?.data();
        let check = format!("{:08x}", crc32c::crc32c_append(crc32c::crc32c(json.as_bytes()), data));
        if *metadata.get(CHECK)? != check {
            return None;
        }
        let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Some(Self { foreground: values.collect(), ..serde_json::from_str(json).ok()? })
    }

    /// Keeps it in a file.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let internal = |e: &dyn std::fmt::Display| Error::Internal(e.to_string());
        let json = serde_json::to_string(self).map_err(|e| internal(&e))?;
        let data: Vec<u8> = self.foreground.iter().flat_map(|v| v.to_le_bytes()).collect();
        let check = crc32c::crc32c_append(crc32c::crc32c(json.as_bytes()), &data);
        let metadata = HashMap::from([
            (SUMMARY.to_string(), json),
            (CHECK.to_string(), format!("{check:08x}")),
        ]);
        let tensor = TensorView::new(Dtype::F32, vec![self.foreground.len()], &data);
        let tensors = [(FOREGROUND, tensor.map_err(|e| internal(&e))?)];
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| internal(&e))?;
        write_atomically(path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_survives_its_file_and_damage_is_found() {
        let summary = Summary {
            channels: 2,
            shape: [10, 20, 30],
            cropped: [9, 20, 28],
            spacing: [2.5, 0.1 + 0.2, 1.0 / 3.0],
            values: BTreeMap::from([(0, 5000), (3, 1000)]),
            notes: vec![Note::Replaced(3), Note::Constant { channel: 1, value: 0.1 }],
            foreground: (0..100).map(|i| (i as f32).sin()).collect(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(Summary::read(&path), None);
        summary.write(&path).unwrap();
        assert_eq!(Summary::read(&path).as_ref(), Some(&summary));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(Summary::parse(&bytes).is_none_or(|read| read == summary), "byte {at}");
        }
        assert!((0..whole.len()).all(|end| Summary::parse(&whole[..end]).is_none()));
    }
}
