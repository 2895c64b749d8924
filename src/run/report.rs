//! `report.html` of a run, or of several below one folder: what their files hold, on one page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::folder::{
    CONFIG, DEPTH, MODEL, PLAN, RECORD, REPORT, RunFolder, SUMMARY, find, holds_runs, read_plan,
    validation_folder,
};
use super::readings::{Curves, Point, read, smooth};
use super::record::{Record, StartRecord};
use super::scores::key;
use crate::base::Result;
use crate::base::files::{file_name, read_text};
use crate::domain::DomainPlan;
use crate::imaging::stem;
use crate::net::{Chosen, Model};
use crate::report::{
    Cell, CurvePart, DomainPart, Line, Page, Pair, Plot, Row, RunPart, Table, TextFile, axes,
    bytes, curves, domain, duration, grouped, made, predictions,
};
use crate::score::ClassKey;
use crate::score::summary::Summary;
use crate::train::{Length, RunConfig};

/// The page of what lies in a folder: a run, finished or not, the folds or networks below it, or masks that `predict` wrote.
///
/// # Errors
///
/// Where it is none of these, or a file cannot be read.
pub fn report(folder: &Path) -> Result<Page> {
    if holds_runs(folder) { of_runs(folder) } else { predictions(folder) }
}

/// Where the page of a folder is written unless another file is named.
pub fn report_file(folder: &Path) -> PathBuf {
    folder.join(REPORT)
}

/// Writes the page of a run at its end. What is trained and scored is worth more than a page about it, so that a failure is
/// told as a warning.
pub(super) fn write_at_end(folder: &Path) {
    let written = report(folder).and_then(|page| page.write(&report_file(folder)));
    if let Err(error) = written {
        log::warn!("{} is not written: {error}", report_file(folder).display());
    }
}

/// A run with what its files hold.
struct Told {
    run: RunFolder,
    plans: Vec<DomainPlan>,
    curves: Vec<Curves>,
    record: Option<Record>,
    notes: Vec<String>,
    /// What the model says of its weights; none where there is no model.
    model: Option<Option<Chosen>>,
}

impl Told {
    fn read(folder: &Path) -> Result<Self> {
        let (run, plans, curves) = (RunFolder::read(folder)?, read_plan(folder)?, read(folder)?);
        let (record, mut notes) = match Record::read(folder) {
            Ok(record) => (record, Vec::new()),
            Err(error) => (None, vec![error.to_string()]),
        };
        let file = folder.join(MODEL);
        let model = match Model::read(&file) {
            Ok(model) => Some(model.chosen),
            Err(error) if file.exists() => {
                notes.push(error.to_string());
                None
            }
            Err(_) => {
                notes.push(format!("{} is not trained to its end.", folder.display()));
                None
            }
        };
        Ok(Self { run, plans, curves, record, notes, model })
    }

    fn steps(&self) -> f64 {
        self.curves.iter().map(Curves::last_step).fold(0.0, f64::max)
    }

    /// Seconds of all starts.
    fn seconds(&self) -> Option<f64> {
        let starts = &self.record.as_ref()?.starts;
        Some(starts.iter().map(|start| start.seconds).sum())
    }

    /// Which weights the model has, in a sentence.
    fn weights(&self) -> String {
        match &self.model {
            Some(Some(chosen)) => {
                let cases = if chosen.cases == 1 { "case" } else { "cases" };
                format!(
                    "The model has {}, of step {}: of those that were compared on {} held-out {cases} they segment best.",
                    chosen.called(),
                    grouped(chosen.step),
                    grouped(chosen.cases as u64),
                )
            }
            Some(None) => "The model has the last weights; no others were compared.".into(),
            None => String::new(),
        }
    }

    fn last_start(&self) -> Option<&StartRecord> {
        self.record.as_ref()?.starts.last()
    }
}

