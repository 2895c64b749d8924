//! A folder of predicted masks on a page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::measures::measures;
use super::origin::Origin;
use super::page::{DomainPart, Page, Pair, RunPart, made};
use super::plots::strips;
use super::scores::{domain, figure};
use super::table::{Cell, Row, Table, grouped};
use crate::base::files::{file_name, read_json, write_atomically};
use crate::base::{Error, Result};
use crate::dataset::Labels;
use crate::imaging::{Known, case_name, masks_by_stem, read_labels};
use crate::picture::value_names;
use crate::score::StatisticsFile;
use crate::score::summary::{Summary, names};

/// What `predict` leaves beside the masks of a folder.
pub const PREDICTION: &str = "prediction.json";
/// Scores, where `evaluate` put them beside the masks.
const SUMMARY: &str = "summary.json";

/// How the masks of a folder were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictionRecord {
    /// By which command, with what, on what.
    #[serde(flatten)]
    pub origin: Origin,
    /// The model files.
    pub models: Vec<String>,
    /// The domain of the images.
    pub domain: String,
    /// What the values of the masks mean.
    pub labels: Labels,
}

impl PredictionRecord {
    /// Writes it into the folder of the masks.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(&folder.join(PREDICTION), &json)
    }
}

/// The voxels of each class of a mask.
struct Mask {
    name: String,
    file: PathBuf,
    /// Millilitres of each value above 0 that occurs.
    volumes: BTreeMap<u8, f64>,
    voxels: u64,
}

/// The page of a folder of masks, with their scores where `evaluate` wrote `summary.json` beside them, and their pictures where
/// `predict` drew them; and what is odd about it, for the log.
///
/// # Errors
///
/// Where the folder holds no mask, or something of it cannot be read.
pub fn predictions(folder: &Path) -> Result<Page> {
    let record: Option<PredictionRecord> =
        optional(&folder.join(PREDICTION), "a record of `predict`")?;
    let summary: Option<Summary> = optional(&folder.join(SUMMARY), "a summary of `evaluate`")?;
    let labels = record.as_ref().map(|record| record.labels.clone()).unwrap_or_default();
    let classes = value_names(&labels);
    let masks = masks(folder)?;
    let name = record.as_ref().map(|record| record.domain.clone()).unwrap_or_default();
    let mut page = Page {
        title: file_name(&folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())),
        kind: "Predictions".into(),
        made: made(),
        tiles: vec![Pair::new("Cases", grouped(masks.len() as u64))],
        ..Page::default()
    };
    let volumes = volumes(&name, &masks, &classes)?;
    match summary {
        Some(summary) => {
            let picture = |file: &str| folder.join(png(file));
            let scores = domain(&name, 0, &summary, &names(&labels), &picture)?;
            let dice = summary.foreground_mean_of_occurring().dice;
            page.tiles.push(Pair::new("Mean Dice", Cell::number(dice, 3).text));
            let mut volumes = DomainPart { name: "Volumes".into(), ..volumes };
            volumes.figures.clear();
            volumes.is_without_pictures();
            page.domains = vec![scores, volumes];
        }
        None => {
            page.notes.push(format!(
                "The masks are not scored here: u2seg evaluate -p FOLDER -g LABELS -o FOLDER/{SUMMARY} adds that to the next report."
            ));
            page.domains = vec![volumes];
        }
    }
    if page.domains.first_mut().is_some_and(DomainPart::is_without_pictures) {
        let told = "There are no pictures beside the masks: u2seg predict --preview draws them.";
        page.notes.push(told.into());
    }
    let measured = StatisticsFile::of(folder).read()?;
    let there = measured
        .values()
        .filter(|case| masks.iter().any(|mask| file_name(&mask.file) == case.mask));
    page.domains.extend(measures(there));
    page.runs = record.iter().map(part).collect();
    Ok(page)
}

/// A file of JSON; none where there is none.
fn optional<T: serde::de::DeserializeOwned>(file: &Path, expected: &str) -> Result<Option<T>> {
    let read = || read_json(file, expected, "Remove the file, or write it anew.");
    file.is_file().then(read).transpose()
}

/// The picture of a mask by the mask's file name.
fn png(file: &str) -> String {
    format!("{}.png", case_name(Path::new(file)))
}

fn masks(folder: &Path) -> Result<Vec<Mask>> {
    let files: Vec<PathBuf> = masks_by_stem(folder)?.into_values().flatten().collect();
    if files.is_empty() {
        let expected = "a run's folder, or a folder of masks";
        let remedy = "Name the folder that `train` or `predict` wrote.";
        return Err(Error::file(folder, "neither a run nor a mask", expected, remedy));
    }
    files.into_par_iter().map(Mask::read).collect()
}

impl Mask {
    fn read(file: PathBuf) -> Result<Self> {
        let labels = read_labels(&file, &Known::any())?;
        let mut counts = [0u64; 256];
        labels.as_slice().iter().for_each(|label| counts[usize::from(*label)] += 1);
        let millilitres = labels.spacing().iter().product::<f64>() / 1000.0;
        let above = (0..=255u8).zip(counts).skip(1).filter(|(_, count)| *count > 0);
        let volumes = above.map(|(value, count)| (value, count as f64 * millilitres)).collect();
        let name = case_name(&file);
        Ok(Self { name, volumes, voxels: labels.as_slice().len() as u64, file })
    }
}

/// Classes that have a column of their own.
const COLUMNS: usize = 12;

/// The volumes of the masks' classes, by name.
fn volumes(name: &str, masks: &[Mask], classes: &BTreeMap<u8, String>) -> Result<DomainPart> {
    let mut values: Vec<u8> = masks.iter().flat_map(|mask| mask.volumes.keys().copied()).collect();
    values.extend(classes.keys());
    values.sort_unstable();
    values.dedup();
    let called = |value: &u8| classes.get(value).cloned().unwrap_or(format!("class {value}"));
    let of = |mask: &Mask, value: &u8| mask.volumes.get(value).copied().unwrap_or(0.0);
    let mut columns =
        vec!["Case".to_string(), "Voxels of the image".into(), "Foreground, ml".into()];
    let own = values.len() <= COLUMNS && values.len() > 1;
    if own {
        columns.extend(values.iter().map(|value| format!("{}, ml", called(value))));
    }
    let mut part = DomainPart {
        name: name.into(),
        cases: Table::new(columns),
        order: "by name".into(),
        ..DomainPart::default()
    };
    for (index, mask) in masks.iter().enumerate() {
        let id = format!("mask-{index}");
        let all: f64 = mask.volumes.values().sum();
        let mut cells =
            vec![Cell::text(&mask.name), Cell::count(mask.voxels), Cell::number(all, 2)];
        if own {
            cells.extend(values.iter().map(|value| Cell::number(of(mask, value), 2)));
        }
        part.cases.rows.push(Row { link: format!("#{id}"), cells });
        let picture = mask.file.with_file_name(png(&file_name(&mask.file)));
        part.figures.push(figure(id, mask.name.clone(), &picture));
    }
    let series: Vec<(String, Vec<f64>)> = values
        .iter()
        .map(|value| (called(value), masks.iter().map(|mask| of(mask, value)).collect()))
        .collect();
    part.plots = strips("Volume of each case, ml", &series, false)?.into_iter().collect();
    Ok(part)
}

fn part(record: &PredictionRecord) -> RunPart {
    let mut machine =
        vec![Pair::new("Models", record.models.join(", ")), Pair::new("Domain", &record.domain)];
    machine.extend(record.origin.pairs());
    RunPart { commands: record.origin.told().into_iter().collect(), machine, ..RunPart::default() }
}
