//! Scores of predicted masks against references, on the references' own voxel grids.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::calibration::Calibration;
use super::class_key::ClassKey;
use super::confidence::{CaseConfidence, Maps, Masks};
use super::doubt::{Doubted, EntropyScores};
use super::metrics::{Comparison, DEFAULT_TOLERANCE_MM, Scores};
use super::pairs::{MaskPair, pair_masks};
use super::summary::{CaseScores, Summary, names};
use crate::base::files::open_file;
use crate::base::{Error, Result};
use crate::dataset::Class;
use crate::domain::DescribedLabels;
use crate::imaging::{
    Known, LabelMap, Match, Reference, read_labels, read_labels_on, read_labels_over, stem,
};

/// Bytes of unpacked masks that are read at a time, unless a single case has more.
const AT_ONCE: u64 = 1 << 27;

/// What the values of masks mean, and how a prediction lies on its reference.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EvaluateOptions {
    /// The description of the labels. Without one every value above 0 that occurs in any case is a class.
    pub labels: Option<DescribedLabels>,
    /// Label values that count as others.
    pub merge: Vec<LabelMerge>,
    /// How the voxels of a prediction are matched with those of its reference, whose grid decides.
    pub matching: Match,
    /// Whether a reference without a prediction is scored against an empty mask; otherwise it is an error.
    pub allow_missing: bool,
    /// A folder with `probabilities/CASE/CLASS` and `uncertainty/CASE/entropy`, as `predict` writes them beside masks: what they
    /// hold is scored too, of the cases that have them. Takes a description of the labels, whose classes are looked for by name.
    pub probabilities: Option<PathBuf>,
}

/// A label value that counts as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelMerge {
    /// The value in the files.
    pub from: u8,
    /// What it counts as.
    pub to: u8,
}

impl EvaluateOptions {
    /// Refuses a value that would count as two others.
    ///
    /// # Errors
    ///
    /// Where two merges of one value differ.
    pub fn check(&self) -> Result<()> {
        for (index, LabelMerge { from, to }) in self.merge.iter().enumerate() {
            let other = self.merge[..index].iter().find(|m| m.from == *from && m.to != *to);
            if let Some(LabelMerge { to: other, .. }) = other {
                let found = format!("{from}={other} and {from}={to}");
                let expected = "one label to count as";
                return Err(Error::setting("merge", found, expected, "Leave one out."));
            }
        }
        Ok(())
    }

    /// What the classes of the description are called, but those that others count as, whose probabilities nobody wrote.
    fn names(&self) -> BTreeMap<ClassKey, String> {
        let described = self.labels.as_ref().filter(|_| self.merge.is_empty());
        described.map(|described| names(&described.labels)).unwrap_or_default()
    }

    /// What nobody labelled in a reference; it is not scored there.
    fn unlabelled(&self, reference: &Path) -> BTreeSet<ClassKey> {
        let Some(described) = &self.labels else { return BTreeSet::new() };
        let lacking = described.unlabelled(reference);
        let classes = described.labels.scored().iter();
        classes.filter(|class| lacking.contains(&class.name)).map(key).collect()
    }

    /// Values that masks may hold: where labels are described, those of the description and the merged ones.
    fn known(&self) -> Known {
        let Some(described) = &self.labels else { return Known::any() };
        let mut values: BTreeSet<u8> = described.labels.known().into_iter().collect();
        values.extend(self.merge.iter().flat_map(|merge| [merge.from, merge.to]));
        let source = described.file.display().to_string();
        Known { values: values.into_iter().collect(), source }
    }

    fn ignore(&self) -> Option<u8> {
        self.labels.as_ref().and_then(|described| described.labels.ignore)
    }

    /// What each value counts as.
    fn table(&self) -> [u8; 256] {
        let mut table = std::array::from_fn(|value| value as u8);
        let stray = self.labels.iter().flat_map(|described| &described.labels.stray);
        stray.for_each(|value| table[usize::from(*value)] = 0);
        // the first of two that contradict each other counts
        for LabelMerge { from, to } in self.merge.iter().rev() {
            table[usize::from(*from)] = *to;
        }
        table
    }

    /// Classes or regions of the description, but those whose values all count as others; and values that others count as.
    fn described(&self) -> Option<BTreeSet<ClassKey>> {
        let labels = &self.labels.as_ref()?.labels;
        let table = self.table();
        let remains = |value: &u8| table.contains(value);
        let scored = labels.scored().iter().filter(|class| class.values.iter().any(remains));
        let mut classes: BTreeSet<ClassKey> = scored.map(key).collect();
        let known = labels.known();
        let new = self.merge.iter().map(|merge| merge.to).filter(|to| !known.contains(to));
        classes.extend(new.map(ClassKey::from));
        Some(classes)
    }

