//! What follows a run: a log of readings, and TensorBoard's scalars.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::events;
use super::events::Events;
use super::folder::{BEST, LOG, PROGRESS, remove};
use crate::base::files::{read_if_there, write_atomically};
use crate::base::{Error, Result};
use crate::train::{Drawn, LossTerm, PatchScores, Reading};

/// One reading of the loss.
#[derive(serde::Serialize)]
struct LogLine<'a> {
    step: u64,
    domain: &'a str,
    loss: f32,
    /// Those that it is the weighted sum of, under their names behind `loss_`.
    #[serde(flatten)]
    terms: BTreeMap<String, f32>,
    lr: f64,
    seconds_per_step: f64,
    gpu_idle: f64,
    /// Steps so far that changed nothing, since their loss or gradients were not finite.
    skipped: u64,
    /// The patches of the step, where it is one of those.
    #[serde(skip_serializing_if = "<[Drawn]>::is_empty")]
    left_out: &'a [Drawn],
}

/// Scores of a domain's held-out patches.
#[derive(serde::Serialize)]
struct ScoreLine<'a> {
    step: u64,
    domain: &'a str,
    validation: ScoreValues<'a>,
}

#[derive(serde::Serialize)]
struct ScoreValues<'a> {
    /// By class; null where it is nowhere.
    dice: BTreeMap<&'a str, Option<f64>>,
    mean: Option<f64>,
    smoothed: Option<f64>,
}

/// A score to four places.
fn rounded(score: Option<f64>) -> Option<f64> {
    score.map(|score| (score * 1e4).round() / 1e4)
}

/// The files that readings are appended to.
pub(super) struct Log {
    lines: File,
    path: PathBuf,
    events: Events,
}

impl Log {
    /// Opens the logs of a run.
    pub fn open(out: &Path) -> Result<Self> {
        let path = out.join(LOG);
        let lines = File::options().create(true).append(true).open(&path);
        let lines = lines.map_err(|e| Error::io(&path, e))?;
        Ok(Self { lines, path, events: Events::create(out)? })
    }

    /// Appends a reading.
    pub fn add(&mut self, reading: &Reading) -> Result<()> {
        let line = LogLine {
            step: reading.step,
            domain: &reading.name,
            loss: reading.losses.total,
            terms: active(reading)
                .map(|term| (format!("loss_{}", term.name), term.value))
                .collect(),
            lr: reading.lr,
            seconds_per_step: reading.seconds_per_step,
            gpu_idle: reading.gpu_idle,
            skipped: reading.skipped,
            left_out: &reading.left_out,
        };
        self.append(&line)?;
        self.events.add(reading.step, &scalars(reading))
    }

    /// Appends the scores of a domain's held-out patches.
    pub fn add_scores(&mut self, step: u64, scores: &PatchScores) -> Result<()> {
        let PatchScores { domain, dice, mean, smoothed } = scores;
        let each = dice.iter().map(|(name, dice)| (name.as_str(), rounded(*dice)));
        let validation = ScoreValues {
            dice: each.collect(),
            mean: rounded(*mean),
            smoothed: rounded(*smoothed),
        };
        self.append(&ScoreLine { step, domain, validation })?;
        let mut scalars: Vec<(String, f32)> = Vec::new();
        let mut add = |tag: String, score: Option<f64>| {
            scalars.extend(score.map(|score| (tag, score as f32)));
        };
        add(format!("pseudo_dice/{domain}"), *mean);
        add(format!("pseudo_dice_smoothed/{domain}"), *smoothed);
        for (name, dice) in dice {
            add(format!("pseudo_dice_{domain}/{name}"), *dice);
        }
        self.events.add(step, &scalars)
    }

    fn append(&mut self, line: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| Error::Internal(e.to_string()))?;
        // in one piece, as far as the system allows
        let line = format!("{text}\n");
        self.lines.write_all(line.as_bytes()).map_err(|e| Error::io(&self.path, e))
    }

    /// Makes what was added last through a crash: a checkpoint must not be ahead of its log.
    pub fn sync(&self) -> Result<()> {
        self.lines.sync_data().map_err(|e| Error::io(&self.path, e))?;
        self.events.sync()
    }
}

/// The losses that a reading's total is made of.
fn active(reading: &Reading) -> impl Iterator<Item = &LossTerm> {
    reading.losses.terms.iter().filter(|term| term.weight != 0.0)
}

