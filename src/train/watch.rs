//! What follows a run: a log, TensorBoard's scalars, a bar on a terminal and lines elsewhere.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::events::Events;
use super::schedule::Chooser;
use crate::base::files::write_atomically;
use crate::{Error, Result};

/// Readings of the loss, a JSON object a line.
pub(super) const LOG: &str = "log.jsonl";

/// A step that was submitted.
pub(super) struct Done {
    /// From 1.
    pub step: u64,
    pub domain: usize,
    pub rate: f64,
    /// Whether its losses were asked for.
    pub read: bool,
}

/// One reading of the loss.
#[derive(Debug, Clone, serde::Serialize)]
struct LogLine<'a> {
    step: u64,
    domain: &'a str,
    loss: f32,
    cross_entropy: f32,
    dice: f32,
    focal: f32,
    lovasz: f32,
    lr: f64,
    seconds_per_step: f64,
}

pub(super) struct Watch {
    pub chooser: Chooser,
    log: File,
    path: PathBuf,
    events: Events,
    bar: ProgressBar,
    start: Instant,
    /// When losses were read last, and of which step.
    last: (Instant, u64),
    /// Steps between lines where there is no terminal.
    lines: u64,
}

impl Watch {
    /// Opens the logs of a run that stands at `step`.
    pub fn open(out: &Path, chooser: Chooser, step: u64, lines: u64) -> Result<Self> {
        let path = out.join(LOG);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|e| Error::io(&path, e))?;
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template(
            "{bar:30} {percent:>3} % {elapsed_precise}<{eta_precise} {msg}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let start = Instant::now();
        let events = Events::create(out)?;
        Ok(Self { chooser, log, path, events, bar, start, last: (start, step), lines })
    }

    /// Since the run began or went on.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Takes in the losses of a step of the domain `name`, at a share of the run.
    pub fn read(&mut self, done: &Done, name: &str, losses: [f32; 5], progress: f64) -> Result<()> {
        let steps = done.step.saturating_sub(self.last.1).max(1) as f64;
        let pace = self.last.0.elapsed().as_secs_f64() / steps;
        self.last = (Instant::now(), done.step);
        let [loss, cross_entropy, focal, dice, lovasz] = losses;
        let line = LogLine {
            step: done.step,
            domain: name,
            loss,
            cross_entropy,
            dice,
            focal,
            lovasz,
            lr: done.rate,
            seconds_per_step: pace,
        };
        let text = serde_json::to_string(&line).map_err(|e| Error::Internal(e.to_string()))?;
        writeln!(self.log, "{text}").map_err(|e| Error::io(&self.path, e))?;
        let parts = [("", loss), ("_ce", cross_entropy), ("_focal", focal), ("_dice", dice)];
        let parts = parts.into_iter().chain([("_lovasz", lovasz)]);
        let mut scalars: Vec<(String, f32)> =
            parts.map(|(part, value)| (format!("loss{part}/{name}"), value)).collect();
        scalars.push(("lr".into(), done.rate as f32));
        scalars.push((format!("seconds_per_step/{name}"), pace as f32));
        self.events.add(done.step, &scalars)?;
        self.show(&line, progress);
        Ok(())
    }

    fn show(&self, line: &LogLine<'_>, progress: f64) {
        let text = format!(
            "step {} {} loss {:.4} {:.2} s/step",
            line.step, line.domain, line.loss, line.seconds_per_step
        );
        if self.bar.is_hidden() {
            if line.step.is_multiple_of(self.lines) || line.step == 1 {
                eprintln!("{text}");
            }
        } else {
            self.bar.set_position((progress * 1000.0) as u64);
            self.bar.set_message(text);
        }
    }

    /// At the end of the run.
    pub fn close(&self) {
        self.bar.finish_and_clear();
    }
}

/// Takes readings from beyond `step` out of the log: those steps come again.
pub(super) fn rewind(out: &Path, step: u64) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Reading {
        step: u64,
    }
    let path = out.join(LOG);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let before = |line: &&str| serde_json::from_str(line).is_ok_and(|r: Reading| r.step <= step);
    let kept: String = text.lines().filter(before).map(|line| format!("{line}\n")).collect();
    write_atomically(&path, kept.as_bytes())
}
