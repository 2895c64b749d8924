//! What a user sees while cases are read and prepared: a bar on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::say::{self, Cleared};
use super::words::count;

use crate::dataset::prepared::{Progress, Stage};
use crate::run::{CaseDone, Observer, Segmenting};

/// Follows the work on the cases of one dataset after another.
#[derive(Default)]
pub struct PreparationBar {
    bar: Option<Shown>,
    /// When a line was written.
    line: Option<Instant>,
}

/// A bar, and the work that it is of.
struct Shown {
    stage: Stage,
    dataset: String,
    bar: ProgressBar,
}

/// Between lines where there is no terminal.
const LINES: Duration = Duration::from_secs(10);
/// Steps of a bar.
const STEPS: u64 = 1000;

/// Words for a time.
fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..120 => format!("{seconds:.1} s"),
        120..7200 => format!("{} min", whole.div_ceil(60)),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

impl PreparationBar {
    /// Shows how far it is.
    pub fn show(&mut self, progress: &Progress) {
        let Progress { stage, dataset, done, total, share, seconds: passed } = progress;
        let same = |shown: &Shown| (&shown.stage, &shown.dataset) == (stage, dataset);
        if !self.bar.as_ref().is_some_and(same) {
            self.bar = Some(Shown { stage: *stage, dataset: dataset.clone(), bar: begin() });
            self.line = Some(Instant::now());
        }
        let Some(Shown { bar, .. }) = &self.bar else { return };
        let (doing, did) = match stage {
            Stage::Reading => ("reading", "read"),
            Stage::Preparing => ("preparing", "prepared"),
        };
        let left = progress.remaining().map(|left| format!(", about {} to go", seconds(left)));
        let left = left.filter(|_| done < total).unwrap_or_default();
        let text = format!("{dataset}: {doing}, {done} of {total} cases{left}");
        bar.set_position((share * STEPS as f64) as u64);
        if done == total {
            bar.finish_and_clear();
            let cases = count(*total as u64, "case");
            let each = passed / (*total).max(1) as f64;
            // shorter ones are nothing to plan by
            let each = Some(each).filter(|each| *total > 1 && *each >= 0.1);
            let each = each.map(|each| format!(", {} a case", seconds(each))).unwrap_or_default();
            note!("{dataset}: {cases} {did} in {}{each}", seconds(*passed));
            self.bar = None;
        } else if bar.is_hidden() && self.line.is_none_or(|line| line.elapsed() >= LINES) {
            note!("{text}");
            self.line = Some(Instant::now());
        } else {
            bar.set_message(text);
        }
    }
}

/// Follows held-out cases that are segmented: what it gives is called after each.
pub fn segmentation_bar(work: &Segmenting) -> CaseDone {
    let Segmenting { domain, compared, cases, .. } = work;
    let doing = match compared.as_deref() {
        Some("average") => "held-out cases by the moving average of the weights".into(),
        Some(weights) => format!("held-out cases by the {weights} weights"),
        None => "segmenting held-out cases".into(),
    };
    let bar = Cleared(begin());
    let (total, text) = (*cases, format!("{domain}: {doing}"));
    let (since, mut line, mut done) = (Instant::now(), Instant::now(), 0);
    bar.0.set_message(format!("{text}, 0 of {total}"));
    Box::new(move || {
        done += 1;
        let left = since.elapsed().as_secs_f64() / done as f64 * total.saturating_sub(done) as f64;
        let told = format!("{text}, {done} of {total}, about {} to go", seconds(left));
        bar.0.set_position(STEPS * done as u64 / total.max(1) as u64);
        if bar.0.is_hidden() && line.elapsed() >= LINES && done < total {
            note!("{told}");
            line = Instant::now();
        }
        bar.0.set_message(told);
    })
}

fn begin() -> ProgressBar {
    let bar = say::bar(Some(STEPS), "{bar:20} {percent:>3} % {elapsed_precise} {wide_msg}");
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

impl Observer for PreparationBar {
    fn preparing(&mut self, progress: &Progress) -> crate::base::Result<()> {
        self.show(progress);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_read_well() {
        let told = [0.04, 59.96, 125.0, 7199.0, 9000.0].map(super::seconds);
        assert_eq!(told, ["0.0 s", "60.0 s", "3 min", "120 min", "2.5 h"]);
    }
}