fn of_runs(folder: &Path) -> Result<Page> {
    let mut folders = Vec::new();
    find(folder, DEPTH, &mut folders)?;
    folders.sort();
    let all = folders.iter().map(|folder| Told::read(folder)).collect::<Result<Vec<_>>>()?;
    let mut page = Page {
        title: file_name(&folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())),
        kind: if all.len() == 1 { "Training run" } else { "Training runs" }.into(),
        made: made(),
        notes: all.iter().flat_map(|told| told.notes.clone()).collect(),
        ..Page::default()
    };
    let scores = scores(&all)?;
    if scores.is_empty() {
        page.notes.push("No held-out case is scored.".into());
    }
    page.tiles = tiles(&all, &scores);
    for (index, (name, scores)) in scores.iter().enumerate() {
        let mut part = scores.part(name, index)?;
        if part.is_without_pictures() {
            page.notes.push(format!("There are no pictures of the cases of {name}."));
        }
        page.domains.push(part);
    }
    for told in &all {
        let below = told.run.folder.strip_prefix(folder).unwrap_or(&told.run.folder);
        page.runs.push(part(told, below.display().to_string())?);
    }
    Ok(page)
}

/// The scored cases of a domain, with the folders that their pictures may lie in.
struct Scores {
    summary: Summary,
    names: BTreeMap<ClassKey, String>,
    folders: Vec<PathBuf>,
}

impl Scores {
    fn part(&self, name: &str, place: usize) -> Result<DomainPart> {
        let picture = |mask: &str| {
            let name = format!("{}.png", stem(Path::new(mask)).unwrap_or_else(|| mask.into()));
            let mut files = self.folders.iter().map(|folder| folder.join(&name));
            let first = files.next().unwrap_or_default();
            match first.is_file() {
                true => first,
                false => files.find(|file| file.is_file()).unwrap_or(first),
            }
        };
        domain(name, place, &self.summary, &self.names, &picture)
    }
}

/// The scores of all runs, by domain: the cases of folds together.
fn scores(all: &[Told]) -> Result<BTreeMap<String, Scores>> {
    let mut domains: BTreeMap<String, Scores> = BTreeMap::new();
    for told in all {
        for plan in &told.plans {
            let own = validation_folder(&told.run.folder, &plan.name);
            if !own.join(SUMMARY).is_file() {
                continue;
            }
            let cases = Summary::read(own.join(SUMMARY))?;
            let scored = plan.labels.scored().iter();
            let names = || scored.map(|class| (key(&plan.labels, class), class.name.clone()));
            let known = domains.entry(plan.name.clone());
            match known {
                std::collections::btree_map::Entry::Vacant(free) => {
                    let names = names().collect();
                    free.insert(Scores { summary: cases, names, folders: vec![own] });
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let scores = entry.get_mut();
                    scores.folders.push(own);
                    let together = scores.summary.metric_per_case.iter().cloned();
                    let together = together.chain(cases.metric_per_case);
                    scores.summary = Summary::new(together.collect());
                }
            }
        }
    }
    Ok(domains)
}

/// Of several numbers the mean; none of none.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values
        .filter(|value| value.is_finite())
        .fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn tiles(all: &[Told], scores: &BTreeMap<String, Scores>) -> Vec<Pair> {
    let mut tiles = Vec::new();
    for (name, scores) in scores {
        let dice = scores.summary.foreground_mean_of_occurring().dice;
        let title = format!("Mean Dice, {name}");
        tiles.push(Pair::new(title, Cell::number(dice, 3).text));
        let cases = scores.summary.metric_per_case.len() as u64;
        tiles.push(Pair::new("Held-out cases", grouped(cases)));
    }
    let steps = all.iter().map(Told::steps).fold(0.0, f64::max);
    tiles.push(Pair::new("Steps", grouped(steps as u64)));
    let seconds: Vec<f64> = all.iter().filter_map(Told::seconds).collect();
    if !seconds.is_empty() {
        tiles.push(Pair::new("Training", duration(seconds.iter().sum())));
    }
    let each = all.iter().flat_map(|told| &told.curves).flat_map(|curves| &curves.seconds);
    if let Some(seconds) = mean(each.map(|point| point.1)) {
        tiles.push(Pair::new("A step", short_seconds(seconds)));
    }
    if let Some(start) = all.iter().find_map(Told::last_start) {
        tiles.push(Pair::new("Device", &start.origin.device.name));
    }
    tiles
}

