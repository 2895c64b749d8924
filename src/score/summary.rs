//! `summary.json` of a validation: nnU-Net's keys, with surface distances beside them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::class_key::ClassKey;
use super::doubt::EntropyScores;
use super::metrics::Scores;
use super::words::{listed, name, number};
use crate::base::files::{read_json, write_atomically};
use crate::base::{Error, Result};
use crate::dataset::Labels;

/// Means over cases or classes; the counts are fractions then.
pub type MeanScores = Scores<f64>;

/// Scores of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseScores {
    /// By class or region; JSON writes the key as text. What nobody labelled in this case is absent.
    pub metrics: BTreeMap<ClassKey, Scores>,
    /// The predicted label map.
    pub prediction_file: String,
    /// The label map it was compared with.
    pub reference_file: String,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Summary {
    /// Mean over what is scored but background. As in nnU-Net, Dice and IoU are NaN where a class is in no case; distances are
    /// means over the classes that have one.
    pub foreground_mean: MeanScores,
    /// Mean over the cases by class; cases with NaN are left out of that value's mean.
    pub mean: BTreeMap<ClassKey, MeanScores>,
    /// Every case.
    pub metric_per_case: Vec<CaseScores>,
    /// Cases that nothing was predicted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
    /// How well probabilities are calibrated, where cases have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// How entropies go with errors, where cases have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty: Option<EntropyScores>,
}

/// Cases without a prediction, and what they change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Missing {
    /// What stands for the predictions.
    pub count_as: String,
    /// Predictions that are not there, by the names of their references.
    pub files: Vec<String>,
    /// The foreground mean of the other cases.
    pub foreground_mean_without: MeanScores,
}

/// Names of what a description has scored, for [`Summary::print_table`].
pub fn names(labels: &Labels) -> BTreeMap<ClassKey, String> {
    let name = |class: &crate::dataset::Class| {
        (ClassKey::new(class.values.iter().copied()), class.name.clone())
    };
    labels.scored().iter().map(name).collect()
}

/// All classes but background.
fn foreground(
    mean: &BTreeMap<ClassKey, MeanScores>,
) -> impl Iterator<Item = (&ClassKey, &MeanScores)> {
    mean.iter().filter(|(class, _)| class.values() != [0])
}

/// Whether some case has the class, in its reference or its prediction.
fn occurs(mean: &MeanScores) -> bool {
    mean.n_ref + mean.n_pred > 0.0
}

/// Mean of the values; NaN where there are none.
fn mean_of(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}

/// Mean of the values that are numbers; NaN where none is.
fn nan_mean(values: impl Iterator<Item = f64>) -> f64 {
    mean_of(values.filter(|value| !value.is_nan()))
}

/// Field-wise mean that skips NaN.
fn mean_scores(all: &[MeanScores]) -> MeanScores {
    let mean = |field: fn(&MeanScores) -> f64| nan_mean(all.iter().map(field));
    let count = |field: fn(&MeanScores) -> f64| if all.is_empty() { 0.0 } else { mean(field) };
    Scores {
        dice: mean(|s| s.dice),
        iou: mean(|s| s.iou),
        fn_: count(|s| s.fn_),
        fp: count(|s| s.fp),
        tn: count(|s| s.tn),
        tp: count(|s| s.tp),
        n_pred: count(|s| s.n_pred),
        n_ref: count(|s| s.n_ref),
        hd95: mean(|s| s.hd95),
        assd: mean(|s| s.assd),
        nsd: mean(|s| s.nsd),
    }
}

impl From<Scores> for MeanScores {
    fn from(s: Scores) -> Self {
        Self {
            dice: s.dice,
            iou: s.iou,
            fn_: s.fn_ as f64,
            fp: s.fp as f64,
            tn: s.tn as f64,
            tp: s.tp as f64,
            n_pred: s.n_pred as f64,
            n_ref: s.n_ref as f64,
            hd95: s.hd95,
            assd: s.assd,
            nsd: s.nsd,
        }
    }
}

impl Summary {
    /// Computes the means of the cases.
    pub fn new(metric_per_case: Vec<CaseScores>) -> Self {
        let mut by_class: BTreeMap<ClassKey, Vec<MeanScores>> = BTreeMap::new();
        for case in &metric_per_case {
            for (class, scores) in &case.metrics {
                by_class.entry(class.clone()).or_default().push((*scores).into());
            }
        }
        let mean: BTreeMap<ClassKey, MeanScores> =
            by_class.into_iter().map(|(class, all)| (class, mean_scores(&all))).collect();
        let foreground: Vec<MeanScores> = foreground(&mean).map(|(_, mean)| *mean).collect();
        // as nnU-Net, which skips NaN among cases but not among classes
        let plain = |field: fn(&MeanScores) -> f64| mean_of(foreground.iter().map(field));
        let foreground_mean = MeanScores {
            dice: plain(|s| s.dice),
            iou: plain(|s| s.iou),
            ..mean_scores(&foreground)
        };
        Self {
            foreground_mean,
            mean,
            metric_per_case,
            missing: None,
            calibration: None,
            uncertainty: None,
        }
    }

