//! The curves that `log.jsonl` holds.

use std::collections::BTreeMap;
use std::path::Path;

use super::folder::LOG;
use crate::base::Result;
use crate::base::files::read_text;

/// A step and what was read of it.
pub(super) type Point = (f64, f64);

/// One domain's readings, in the order of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Curves {
    /// The domain.
    pub name: String,
    pub loss: Vec<Point>,
    /// The learning rate.
    pub rate: Vec<Point>,
    /// Pseudo-Dice: of the classes together, smoothed over time, and of each class.
    pub dice: Vec<Point>,
    pub smoothed: Vec<Point>,
    pub classes: BTreeMap<String, Vec<Point>>,
    /// Seconds a step.
    pub seconds: Vec<Point>,
    /// Share of the time in which the GPU had nothing to do.
    pub idle: Vec<Point>,
    /// Steps of the whole run that changed nothing.
    pub skipped: u64,
}

/// Magnitudes above this are no readings, but a log that somebody spoiled; no axis holds them.
const LARGEST: f64 = 1e30;

/// A line of the log: of a step's loss, or of held-out patches. A number that is not finite is null there.
#[derive(serde::Deserialize)]
struct Line {
    step: u64,
    domain: String,
    loss: Option<f64>,
    lr: Option<f64>,
    seconds_per_step: Option<f64>,
    gpu_idle: Option<f64>,
    skipped: Option<u64>,
    validation: Option<Validation>,
}

#[derive(serde::Deserialize)]
struct Validation {
    #[serde(default)]
    dice: BTreeMap<String, Option<f64>>,
    mean: Option<f64>,
    smoothed: Option<f64>,
}

/// The curves of a run's log, a domain each in the order in which they come; none where there is no log yet.
pub(super) fn read(folder: &Path) -> Result<Vec<Curves>> {
    let file = folder.join(LOG);
    if !file.exists() {
        return Ok(Vec::new());
    }
    Ok(of(&read_text(&file)?))
}

/// The curves of a log; lines of other kinds are left out.
pub(super) fn of(log: &str) -> Vec<Curves> {
    let mut all: Vec<Curves> = Vec::new();
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
        let index = all.iter().position(|curves| curves.name == line.domain);
        let index = index.unwrap_or_else(|| {
            all.push(Curves { name: line.domain.clone(), ..Curves::default() });
            all.len() - 1
        });
        all[index].add(line);
    }
    all
}

impl Curves {
    fn add(&mut self, line: Line) {
        let at = line.step as f64;
        let note = |curve: &mut Vec<Point>, value: Option<f64>| {
            let value = value.filter(|value| value.abs() <= LARGEST);
            curve.extend(value.map(|value| (at, value)));
        };
        let share = |value: Option<f64>| value.filter(|value| (0.0..=1.0).contains(value));
        note(&mut self.loss, line.loss);
        note(&mut self.rate, line.lr);
        note(&mut self.seconds, line.seconds_per_step);
        note(&mut self.idle, line.gpu_idle);
        self.skipped = self.skipped.max(line.skipped.unwrap_or(0));
        let Some(validation) = line.validation else { return };
        note(&mut self.dice, share(validation.mean));
        note(&mut self.smoothed, share(validation.smoothed));
        for (class, dice) in validation.dice {
            note(self.classes.entry(class).or_default(), share(dice));
        }
    }

    /// The last step that it tells of.
    pub fn last_step(&self) -> f64 {
        let curves = [&self.loss, &self.rate, &self.dice, &self.smoothed];
        curves.into_iter().flatten().map(|point| point.0).fold(0.0, f64::max)
    }
}

/// Exponential means, over more readings the more there are.
pub(super) fn smooth(points: &[Point]) -> Vec<Point> {
    let weight = 1.0 / (1.0 + points.len() as f64 / 20.0);
    let mut mean: Option<f64> = None;
    let smoothed = points.iter().map(|(step, value)| {
        let now = mean.map_or(*value, |mean| mean + weight * (value - mean));
        mean = Some(now);
        (*step, now)
    });
    smoothed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kinds_are_read_and_others_left_out() {
        let log = r#"{"step":1,"domain":"a","loss":0.5,"lr":0.1,"seconds_per_step":2.0,"gpu_idle":0.25,"skipped":0}
{"step":2,"domain":"b","loss":null,"lr":0.1,"skipped":3}
{"step":2,"domain":"a","validation":{"dice":{"left":0.5,"right":null},"mean":0.5,"smoothed":0.4}}
{"step":3,"note":"of another kind"}
{"step":4,"domain":"a","loss":1e300,"validation":{"mean":7}}
half a li"#;
        let all = of(log);
        let [a, b] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
        assert_eq!((&a.loss, &a.rate), (&vec![(1.0, 0.5)], &vec![(1.0, 0.1)]));
        assert_eq!((&a.dice, &a.smoothed), (&vec![(2.0, 0.5)], &vec![(2.0, 0.4)]));
        assert_eq!(a.classes["left"], [(2.0, 0.5)]);
        assert_eq!((a.seconds[0].1, a.idle[0].1, a.last_step()), (2.0, 0.25, 2.0));
        assert!(b.loss.is_empty());
        assert_eq!((b.rate.len(), b.skipped), (1, 3));
    }
}