/// A row a set of weights, the best first.
fn compared(chosen: &Chosen) -> Table {
    let mut table = Table::new(["Weights", "Mean Dice of the held-out cases"]);
    let mut all: Vec<(&String, &f64)> = chosen.dice.iter().collect();
    all.sort_by(|a, b| {
        b.1.total_cmp(a.1).then_with(|| (b.0 == &chosen.weights).cmp(&(a.0 == &chosen.weights)))
    });
    for (name, dice) in all {
        let mark = if *name == chosen.weights { " (chosen)" } else { "" };
        let cells = vec![Cell::text(format!("{name}{mark}")), Cell::number(*dice, 4)];
        table.rows.push(Row { link: String::new(), cells });
    }
    table
}

fn short_seconds(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1000.0),
        _ => format!("{seconds:.2} s"),
    }
}

fn part(told: &Told, name: String) -> Result<RunPart> {
    let starts = told.record.iter().flat_map(|record| &record.starts);
    let parts = told
        .curves
        .iter()
        .map(|curves| Ok(CurvePart { name: curves.name.clone(), plots: plots(curves)? }));
    let text = |name: &str| -> Result<TextFile> {
        Ok(TextFile { name: name.into(), text: read_text(&told.run.folder.join(name))? })
    };
    let mut files = vec![text(CONFIG)?, text(PLAN)?];
    if told.record.is_some() {
        files.push(text(RECORD)?);
    }
    Ok(RunPart {
        name,
        commands: starts.filter_map(|start| start.origin.told()).collect(),
        curves: parts.collect::<Result<_>>()?,
        weights: told.weights(),
        compared: told.model.iter().flatten().map(compared).next().unwrap_or_default(),
        plan: plan_table(&told.plans),
        figures: figures(told),
        machine: told.last_start().map(|start| start.origin.pairs()).unwrap_or_default(),
        files,
    })
}

/// Classes whose pseudo-Dice has a curve of its own.
const CLASSES: usize = 5;

fn plots(all: &Curves) -> Result<Vec<Plot>> {
    let line = |name: &str, points: &[Point], colour: usize, faint: bool| Line {
        name: name.into(),
        points: points.to_vec(),
        colour,
        faint,
    };
    let mut plots = Vec::new();
    if !all.loss.is_empty() {
        let lines = match all.loss.len() {
            ..=30 => vec![line("", &all.loss, 0, false)],
            _ => {
                let mean = smooth(&all.loss);
                vec![line("readings", &all.loss, 0, true), line("mean", &mean, 0, false)]
            }
        };
        plots.push(curves("Loss", &lines, false)?);
    }
    if !all.dice.is_empty() {
        let mut lines = Vec::new();
        if (2..=CLASSES).contains(&all.classes.len()) {
            let classes = all.classes.iter().zip(1..);
            lines.extend(classes.map(|((name, points), c)| line(name, points, c, true)));
        }
        let smoothed = all.smoothed.len() > 1;
        lines.push(line("mean of the classes", &all.dice, 0, smoothed));
        if smoothed {
            lines.push(line("smoothed", &all.smoothed, 0, false));
        }
        plots.push(curves("Pseudo-Dice of held-out patches", &lines, true)?);
    }
    if !all.rate.is_empty() {
        plots.push(curves("Learning rate", &[line("", &all.rate, 0, false)], false)?);
    }
    Ok(plots)
}

