//! The values of a label file: which ones are known, and what is told of the others.

use std::collections::BTreeMap;
use std::path::Path;

use super::voxels::Convert;
use crate::base::Error;

/// The label values that a file may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// In any order.
    pub values: Vec<u8>,
    /// Where that is said, such as `dataset.json`, for messages.
    pub source: String,
}

impl Known {
    /// All that a label can be: 0 to 255.
    pub fn any() -> Self {
        Self { values: (0..=255).collect(), source: String::new() }
    }

    /// The values, runs of three and more shortened: `0 to 3, 254`.
    fn list(&self) -> String {
        let mut values = self.values.clone();
        values.sort_unstable();
        values.dedup();
        let runs = values.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [first, .., last] if run.len() > 3 => format!("{first} to {last}"),
            run => run.iter().map(u8::to_string).collect::<Vec<_>>().join(", "),
        });
        runs.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn error(&self, path: &Path, unknown: &Unknown) -> Error {
        let texts = unknown.texts();
        let mut counted: Vec<_> = texts.iter().collect();
        // names order 10 before 9
        let number = |text: &str| text.parse().unwrap_or(f64::NAN);
        counted.sort_by(|a, b| number(a.0).total_cmp(&number(b.0)));
        let voxels = |count: usize| if count == 1 { "voxel" } else { "voxels" };
        let some = counted.iter().take(5).map(|(v, n)| format!("{v} ({n} {})", voxels(**n)));
        let mut found = format!("label values {}", some.collect::<Vec<_>>().join(", "));
        if counted.len() > 5 {
            let least = if unknown.uncounted { "over " } else { "" };
            found += &format!(" and {least}{} more", counted.len() - 5);
        }
        let (list, source) = (self.list(), &self.source);
        let expected = match source.as_str() {
            "" => format!("whole numbers, {list}"),
            _ => format!("the values {list} of {source}"),
        };
        let remedy = if texts.keys().any(|value| number(value).fract() != 0.0) {
            "Save the labels as integers; resample label maps to the nearest voxel.".into()
        } else if texts.keys().any(|value| !(0.0..=255.0).contains(&number(value))) {
            "Renumber the labels from 0 to 255.".into()
        } else if source.is_empty() {
            "Correct the labels.".into()
        } else {
            format!("Correct the labels, or list their values in {source}.")
        };
        Error::file(path, found, expected, remedy)
    }
}

/// Turns stored values into labels.
pub(super) struct LabelValues {
    allowed: [bool; 256],
}

impl LabelValues {
    pub(super) fn new(known: &Known) -> Self {
        let mut allowed = [false; 256];
        known.values.iter().for_each(|value| allowed[usize::from(*value)] = true);
        Self { allowed }
    }
}

/// Distance from a whole number up to which a value means it.
const WHOLE: f64 = 1e-3;

impl Convert for LabelValues {
    type Kept = u8;
    type Told = Unknown;

    fn convert(&self, value: f64, told: &mut Unknown) -> u8 {
        if value > -0.5 && value < 255.5 {
            let label = (value + 0.5) as u8;
            if (value - f64::from(label)).abs() <= WHOLE && self.allowed[usize::from(label)] {
                return label;
            }
        }
        told.add(value);
        0
    }

    fn join(&self, mut told: Unknown, more: Unknown) -> Unknown {
        told.uncounted |= more.uncounted;
        more.voxels.into_iter().for_each(|(key, count)| told.count(key, count));
        told
    }
}

/// Voxels by the value that they should not have.
#[derive(Default)]
pub(super) struct Unknown {
    /// By keys in the order of the values.
    voxels: BTreeMap<u64, usize>,
    /// Whether there are larger values, too.
    uncounted: bool,
}

/// Values that are counted, the smallest: an image in the place of labels may have as many as it has voxels.
const COUNTED: usize = 1 << 12;
const SIGN: u64 = 1 << 63;

impl Unknown {
    pub(super) fn is_empty(&self) -> bool {
        self.voxels.is_empty()
    }

    fn add(&mut self, value: f64) {
        let label = value.round();
        let bits = if (value - label).abs() <= WHOLE { label } else { value }.to_bits();
        // negative values have the larger bits the smaller they are
        self.count(if bits & SIGN == 0 { bits | SIGN } else { !bits }, 1);
    }

    fn count(&mut self, key: u64, count: usize) {
        let full = self.voxels.len() >= COUNTED;
        if full && self.voxels.last_key_value().is_some_and(|(last, _)| *last < key) {
            self.uncounted = true;
            return;
        }
        *self.voxels.entry(key).or_default() += count;
        if self.voxels.len() > COUNTED {
            self.voxels.pop_last();
            self.uncounted = true;
        }
    }

    /// Voxels by the values as a person writes them.
    fn texts(&self) -> BTreeMap<String, usize> {
        let mut texts = BTreeMap::new();
        for (key, count) in &self.voxels {
            let bits = if key & SIGN == 0 { !key } else { key & !SIGN };
            *texts.entry(written(f64::from_bits(bits))).or_default() += count;
        }
        texts
    }
}

/// A label value as a person writes it.
fn written(value: f64) -> String {
    if value.is_finite() && value != 0.0 && !(1e-4..1e15).contains(&value.abs()) {
        let short = value as f32;
        return if short.is_normal() { format!("{short:e}") } else { format!("{value:e}") };
    }
    // voxels of float32 have digits enough at this length
    let rounded = format!("{value:.4}");
    if rounded.contains('.') {
        return rounded.trim_end_matches('0').trim_end_matches('.').to_string();
    }
    rounded
}