    fn merged(&self, mut labels: LabelMap) -> LabelMap {
        let described = self.labels.as_ref();
        let stray = described.is_some_and(|described| !described.labels.stray.is_empty());
        if stray || !self.merge.is_empty() {
            let table = self.table();
            labels.as_mut_slice().iter_mut().for_each(|label| *label = table[usize::from(*label)]);
        }
        labels
    }
}

/// What is scored of a class or region of a description.
fn key(class: &Class) -> ClassKey {
    ClassKey::new(class.values.iter().copied())
}

/// Scores of one case, of the classes that it has.
struct Scored {
    metrics: BTreeMap<ClassKey, Scores>,
    /// Voxels that count.
    voxels: u64,
    /// What is not scored in it.
    unlabelled: BTreeSet<ClassKey>,
    /// What its probabilities came to, where there are any.
    confidence: CaseConfidence,
}

/// Scores the masks of a folder, or a single mask, against the references of their names. All cases have scores of all
/// classes.
///
/// # Errors
///
/// As those of [`pair_masks`] and [`score_pairs`], whose single errors are logged.
pub fn evaluate(
    predictions: &Path,
    references: &Path,
    options: &EvaluateOptions,
) -> Result<Summary> {
    options.check()?;
    let pairs = pair_masks(predictions, references, options.allow_missing)?;
    score_pairs(&pairs, options, |error| log::error!("{error}"))
}