/// A row a setting, a column a domain.
fn plan_table(plans: &[DomainPlan]) -> Table {
    let mut table =
        Table::new(["Setting".to_string()].into_iter().chain(plans.iter().map(|p| p.name.clone())));
    let mut row = |name: &str, value: &dyn Fn(&DomainPlan) -> String| {
        let mut cells = vec![Cell::text(name)];
        cells.extend(plans.iter().map(|plan| Cell::text(value(plan))));
        table.rows.push(Row { link: String::new(), cells });
    };
    row("Channels", &|plan| plan.channels.to_string());
    row("Classes", &|plan| {
        let names: Vec<&str> =
            plan.labels.scored().iter().map(|class| class.name.as_str()).collect();
        match names.len() {
            ..=4 => names.join(", "),
            count => format!("{}, … ({count})", names[..3].join(", ")),
        }
    });
    row("Spacing, mm (D×H×W)", &|plan| {
        let mm =
            |mm: f64| format!("{mm:.3}").trim_end_matches('0').trim_end_matches('.').to_string();
        axes(plan.spacing.map(mm))
    });
    row("Patch, voxels (D×H×W)", &|plan| axes(plan.patch));
    if plans.iter().any(|plan| plan.crop.is_some()) {
        row("Resized from", &|plan| plan.crop.map_or("–".into(), axes));
    }
    row("Batch size", &|plan| plan.batch.to_string());
    row("Downsampling steps per axis", &|plan| axes(plan.pools));
    row("Planned as published for", &|plan| plan.preset.clone().unwrap_or("–".into()));
    table
}