    /// Counts these of the cases, given by their predictions, as missing.
    pub fn with_missing(self, files: Vec<String>) -> Self {
        if files.is_empty() {
            return self;
        }
        let foreground_mean_without = self.without(&files).foreground_mean;
        let count_as = "empty masks".into();
        Self { missing: Some(Missing { count_as, files, foreground_mean_without }), ..self }
    }

    /// The same with what became of probabilities and entropies.
    pub(super) fn with_confidence(
        self,
        calibration: Option<Calibration>,
        uncertainty: Option<EntropyScores>,
    ) -> Self {
        Self { calibration, uncertainty, ..self }
    }

    /// The summary of the cases but those of these predictions.
    fn without(&self, files: &[String]) -> Self {
        let cases = self.metric_per_case.iter();
        let others = cases.filter(|case| !files.contains(&case.prediction_file));
        Self::new(others.cloned().collect())
    }

    /// Foreground mean over the classes that some case has, in its reference or its prediction.
    pub fn foreground_mean_of_occurring(&self) -> MeanScores {
        let occurring = foreground(&self.mean).filter(|(_, mean)| occurs(mean));
        mean_scores(&occurring.map(|(_, mean)| *mean).collect::<Vec<_>>())
    }

    /// Writes the summary as indented JSON.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Internal(format!("summary to JSON: {error}")))?;
        text.push('\n');
        write_atomically(path, text.as_bytes())
    }

    /// Reads a file that [`Summary::write`] wrote.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        read_json(
            path,
            "a summary.json with metric_per_case, mean and foreground_mean",
            "Write it anew with `u2seg evaluate`.",
        )
    }

    /// A table with a row for each class that some case has, and the foreground mean over these; then, in sentences, what the
    /// numbers leave out. A class without a name in `names` is called by its values.
    ///
    /// Dice comes with its smallest and largest case; distances are in millimetres.
    pub fn print_table(&self, names: &BTreeMap<ClassKey, String>) -> String {
        let mut rows = vec![
            ["class", "cases", "Dice", "min", "max", "IoU", "HD95 mm", "ASSD mm", "NSD"]
                .map(String::from),
        ];
        for (class, mean) in self.mean.iter().filter(|(_, mean)| occurs(mean)) {
            let dice: Vec<f64> = self
                .metric_per_case
                .iter()
                .filter_map(|case| case.metrics.get(class))
                .map(|scores| scores.dice)
                .filter(|dice| !dice.is_nan())
                .collect();
            let extreme = |pick: fn(f64, f64) -> f64| dice.iter().copied().fold(f64::NAN, pick);
            let extremes = [extreme(f64::min), extreme(f64::max)];
            rows.push(row(name(class, names), Some(dice.len()), extremes, mean));
        }
        let foreground = self.foreground_mean_of_occurring();
        rows.push(row("foreground".into(), None, [f64::NAN; 2], &foreground));
        align(&rows) + &self.notes(names)
    }

    /// What a reader of the table must know beside it, a line each.
    fn notes(&self, names: &BTreeMap<ClassKey, String>) -> String {
        let mut notes = String::new();
        let absent = foreground(&self.mean).filter(|(_, mean)| !occurs(mean));
        let absent: Vec<String> = absent.map(|(class, _)| name(class, names)).collect();
        if !absent.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                notes,
                "In no case: {}. The foreground row leaves that out; foreground_mean of the JSON has null for Dice and IoU \
                 then, as nnU-Net's has NaN.",
                listed(&absent),
            );
        }
        if let Some(missing) = &self.missing {
            let dice = self.without(&missing.files).foreground_mean_of_occurring().dice;
            let _ = writeln!(
                notes,
                "{} of {} predictions are missing and count as {}; without them the foreground Dice is {}.",
                missing.files.len(),
                self.metric_per_case.len(),
                missing.count_as,
                number(dice, 3),
            );
        }
        notes.extend(self.calibration.iter().map(|calibration| calibration.told(names)));
        notes.extend(self.uncertainty.iter().map(EntropyScores::told));
        notes
    }
}

/// One row of the table; an absent count leaves the columns of single cases empty.
fn row(name: String, cases: Option<usize>, extremes: [f64; 2], mean: &MeanScores) -> [String; 9] {
    let [low, high] = extremes.map(|value| match cases {
        Some(_) => number(value, 3),
        None => String::new(),
    });
    [
        name,
        cases.map_or_else(String::new, |count| count.to_string()),
        number(mean.dice, 3),
        low,
        high,
        number(mean.iou, 3),
        number(mean.hd95, 2),
        number(mean.assd, 2),
        number(mean.nsd, 3),
    ]
}

