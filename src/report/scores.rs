//! The scores of a domain's cases on a page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::confidence::{called, confidence};
use super::page::{DomainPart, Figure, Plot};
use super::picture::data_uri;
use super::plots::strips;
use super::table::{Cell, Row, Table};
use crate::base::Result;
use crate::base::files::file_name;
use crate::imaging::stem;
use crate::score::ClassKey;
use crate::score::metrics::Scores;
use crate::score::summary::{CaseScores, MeanScores, Summary};

/// Classes that have a column of their own in the table of cases.
const COLUMNS: usize = 8;

/// What came of a domain's cases, the worst first, and their pictures, which lie at `picture` of the mask's file name. `place`
/// keeps the places of several domains on the page apart.
///
/// # Errors
///
/// Where a plot fails.
pub fn domain(
    name: &str,
    place: usize,
    summary: &Summary,
    names: &BTreeMap<ClassKey, String>,
    picture: &(dyn Fn(&str) -> PathBuf + Sync),
) -> Result<DomainPart> {
    let classes: Vec<(&ClassKey, String)> = summary
        .mean
        .keys()
        .filter(|class| class.values() != [0])
        .map(|class| (class, called(class, names)))
        .collect();
    let mut cases: Vec<Case<'_>> = summary.metric_per_case.iter().map(Case::new).collect();
    // NaN is larger than all numbers
    cases.sort_by(|a, b| a.dice.total_cmp(&b.dice).then_with(|| a.name.cmp(&b.name)));
    let mut part = DomainPart {
        name: name.into(),
        classes: class_table(summary, &classes),
        plots: plots(summary, &classes)?,
        cases: case_columns(&classes),
        order: "the worst Dice first".into(),
        figures: Vec::new(),
        confidence: confidence(summary, names)?,
    };
    for (index, case) in cases.iter().enumerate() {
        part.cases.rows.push(case.row(&classes, format!("#case-{place}-{index}")));
    }
    let drawn = cases.par_iter().zip(&part.cases.rows).map(|(case, row)| {
        let dice = Cell::number(case.dice, 3).text;
        let caption = format!("{} – Dice {dice}", case.name);
        let id = row.link.trim_start_matches('#').to_string();
        figure(id, caption, &picture(&file_name(Path::new(case.file))))
    });
    part.figures = drawn.collect();
    Ok(part)
}

/// A picture of a case, or what to do for one.
pub(super) fn figure(id: String, caption: String, file: &Path) -> Figure {
    let (image, missing) = match file.is_file() {
        false => (String::new(), format!("There is no {}.", file.display())),
        true => match data_uri(file) {
            Ok(image) => (image, String::new()),
            Err(error) => (String::new(), error.to_string()),
        },
    };
    Figure { id, caption, image, missing }
}

/// A case, by its name.
struct Case<'a> {
    name: String,
    file: &'a str,
    scores: &'a CaseScores,
    /// Mean over its classes.
    dice: f64,
}

impl<'a> Case<'a> {
    fn new(scores: &'a CaseScores) -> Self {
        let file = scores.prediction_file.as_str();
        let name = stem(Path::new(file)).unwrap_or_else(|| file_name(Path::new(file)));
        Self { name, file, scores, dice: mean(scores.metrics.values().map(|s| s.dice)) }
    }

    fn row(&self, classes: &[(&ClassKey, String)], link: String) -> Row {
        let of = |class: &ClassKey| self.scores.metrics.get(class);
        let all = || self.scores.metrics.values();
        let sum =
            |count: fn(&Scores) -> u64| Cell::count(all().map(count).fold(0, u64::saturating_add));
        let mut cells = vec![Cell::text(&self.name), Cell::share(self.dice)];
        if (2..=COLUMNS).contains(&classes.len()) {
            let dice = classes.iter().map(|(class, _)| of(class).map_or(f64::NAN, |s| s.dice));
            cells.extend(dice.map(Cell::share));
        }
        cells.push(Cell::number(mean(all().map(|s| s.hd95)), 1));
        cells.push(Cell::number(mean(all().map(|s| s.nsd)), 3));
        cells.extend([sum(|s| s.n_ref), sum(|s| s.n_pred)]);
        Row { link, cells }
    }
}

fn case_columns(classes: &[(&ClassKey, String)]) -> Table {
    let mut columns = vec!["Case".to_string(), "Dice".into()];
    if (2..=COLUMNS).contains(&classes.len()) {
        columns.extend(classes.iter().map(|(_, name)| format!("Dice {name}")));
    }
    columns.extend(["HD95, mm", "NSD", "Voxels, reference", "Voxels, predicted"].map(Into::into));
    Table::new(columns)
}

/// Values of a class in the cases that have one.
fn values(summary: &Summary, class: &ClassKey, of: fn(&Scores) -> f64) -> Vec<f64> {
    let cases = summary.metric_per_case.iter().filter_map(|case| case.metrics.get(class));
    cases.map(of).filter(|value| value.is_finite()).collect()
}

fn class_table(summary: &Summary, classes: &[(&ClassKey, String)]) -> Table {
    let columns = [
        "Class", "Cases", "Dice", "Lowest", "Median", "Highest", "IoU", "HD95, mm", "ASSD, mm",
        "NSD",
    ];
    let mut table = Table::new(columns);
    let means = |mean: &MeanScores| {
        [
            Cell::number(mean.iou, 3),
            Cell::number(mean.hd95, 1),
            Cell::number(mean.assd, 2),
            Cell::number(mean.nsd, 3),
        ]
    };
    for (class, name) in classes {
        let Some(mean) = summary.mean.get(class) else { continue };
        let mut dice = values(summary, class, |scores| scores.dice);
        dice.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| dice.get(index).copied().unwrap_or(f64::NAN);
        let middle = (at(dice.len().saturating_sub(1) / 2) + at(dice.len() / 2)) / 2.0;
        let mut cells =
            vec![Cell::text(name), Cell::count(dice.len() as u64), Cell::share(mean.dice)];
        cells.extend([at(0), middle, at(dice.len().saturating_sub(1))].map(|d| Cell::number(d, 3)));
        cells.extend(means(mean));
        table.rows.push(Row { link: String::new(), cells });
    }
    if classes.len() > 1 {
        let mean = summary.foreground_mean_of_occurring();
        let mut cells = vec![Cell::text("mean"), Cell::default(), Cell::share(mean.dice)];
        cells.extend([Cell::default(), Cell::default(), Cell::default()]);
        cells.extend(means(&mean));
        table.rows.push(Row { link: String::new(), cells });
    }
    table
}

fn plots(summary: &Summary, classes: &[(&ClassKey, String)]) -> Result<Vec<Plot>> {
    let of = |value: fn(&Scores) -> f64| -> Vec<(String, Vec<f64>)> {
        classes.iter().map(|(class, name)| (name.clone(), values(summary, class, value))).collect()
    };
    let dice = strips("Dice of each case", &of(|scores| scores.dice), true)?;
    let distance = strips("HD95 of each case, mm", &of(|scores| scores.hd95), false)?;
    Ok([dice, distance].into_iter().flatten().collect())
}

/// Mean of the values that are numbers; NaN where none is.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let numbers = values.filter(|value| value.is_finite());
    let (sum, count) = numbers.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count)
}