/// Memory and speed.
fn figures(told: &Told) -> Vec<Pair> {
    let RunConfig { length, .. } = &told.run.config;
    let asked = match length {
        Length::Steps(steps) => format!("{} steps", grouped(*steps)),
        Length::Minutes(minutes) => format!("{minutes} minutes"),
    };
    let mut pairs = vec![Pair::new("Asked for", asked)];
    pairs.push(Pair::new("Done", format!("{} steps", grouped(told.steps() as u64))));
    for curves in &told.curves {
        if let Some(seconds) = mean(curves.seconds.iter().map(|point| point.1)) {
            let name = format!("A step of {}", curves.name);
            pairs.push(Pair::new(name, short_seconds(seconds)));
        }
    }
    let idle = told.curves.iter().flat_map(|curves| &curves.idle).map(|point| point.1);
    if let Some(idle) = mean(idle) {
        pairs.push(Pair::new("GPU without work", format!("{:.1} % of the time", 100.0 * idle)));
    }
    let skipped = told.curves.iter().map(|curves| curves.skipped).max().unwrap_or(0);
    pairs.push(Pair::new("Steps that changed nothing", grouped(skipped)));
    if let Some(seconds) = told.seconds() {
        pairs.push(Pair::new("Training", duration(seconds)));
    }
    if let Some(seconds) = told.record.as_ref().and_then(|record| record.validation_seconds) {
        pairs.push(Pair::new("Segmenting and scoring", duration(seconds)));
    }
    if let Some(StartRecord { memory, .. }) = told.last_start() {
        let twice = match memory.recomputed {
            0 => String::new(),
            count => format!(", {count} tensors computed twice to save more"),
        };
        let parts = format!(
            "{} (parameters {}, activations {}{twice})",
            bytes(memory.total),
            bytes(memory.parameters),
            bytes(memory.activations),
        );
        pairs.push(Pair::new("GPU memory for the network", parts));
        pairs.push(Pair::new(
            "GPU memory for cases and patches",
            format!("at most {}", bytes(memory.patches)),
        ));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Labels;
    use crate::domain::Weighting;
    use crate::imaging::{Normalisation, Resampling};
    use crate::run::folder::{LOG, write_plan};
    use crate::score::metrics::Comparison;
    use crate::score::summary::CaseScores;

    fn plan(name: &str) -> DomainPlan {
        DomainPlan {
            name: name.into(),
            channels: 1,
            labels: Labels::plain(["background", "<b>organ", "tumour"]),
            spacing: [2.5, 0.75, 0.75],
            patch: [32, 64, 64],
            crop: None,
            pools: [3, 4, 4],
            batch: 2,
            normalisation: Normalisation::ZScore,
            resampling: Resampling::default(),
            preset: None,
            weighting: Weighting::Gaussian,
            clean_up: Vec::new(),
        }
    }

    /// Scores of a case whose prediction misses so many of ten voxels.
    fn case(name: &str, missed: usize) -> CaseScores {
        let truth = ndarray::Array3::from_elem([1, 1, 10], 1u8);
        let mut mask = truth.clone();
        mask.iter_mut().take(missed).for_each(|voxel| *voxel = 0);
        let masks = Comparison::new(truth.view(), mask.view(), [1.0; 3]).unwrap();
        let metrics = [1, 2].map(ClassKey::from).map(|c| (c.clone(), masks.scores(&c, 1.0)));
        CaseScores {
            metrics: metrics.into(),
            prediction_file: format!("/elsewhere/{name}.nii.gz"),
            reference_file: "r".into(),
        }
    }

    fn run(folder: &Path) {
        let config = RunConfig::new(vec!["data".into()]);
        write_plan(&config, &[plan("Liver & more")], folder).unwrap();
        let log = r#"{"step":1,"domain":"Liver & more","loss":0.5,"lr":0.1,"seconds_per_step":0.5,"gpu_idle":0.1,"skipped":0}
{"step":9,"domain":"Liver & more","validation":{"dice":{"organ":0.7},"mean":0.7,"smoothed":0.7}}"#;
        std::fs::write(folder.join(LOG), log).unwrap();
        let scores = validation_folder(folder, "Liver & more");
        std::fs::create_dir_all(&scores).unwrap();
        let cases = vec![case("good", 1), case("<bad>", 8), case("middling", 5)];
        Summary::new(cases).write(scores.join(SUMMARY)).unwrap();
    }

    #[test]
    fn a_run_without_pictures_or_record_has_a_page_with_the_worst_case_first() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path());
        let page = report(folder.path()).unwrap();
        let [domain] = page.domains.as_slice() else { panic!("{:?}", page.domains) };
        let names: Vec<&str> =
            domain.cases.rows.iter().map(|row| row.cells[0].text.as_str()).collect();
        assert_eq!(names, ["<bad>", "middling", "good"]);
        assert_eq!(domain.cases.columns[3].name, "Dice tumour");
        assert!(domain.figures.is_empty() && domain.cases.rows[0].link.is_empty());
        assert!(page.notes.iter().any(|note| note.contains("no pictures")));
        let titles: Vec<&str> =
            page.runs[0].curves[0].plots.iter().map(|plot| plot.title.as_str()).collect();
        assert_eq!(titles, ["Loss", "Pseudo-Dice of held-out patches", "Learning rate"]);
        assert!(page.notes.iter().any(|note| note.contains("not trained to its end")));
        let html = page.html().unwrap();
        for told in ["<b>organ", "<bad>", "Liver & more"] {
            assert!(!html.contains(told), "{told} is not escaped");
        }
        assert!(html.contains("2.5×0.75×0.75") && html.contains("32×64×64"));
        // a record that somebody spoiled costs itself alone
        std::fs::write(folder.path().join(RECORD), "{").unwrap();
        assert!(report(folder.path()).unwrap().notes[0].contains(RECORD));
    }

    #[test]
    fn the_cases_of_folds_stand_together_with_their_own_pictures() {
        let folder = tempfile::tempdir().unwrap();
        for fold in ["fold_0", "fold_1"] {
            run(&folder.path().join(fold));
        }
        let pictures = validation_folder(&folder.path().join("fold_1"), "Liver & more");
        image::RgbImage::new(4, 4).save(pictures.join("good.png")).unwrap();
        std::fs::write(pictures.join("middling.png"), "no picture").unwrap();
        let page = report(folder.path()).unwrap();
        assert_eq!((page.domains.len(), page.runs.len()), (1, 2));
        assert_eq!(page.domains[0].cases.rows.len(), 6);
        let figures = &page.domains[0].figures;
        assert!(figures[5].image.starts_with("data:image/jpeg;base64,"));
        assert!(figures[0].missing.contains("<bad>.png"));
        assert!(figures[3].missing.contains("no picture"));
        assert_eq!(page.runs[1].name, "fold_1");
        write_at_end(folder.path());
        assert!(folder.path().join(REPORT).is_file());
    }

    #[test]
    fn times_are_told_as_people_say_them() {
        let told = [5.4, 65.0, 3700.0, f64::NAN].map(duration);
        assert_eq!(told, ["5 s", "1 min 5 s", "1 h 1 min", "0 s"]);
        assert_eq!([0.25, 1.5].map(short_seconds), ["250 ms", "1.50 s"]);
    }
}