/// What TensorBoard shows of a reading.
fn scalars(reading: &Reading) -> Vec<(String, f32)> {
    let name = &reading.name;
    let mut scalars = vec![(format!("loss/{name}"), reading.losses.total)];
    for term in active(reading) {
        // its tag since there are events
        let tag = if term.name == "cross_entropy" { "ce" } else { term.name };
        scalars.push((format!("loss_{tag}/{name}"), term.value));
    }
    scalars.push(("lr".into(), reading.lr as f32));
    scalars.push((format!("seconds_per_step/{name}"), reading.seconds_per_step as f32));
    scalars
}

/// Takes readings from beyond `step` out of the log and TensorBoard's files, with what a crash left half written: those steps
/// come again. At step 0 nothing stays of what was there before.
pub(super) fn rewind(out: &Path, step: u64) -> Result<()> {
    events::rewind(out, step)?;
    if step == 0 {
        return [LOG, PROGRESS, BEST].iter().try_for_each(|file| remove(&out.join(file)));
    }
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    let path = out.join(LOG);
    let Some(bytes) = read_if_there(&path, "the log of a run")? else { return Ok(()) };
    let before = |line: &&[u8]| serde_json::from_slice(line).is_ok_and(|l: Line| l.step <= step);
    let kept: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(before).collect();
    let kept: Vec<u8> = kept.into_iter().flat_map(|line| [line, b"\n"].concat()).collect();
    match kept == bytes {
        true => Ok(()),
        false => write_atomically(&path, &kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::Losses;

    #[test]
    fn a_log_is_rewound_to_a_step_and_torn_lines_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let lines = "{\"step\":1}\n{\"step\":5}\n{\"step\":9}\n{\"step\":1";
        std::fs::write(&path, [lines.as_bytes(), &[0xff, 0]].concat()).unwrap();
        std::fs::write(folder.path().join(PROGRESS), b"png").unwrap();
        rewind(folder.path(), 5).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":5}\n");
        rewind(folder.path(), 0).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        rewind(folder.path(), 3).unwrap();
    }

    #[test]
    fn a_line_and_the_scalars_name_every_term_that_counts() {
        let term = |name, value| LossTerm { name, weight: f32::from(name != "lovasz"), value };
        let values = [("cross_entropy", 0.5), ("focal", 0.25), ("dice", 1.0), ("lovasz", 0.0)];
        let terms = values.map(|(name, value)| term(name, value)).to_vec();
        let losses = Losses { total: 1.5, terms };
        let (name, seconds_per_step) = ("A".to_string(), 0.5);
        let (gpu_idle, progress, lr) = (0.25, 0.5, 0.1);
        let (step, domain, skipped) = (5, 0, 2);
        let left_out = vec![Drawn { case: "c".into(), centre: [1, 2, 3] }];
        let reading = Reading {
            step,
            domain,
            name,
            lr,
            losses,
            seconds_per_step,
            gpu_idle,
            progress,
            skipped,
            left_out,
        };
        let folder = tempfile::tempdir().unwrap();
        Log::open(folder.path()).unwrap().add(&reading).unwrap();
        let line = std::fs::read_to_string(folder.path().join(LOG)).unwrap();
        let expected = r#"{"step":5,"domain":"A","loss":1.5,"loss_cross_entropy":0.5,"loss_dice":1.0,"loss_focal":0.25,"lr":0.1,"seconds_per_step":0.5,"gpu_idle":0.25,"skipped":2,"left_out":[{"case":"c","centre":[1,2,3]}]}"#;
        assert_eq!(line.trim_end(), expected);
        let tags: Vec<String> = scalars(&reading).into_iter().map(|(tag, _)| tag).collect();
        let expected =
            ["loss/A", "loss_ce/A", "loss_focal/A", "loss_dice/A", "lr", "seconds_per_step/A"];
        assert_eq!(tags, expected);
    }

    #[test]
    fn scores_have_a_line_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let dice = vec![("b".to_string(), Some(0.123_456)), ("a".to_string(), None)];
        let (mean, smoothed) = (Some(0.123_456), Some(0.2));
        let scores = PatchScores { domain: "A".into(), dice, mean, smoothed };
        Log::open(folder.path()).unwrap().add_scores(7, &scores).unwrap();
        let line = std::fs::read_to_string(folder.path().join(LOG)).unwrap();
        let expected = r#"{"step":7,"domain":"A","validation":{"dice":{"a":null,"b":0.1235},"mean":0.1235,"smoothed":0.2}}"#;
        assert_eq!(line.trim_end(), expected);
        rewind(folder.path(), 6).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join(LOG)).unwrap(), "");
    }
}
