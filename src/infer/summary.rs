//! `summary.json` of a validation: nnU-Net's keys, with surface distances beside them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::metrics::Scores;
use crate::error::{Error, Result};
use crate::files::write_atomically;

/// Means over cases or classes; the counts are fractions then.
pub type MeanScores = Scores<f64>;

/// Scores of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseScores {
    /// By class; JSON writes the class as text.
    pub metrics: BTreeMap<u8, Scores>,
    /// The predicted label map.
    pub prediction_file: String,
    /// The label map it was compared with.
    pub reference_file: String,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean over the classes but 0; a class that is NaN throughout is left out.
    pub foreground_mean: MeanScores,
    /// Mean over the cases by class; cases with NaN are left out of that value's mean.
    pub mean: BTreeMap<u8, MeanScores>,
    /// Every case.
    pub metric_per_case: Vec<CaseScores>,
}

/// Mean of the values that are numbers; NaN where none is.
fn nan_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values
        .filter(|value| !value.is_nan())
        .fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}

/// Field-wise mean that skips NaN.
fn mean_of(all: &[MeanScores]) -> MeanScores {
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
        let mut by_class: BTreeMap<u8, Vec<MeanScores>> = BTreeMap::new();
        for case in &metric_per_case {
            for (class, scores) in &case.metrics {
                by_class.entry(*class).or_default().push((*scores).into());
            }
        }
        let mean: BTreeMap<u8, MeanScores> =
            by_class.iter().map(|(class, all)| (*class, mean_of(all))).collect();
        let foreground: Vec<MeanScores> =
            mean.iter().filter(|(class, _)| **class != 0).map(|(_, scores)| *scores).collect();
        Self { foreground_mean: mean_of(&foreground), mean, metric_per_case }
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
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        serde_json::from_str(&text).map_err(|error| {
            Error::file(
                path,
                error.to_string(),
                "a summary.json with metric_per_case, mean and foreground_mean",
                "Write it anew with `u2seg evaluate`.",
            )
        })
    }

    /// A table with a row a class and the foreground mean; `names[class]` names a class where it is there.
    ///
    /// Dice comes with its smallest and largest case; distances are in millimetres.
    pub fn print_table(&self, names: &[String]) -> String {
        let mut rows = vec![
            ["class", "cases", "Dice", "min", "max", "IoU", "HD95 mm", "ASSD mm", "NSD"]
                .map(String::from),
        ];
        for (class, mean) in &self.mean {
            let name = names.get(usize::from(*class)).filter(|name| !name.is_empty());
            let name = name.map_or_else(|| format!("class {class}"), Clone::clone);
            let dice: Vec<f64> = self
                .metric_per_case
                .iter()
                .filter_map(|case| case.metrics.get(class))
                .map(|scores| scores.dice)
                .filter(|dice| !dice.is_nan())
                .collect();
            let extreme = |pick: fn(f64, f64) -> f64| dice.iter().copied().fold(f64::NAN, pick);
            rows.push(row(name, Some(dice.len()), [extreme(f64::min), extreme(f64::max)], mean));
        }
        rows.push(row("foreground".into(), None, [f64::NAN; 2], &self.foreground_mean));
        align(&rows)
    }
}

/// One row of the table; an absent count leaves the columns of single cases empty.
fn row(name: String, cases: Option<usize>, extremes: [f64; 2], mean: &MeanScores) -> [String; 9] {
    let number = |value: f64, digits: usize| {
        if value.is_nan() { "-".into() } else { format!("{value:.digits$}") }
    };
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
    use super::super::metrics::Pair;
    use super::*;

    fn case(truth: &[u8], prediction: &[u8]) -> CaseScores {
        let pair = Pair::new(truth, prediction, [1, 1, truth.len()], [1.0; 3]).unwrap();
        CaseScores {
            metrics: [1, 2].into_iter().map(|class| (class, pair.scores(class, 1.0))).collect(),
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
        assert!((summary.mean[&1].dice - 0.75).abs() < 1e-12);
        assert!(
            (summary.mean[&2].dice - 2.0 / 3.0).abs() < 1e-12,
            "only the second case has class 2"
        );
        assert!((summary.foreground_mean.dice - (0.75 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(summary.mean[&1].tp, 1.5);
        assert_eq!(summary.mean[&2].n_ref, 1.0);
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
        let names = ["background".to_string(), "anterior".to_string()];
        let table = summary().print_table(&names);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("anterior") && lines[1].contains("0.750  0.500  1.000"));
        assert!(lines[2].starts_with("class 2") && lines[3].starts_with("foreground"));
        assert!(!Summary::new(Vec::new()).print_table(&[]).is_empty());
    }
}
