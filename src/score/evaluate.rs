//! Scores of predicted masks against references, on the references' own voxel grids.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::class_key::ClassKey;
use super::metrics::{DEFAULT_TOLERANCE_MM, Pair, Scores};
use super::pairs::MaskPair;
use super::summary::{CaseScores, Summary};
use crate::dataset::Labels;
use crate::imaging::{Known, LabelVolume, Match, Reference, read_labels, read_labels_on};
use crate::{Error, Result};

/// Bytes of unpacked masks that are read at a time, unless a single case has more.
const AT_ONCE: u64 = 1 << 27;

/// What the values of masks mean, and how a prediction lies on its reference.
#[derive(Debug, Clone, Default)]
pub struct Scoring {
    /// The description of the labels, and its file. Without one every value above 0 that occurs in any case is a class.
    pub labels: Option<(Labels, PathBuf)>,
    /// Label values that count as others: from, to.
    pub merge: Vec<(u8, u8)>,
    pub matching: Match,
}

impl Scoring {
    /// Values that masks may hold: where labels are described, those of the description and the merged ones.
    fn known(&self) -> Known {
        let Some((labels, file)) = &self.labels else { return Known::any() };
        let mut values: BTreeSet<u8> = labels.known().into_iter().collect();
        values.extend(self.merge.iter().flat_map(|(from, to)| [from, to]));
        Known { values: values.into_iter().collect(), source: file.display().to_string() }
    }

    fn ignore(&self) -> Option<u8> {
        self.labels.as_ref().and_then(|(labels, _)| labels.ignore)
    }

    /// What each value counts as.
    fn table(&self) -> [u8; 256] {
        let mut table = std::array::from_fn(|value| value as u8);
        let stray = self.labels.iter().flat_map(|(labels, _)| &labels.stray);
        stray.for_each(|value| table[usize::from(*value)] = 0);
        // the first of two that contradict each other counts
        for (from, to) in self.merge.iter().rev() {
            table[usize::from(*from)] = *to;
        }
        table
    }

    /// Classes or regions of the description, but those whose values all count as others; and values that others count as.
    fn described(&self) -> Option<BTreeSet<ClassKey>> {
        let (labels, _) = self.labels.as_ref()?;
        let table = self.table();
        let remains = |value: &u8| table.contains(value);
        let scored = labels.scored().iter().filter(|class| class.values.iter().any(remains));
        let mut classes: BTreeSet<ClassKey> =
            scored.map(|class| ClassKey::new(class.values.iter().copied())).collect();
        let known = labels.known();
        let new = self.merge.iter().map(|(_, to)| *to).filter(|to| !known.contains(to));
        classes.extend(new.map(ClassKey::from));
        Some(classes)
    }

    fn merged(&self, mut labels: LabelVolume) -> LabelVolume {
        let stray = self.labels.as_ref().is_some_and(|(labels, _)| !labels.stray.is_empty());
        if stray || !self.merge.is_empty() {
            let table = self.table();
            labels.data.iter_mut().for_each(|label| *label = table[usize::from(*label)]);
        }
        labels
    }
}

/// Scores of one case, of the classes that it has.
struct Scored {
    metrics: BTreeMap<ClassKey, Scores>,
    /// Voxels that count.
    voxels: u64,
}

/// Scores each pair; a missing prediction counts as an empty mask. All cases have scores of all classes.
///
/// # Errors
///
/// Where a file cannot be read or does not fit its partner: `report` gets the error of every such file, and nothing is scored
/// without them.
pub fn evaluate(
    pairs: &[MaskPair],
    scoring: &Scoring,
    mut report: impl FnMut(&Error),
) -> Result<Summary> {
    let (described, known) = (scoring.described(), scoring.known());
    let one = |pair: &MaskPair| score(pair, scoring, &known, described.as_ref());
    let mut scored = Vec::new();
    let mut errors = Vec::new();
    let mut broken = 0;
    for batch in batches(pairs) {
        for result in batch.par_iter().map(one).collect::<Vec<_>>() {
            match result {
                Ok(case) => scored.push(case),
                Err(found) => {
                    broken += 1;
                    errors.extend(found);
                }
            }
        }
    }
    if pairs.len() == 1
        && let Some(last) = errors.pop()
    {
        errors.iter().for_each(&mut report);
        return Err(last);
    }
    errors.iter().for_each(&mut report);
    if broken > 0 {
        let folder = pairs[0].prediction.parent().unwrap_or(Path::new(""));
        return Err(Error::file(
            folder,
            format!("{broken} of {} cases that cannot be scored", pairs.len()),
            "pairs of masks that can be read and match",
            "Correct what the errors above name, or move those cases away.",
        ));
    }
    let all: BTreeSet<ClassKey> = match described {
        Some(classes) => classes,
        None => scored.iter().flat_map(|case| case.metrics.keys().cloned()).collect(),
    };
    let cases = pairs.iter().zip(scored).map(|(pair, case)| {
        let absent = |class: &ClassKey| (class.clone(), Scores::absent(case.voxels));
        let labelled = all.difference(&pair.unlabelled);
        let mut metrics: BTreeMap<ClassKey, Scores> = labelled.map(absent).collect();
        metrics.extend(case.metrics);
        CaseScores {
            metrics,
            prediction_file: pair.prediction.display().to_string(),
            reference_file: pair.reference.display().to_string(),
        }
    });
    let missing = pairs.iter().filter(|pair| pair.missing);
    let missing = missing.map(|pair| pair.prediction.display().to_string()).collect();
    Ok(Summary::new(cases.collect()).with_missing(missing))
}