/// Pads columns to equal widths: the first to the left, numbers to the right.
fn align(rows: &[[String; 9]]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..9).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            // Writing to a String cannot fail.
            let _ = write!(line, "  {cell:>width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView3;

    use super::super::metrics::Comparison;
    use super::*;

    fn case(truth: &[u8], prediction: &[u8]) -> CaseScores {
        let [truth, prediction] =
            [truth, prediction].map(|row| ArrayView3::from_shape([1, 1, row.len()], row).unwrap());
        let pair = Comparison::new(truth, prediction, [1.0; 3]).unwrap();
        CaseScores {
            metrics: [1, 2]
                .map(ClassKey::from)
                .map(|class| (class.clone(), pair.scores(&class, 1.0)))
                .into(),
            prediction_file: "p.nii.gz".into(),
            reference_file: "r.nii.gz".into(),
        }
    }

    fn summary() -> Summary {
        Summary::new(vec![
            case(&[1, 1, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 0]),
            case(&[1, 1, 0, 0, 2, 2], &[0, 1, 1, 0, 0, 2]),
        ])
    }

    #[test]
    fn means_skip_nan() {
        let summary = summary();
        assert!((summary.mean[&1.into()].dice - 0.75).abs() < 1e-12);
        assert!(
            (summary.mean[&2.into()].dice - 2.0 / 3.0).abs() < 1e-12,
            "only the second case has class 2"
        );
        assert!((summary.foreground_mean.dice - (0.75 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(summary.mean[&1.into()].tp, 1.5);
        assert_eq!(summary.mean[&2.into()].n_ref, 1.0);
    }

    #[test]
    fn the_file_has_the_usual_keys_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        summary().write(&path).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let first = &json["metric_per_case"][0];
        assert!(first["metrics"]["2"]["Dice"].is_null());
        assert_eq!(first["metrics"]["1"]["TP"], 2);
        assert_eq!(first["prediction_file"], "p.nii.gz");
        for key in ["Dice", "IoU", "FN", "FP", "TN", "TP", "n_pred", "n_ref", "HD95", "ASSD", "NSD"]
        {
            assert!(json["mean"]["1"].get(key).is_some(), "{key}");
            assert!(json["foreground_mean"].get(key).is_some(), "{key}");
        }
        let back = Summary::read(&path).unwrap();
        assert_eq!(back.mean, summary().mean);
        std::fs::write(&path, "{}").unwrap();
        assert!(Summary::read(&path).unwrap_err().to_string().contains("metric_per_case"));
    }

    #[test]
    fn the_table_has_a_row_a_class() {
        let names = names(&Labels::plain(["background", "anterior"]));
        let table = summary().print_table(&names);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("anterior") && lines[1].contains("0.750  0.500  1.000"));
        assert!(lines[2].starts_with("class 2") && lines[3].starts_with("foreground"));
        assert!(!Summary::new(Vec::new()).print_table(&names).is_empty());
    }

    #[test]
    fn a_class_in_no_case_is_told() {
        let mut cases = summary().metric_per_case;
        let nothing = ndarray::Array3::zeros([1, 1, 6]);
        let empty = Comparison::new(nothing.view(), nothing.view(), [1.0; 3]).unwrap();
        for case in &mut cases {
            case.metrics.insert(ClassKey::new([7, 8]), empty.scores(&ClassKey::new([7, 8]), 1.0));
        }
        let summary = Summary::new(cases);
        assert!(summary.foreground_mean.dice.is_nan() && summary.foreground_mean.iou.is_nan());
        assert!(!summary.foreground_mean.hd95.is_nan());
        assert!((summary.foreground_mean.tp - 2.0 / 3.0).abs() < 1e-12);
        let names = names(&Labels::plain(["background", "anterior"]));
        let table = summary.print_table(&names);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[3].starts_with("foreground") && lines[3].contains("0.708"), "{table}");
        assert!(lines[4].starts_with("In no case: class (7, 8)."), "{table}");
    }

    #[test]
    fn missing_predictions_are_told_with_the_mean_of_the_others() {
        let mut cases = summary().metric_per_case;
        cases[1].prediction_file = "q.nii.gz".into();
        let all = Summary::new(cases).with_missing(vec!["q.nii.gz".into()]);
        let missing = all.missing.as_ref().unwrap();
        assert!(missing.foreground_mean_without.dice.is_nan(), "class 2 is in no other case");
        assert_eq!(missing.foreground_mean_without.tp, 1.0);
        let table = all.print_table(&BTreeMap::new());
        let told = "1 of 2 predictions are missing and count as empty masks; without them the foreground Dice is 1.000.";
        assert_eq!(table.lines().last(), Some(told));
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(json["missing"]["files"][0], "q.nii.gz");
        assert!(
            serde_json::to_value(summary().with_missing(vec![])).unwrap().get("missing").is_none()
        );
    }

    #[test]
    fn names_beyond_ten_are_counted() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(listed(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
        assert_eq!(listed(&names[..2]), "0, 1");
    }
}