/// Scores each pair; a missing prediction counts as an empty mask. All cases have scores of all classes.
///
/// # Errors
///
/// Where a file cannot be read or does not fit its partner: `report` gets the error of every such file, and nothing is scored
/// without them.
pub fn score_pairs(
    pairs: &[MaskPair],
    options: &EvaluateOptions,
    mut report: impl FnMut(Error),
) -> Result<Summary> {
    let (described, known, names) = (options.described(), options.known(), options.names());
    let maps = options.probabilities.as_deref().map(|folder| Maps { folder, names: &names });
    let context = Context { options, known, described, maps };
    let one = |pair: &MaskPair| score(pair, &context);
    let mut scored = Vec::new();
    let mut errors = Vec::new();
    let mut broken = 0;
    for batch in batches(pairs, options.probabilities.is_some()) {
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
        errors.into_iter().for_each(report);
        return Err(last);
    }
    errors.into_iter().for_each(&mut report);
    if broken > 0 {
        let folder = pairs[0].prediction.parent().unwrap_or(Path::new(""));
        return Err(Error::file(
            folder,
            format!("{broken} of {} cases that cannot be scored", pairs.len()),
            "pairs of masks that can be read and match",
            "Correct what the errors above name, or move those cases away.",
        ));
    }
    let (scored, confidence): (Vec<Scored>, Vec<CaseConfidence>) =
        scored.into_iter().map(Scored::split).unzip();
    let all: BTreeSet<ClassKey> = match context.described {
        Some(classes) => classes,
        None => scored.iter().flat_map(|case| case.metrics.keys().cloned()).collect(),
    };
    let cases = pairs.iter().zip(scored).map(|(pair, case)| {
        let absent = |class: &ClassKey| (class.clone(), Scores::absent(case.voxels));
        let labelled = all.difference(&case.unlabelled);
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
    let summary = Summary::new(cases.collect()).with_missing(missing);
    let doubted = summary.metric_per_case.iter().zip(&confidence).filter_map(|(scores, told)| {
        let dice = scores.metrics.values().map(|scores| scores.dice).collect();
        let prediction_file = scores.prediction_file.as_str();
        told.doubt.as_ref().map(|doubt| Doubted { prediction_file, dice, doubt })
    });
    let entropy = EntropyScores::of(&doubted.collect::<Vec<_>>());
    let calibration = Calibration::of(confidence.iter().map(|told| &told.bins));
    Ok(summary.with_confidence(calibration, entropy))
}

/// What all cases are scored by.
struct Context<'a> {
    options: &'a EvaluateOptions,
    known: Known,
    described: Option<BTreeSet<ClassKey>>,
    maps: Option<Maps<'a>>,
}

impl Scored {
    fn split(mut self) -> (Self, CaseConfidence) {
        let confidence = std::mem::take(&mut self.confidence);
        (self, confidence)
    }
}

fn score(pair: &MaskPair, context: &Context<'_>) -> std::result::Result<Scored, Vec<Error>> {
    let Context { options, known, described, maps } = context;
    let reference = match pair.missing {
        true => read_labels(&pair.reference, known),
        false => read_labels_over(&pair.reference, known, &pair.prediction),
    };
    let truth = match reference {
        Ok(truth) => options.merged(truth),
        Err(error) => {
            // what else is wrong is told in the same go
            let other = (!pair.missing).then(|| read_labels(&pair.prediction, known).err());
            return Err([error].into_iter().chain(other.flatten()).collect());
        }
    };
    let prediction = if pair.missing {
        LabelMap::from_vec(vec![0; truth.as_slice().len()], truth.grid().clone())
    } else {
        let on = Reference { grid: truth.grid(), path: &pair.reference };
        let prediction = read_labels_on(&pair.prediction, known, &on, options.matching);
        prediction.map(|prediction| options.merged(prediction))
    };
    let prediction = prediction.map_err(|error| vec![error])?;
    let masks = Comparison::of(&truth, &prediction).map_err(|error| vec![error])?;
    let masks = masks.ignoring(options.ignore());
    let unlabelled = options.unlabelled(&pair.reference);
    let confusion = masks.confusion();
    let classes: Vec<ClassKey> = match described {
        Some(classes) => classes.difference(&unlabelled).cloned().collect(),
        None => confusion.values().into_iter().map(ClassKey::from).collect(),
    };
    let scores = masks.all_scores_of(&confusion, &classes, DEFAULT_TOLERANCE_MM);
    let voxels = confusion.voxels();
    let both = Masks {
        truth: &truth,
        prediction: &prediction,
        reference: &pair.reference,
        matching: options.matching,
        ignore: options.ignore(),
    };
    let maps = maps.as_ref().filter(|_| !pair.missing);
    let maps = maps.and_then(|maps| maps.find([stem(&pair.prediction), stem(&pair.reference)]));
    let confidence = maps.map_or_else(
        || Ok(CaseConfidence::default()),
        |maps| maps.measure(&both, &classes).map_err(|error| vec![error]),
    )?;
    let metrics = classes.into_iter().zip(scores).collect();
    Ok(Scored { metrics, voxels, unlabelled, confidence })
}

/// Runs of pairs that are scored at the same time: as many as there are threads, and as memory should hold.
fn batches(pairs: &[MaskPair], maps: bool) -> Vec<&[MaskPair]> {
    let most = rayon::current_num_threads();
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (index, pair) in pairs.iter().enumerate() {
        // a map of floats takes as much as four masks of bytes
        let more = if maps { 6 } else { 2 } * unpacked(&pair.reference);
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
        let mut file = open_file(path, "an image").map_err(std::io::Error::other)?;
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
    use std::path::PathBuf;

    use super::*;
    use crate::dataset::Labels;

    fn options(labels: &str, merge: &[(u8, u8)]) -> EvaluateOptions {
        let labels = Labels::parse(&serde_json::from_str(labels).unwrap(), None).unwrap();
        let labels = Some(DescribedLabels::new(labels, "dataset.json"));
        let merge = merge.iter().map(|(from, to)| LabelMerge { from: *from, to: *to }).collect();
        EvaluateOptions { labels, merge, ..EvaluateOptions::default() }
    }

    #[test]
    fn merged_classes_are_known_and_scored_once() {
        let text = r#"{"background": 0, "a": 1, "b": 2, "ignore": 9}"#;
        let classes = |merge: &[(u8, u8)]| -> Vec<String> {
            let described = options(text, merge).described().unwrap();
            described.iter().map(ClassKey::to_string).collect()
        };
        assert_eq!(classes(&[]), ["1", "2"]);
        assert_eq!(classes(&[(2, 1)]), ["1"]);
        assert_eq!(classes(&[(5, 1), (2, 0)]), ["1"]);
        assert_eq!(classes(&[(2, 7)]), ["1", "7"]);
        assert_eq!(classes(&[(1, 9)]), ["2"]);
        // each counts as the other
        assert_eq!(classes(&[(1, 2), (2, 1)]), ["1", "2"]);
        assert_eq!(options(text, &[(5, 7)]).known().values, [0, 1, 2, 5, 7, 9]);
        assert_eq!(EvaluateOptions::default().known(), Known::any());
        assert!(options(text, &[(1, 2), (1, 2), (3, 0)]).check().is_ok());
        assert!(options(text, &[(1, 2), (1, 0)]).check().is_err());
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
        };
        let mut pairs = vec![pair(&file); 9];
        pairs[0] = pair(Path::new("large"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sizes =
            pool.install(|| batches(&pairs, false).iter().map(|b| b.len()).collect::<Vec<_>>());
        assert_eq!(sizes, [1, 3, 3, 2]);
    }
}
