//! What probabilities and entropies came to, on a page.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::page::{ConfidencePart, Plot};
use super::plots::{Chart, Line, chart};
use super::table::{Cell, Row, Table};
use crate::base::Result;
use crate::base::files::file_name;
use crate::imaging::stem;
use crate::score::summary::Summary;
use crate::score::{Calibration, ClassCalibration, ClassKey, EntropyScores};

/// Classes that a diagram shows; of more only what they come to together.
const CLASSES: usize = 5;

/// The part of the page; none where a summary has neither.
pub(super) fn confidence(
    summary: &Summary,
    names: &BTreeMap<ClassKey, String>,
) -> Result<Option<ConfidencePart>> {
    let mut part = ConfidencePart::default();
    if let Some(calibration) = &summary.calibration {
        part.calibration = errors(calibration, names);
        part.plots.push(reliability(calibration, names)?);
        part.hints.push(format!(
            "Expected calibration error (ECE): how far, on average, a probability lies from the share of voxels that are of the class. It counts the voxels of {} within a box {} mm about the foreground, in {} bins.",
            cases(calibration.cases),
            calibration.margin_mm,
            calibration.foreground.reliability.len(),
        ));
    }
    if let Some(entropy) = &summary.uncertainty {
        part.cases = case_table(entropy);
        part.plots.extend(retained(entropy)?);
        part.plots.extend(scatter(entropy)?);
        part.hints.push(
            "Entropy runs from 0, where one class is certain, to 1, where all are equally likely; that of a case is the mean over the voxels that are predicted as foreground.".into(),
        );
        if let Some((pearson, spearman)) = entropy.pearson.zip(entropy.spearman) {
            part.hints.push(format!(
                "Correlation of a case's entropy with its Dice: {pearson:.2} (Pearson), {spearman:.2} (Spearman, of the ranks). The nearer to −1, the better entropy tells which masks to look at."
            ));
        }
    }
    let none = part.plots.is_empty() && part.hints.is_empty();
    Ok((!none).then_some(part))
}

/// What a class is called.
pub(super) fn called(class: &ClassKey, names: &BTreeMap<ClassKey, String>) -> String {
    let name = names.get(class).filter(|name| !name.is_empty());
    name.map_or_else(|| format!("class {class}"), Clone::clone)
}

fn cases(count: usize) -> String {
    if count == 1 { "1 case".into() } else { format!("{count} cases") }
}

/// A row a class, and one for all of them.
fn errors(calibration: &Calibration, names: &BTreeMap<ClassKey, String>) -> Table {
    let mut table = Table::new(["Class", "ECE", "Voxels"]);
    let mut row = |name: String, of: &ClassCalibration| {
        let error = Cell::number(of.ece.unwrap_or(f64::NAN), 4);
        let cells = vec![Cell::text(name), error, Cell::count(of.voxels)];
        table.rows.push(Row { link: String::new(), cells });
    };
    calibration.classes.iter().for_each(|(class, of)| row(called(class, names), of));
    if calibration.classes.len() > 1 {
        row("all together".into(), &calibration.foreground);
    }
    table
}

fn reliability(calibration: &Calibration, names: &BTreeMap<ClassKey, String>) -> Result<Plot> {
    let line = |name: String, of: &ClassCalibration, colour: usize| {
        let bins = of.reliability.iter();
        let points = bins.filter_map(|bin| bin.mean_probability.zip(bin.frequency)).collect();
        Line { name, points, colour, faint: false }
    };
    let ideal = Line {
        name: "as it should be".into(),
        points: vec![(0.0, 0.0), (1.0, 1.0)],
        colour: 5,
        faint: true,
    };
    let mut lines = vec![ideal];
    match calibration.classes.len() {
        2..=CLASSES => {
            let classes = calibration.classes.iter().zip(0..);
            lines.extend(classes.map(|((class, of), c)| line(called(class, names), of, c)));
        }
        _ => lines.push(line("foreground".into(), &calibration.foreground, 0)),
    }
    chart(&Chart {
        title: "Reliability of the probabilities",
        axes: ["Predicted probability", "Share that is of the class"],
        ranges: [0.0..1.0, 0.0..1.0],
        lines: &lines,
        joined: true,
    })
}

fn retained(entropy: &EntropyScores) -> Result<Option<Plot>> {
    let levels = entropy.retained.iter();
    let points: Vec<(f64, f64)> =
        levels.filter_map(|level| level.left_out.zip(level.dice)).rev().collect();
    if points.is_empty() {
        return Ok(None);
    }
    let [x, y] = spans(&points);
    let lines = [Line { name: String::new(), points, colour: 0, faint: false }];
    let plot = chart(&Chart {
        title: "Dice without the most uncertain voxels",
        axes: ["Share of voxels left out", "Dice of the others"],
        ranges: [0.0..x.end, y],
        lines: &lines,
        joined: true,
    })?;
    Ok(Some(plot))
}

fn scatter(entropy: &EntropyScores) -> Result<Option<Plot>> {
    let known = entropy.per_case.iter().filter_map(|case| case.mean_entropy.zip(case.dice));
    let points: Vec<(f64, f64)> = known.collect();
    if points.len() < 2 {
        return Ok(None);
    }
    let ranges = spans(&points);
    let lines = [Line { name: String::new(), points, colour: 0, faint: false }];
    let plot = chart(&Chart {
        title: "Dice and uncertainty of each case",
        axes: ["Mean entropy of the foreground", "Dice"],
        ranges,
        lines: &lines,
        joined: false,
    })?;
    Ok(Some(plot))
}

/// What points span along x and y, with a little room, within 0 to 1.
fn spans(points: &[(f64, f64)]) -> [Range<f64>; 2] {
    let span = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = points
            .iter()
            .map(of)
            .fold((1.0, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
        let room = ((high - low) * 0.1).max(0.005);
        (low - room).max(0.0)..(high + room).min(1.0)
    };
    [span(|point| point.0), span(|point| point.1)]
}

/// A row a case, the most uncertain first.
fn case_table(entropy: &EntropyScores) -> Table {
    let mut table = Table::new(["Case", "Mean entropy", "Dice"]);
    let mut cases: Vec<_> = entropy.per_case.iter().collect();
    cases.sort_by(|a, b| b.mean_entropy.unwrap_or(-1.0).total_cmp(&a.mean_entropy.unwrap_or(-1.0)));
    for case in cases {
        let file = Path::new(&case.prediction_file);
        let cells = vec![
            Cell::text(stem(file).unwrap_or_else(|| file_name(file))),
            Cell::number(case.mean_entropy.unwrap_or(f64::NAN), 4),
            Cell::share(case.dice.unwrap_or(f64::NAN)),
        ];
        table.rows.push(Row { link: String::new(), cells });
    }
    table
}