fn score(
    pair: &MaskPair,
    scoring: &Scoring,
    known: &Known,
    described: Option<&BTreeSet<ClassKey>>,
) -> std::result::Result<Scored, Vec<Error>> {
    let reference = read_labels(&pair.reference, known);
    let truth = match reference {
        Ok(truth) => scoring.merged(truth),
        Err(error) => {
            // what else is wrong is told in the same go
            let other = (!pair.missing).then(|| read_labels(&pair.prediction, known).err());
            return Err([error].into_iter().chain(other.flatten()).collect());
        }
    };
    let prediction = if pair.missing {
        vec![0; truth.data.len()]
    } else {
        let on = Reference { grid: &truth.grid, path: &pair.reference };
        let prediction = read_labels_on(&pair.prediction, known, &on, scoring.matching);
        scoring.merged(prediction.map_err(|error| vec![error])?).data
    };
    let masks = Pair::new(&truth.data, &prediction, truth.shape, truth.spacing)
        .map_err(|error| vec![error])?
        .ignoring(scoring.ignore());
    let confusion = masks.confusion();
    let classes: Vec<ClassKey> = match described {
        Some(classes) => classes.difference(&pair.unlabelled).cloned().collect(),
        None => confusion.values().into_iter().map(ClassKey::from).collect(),
    };
    let scores = masks.all_scores_of(&confusion, &classes, DEFAULT_TOLERANCE_MM);
    Ok(Scored { metrics: classes.into_iter().zip(scores).collect(), voxels: confusion.voxels() })
}

/// Runs of pairs that are scored at the same time: as many as there are threads, and as memory should hold.
fn batches(pairs: &[MaskPair]) -> Vec<&[MaskPair]> {
    let most = rayon::current_num_threads();
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (index, pair) in pairs.iter().enumerate() {
        let more = 2 * unpacked(&pair.reference);
        if index > start && (index - start >= most || bytes + more > AT_ONCE) {
            batches.push(&pairs[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += more;
    }
    batches.push(&pairs[start..]);
    batches
}

/// About as many bytes as a file unpacks to: gzip notes them at its end. What cannot be told counts as much.
fn unpacked(path: &Path) -> u64 {
    let told = || -> std::io::Result<u64> {
        let mut file = std::fs::File::open(path)?;
        let mut start = [0; 2];
        file.read_exact(&mut start)?;
        if start != [0x1f, 0x8b] {
            return Ok(file.metadata()?.len());
        }
        let mut end = [0; 4];
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut end)?;
        Ok(u32::from_le_bytes(end).into())
    };
    told().unwrap_or(AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scoring(labels: &str, merge: &[(u8, u8)]) -> Scoring {
        let labels = Labels::parse(&serde_json::from_str(labels).unwrap(), None).unwrap();
        let labels = Some((labels, "dataset.json".into()));
        Scoring { labels, merge: merge.to_vec(), ..Scoring::default() }
    }

    #[test]
    fn merged_classes_are_known_and_scored_once() {
        let text = r#"{"background": 0, "a": 1, "b": 2, "ignore": 9}"#;
        let classes = |merge: &[(u8, u8)]| -> Vec<String> {
            let described = scoring(text, merge).described().unwrap();
            described.iter().map(ClassKey::to_string).collect()
        };
        assert_eq!(classes(&[]), ["1", "2"]);
        assert_eq!(classes(&[(2, 1)]), ["1"]);
        assert_eq!(classes(&[(5, 1), (2, 0)]), ["1"]);
        assert_eq!(classes(&[(2, 7)]), ["1", "7"]);
        assert_eq!(classes(&[(1, 9)]), ["2"]);
        // each counts as the other
        assert_eq!(classes(&[(1, 2), (2, 1)]), ["1", "2"]);
        assert_eq!(scoring(text, &[(5, 7)]).known().values, [0, 1, 2, 5, 7, 9]);
        assert_eq!(Scoring::default().known(), Known::any());
    }

    #[test]
    fn batches_hold_what_memory_should() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.nii");
        std::fs::write(&file, b"0123456789").unwrap();
        assert_eq!(unpacked(&file), 10);
        assert_eq!(unpacked(&folder.path().join("none")), AT_ONCE);
        let pair = |reference: &Path| MaskPair {
            reference: reference.to_path_buf(),
            prediction: PathBuf::new(),
            missing: false,
            unlabelled: BTreeSet::new(),
        };
        let mut pairs = vec![pair(&file); 9];
        pairs[0] = pair(Path::new("large"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sizes = pool.install(|| batches(&pairs).iter().map(|b| b.len()).collect::<Vec<_>>());
        assert_eq!(sizes, [1, 3, 3, 2]);
    }
}
