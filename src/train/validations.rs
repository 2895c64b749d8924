//! When held-out patches are scored while a run trains, and which weights were the best so far. All of it is part of a checkpoint.

use super::config::{Length, RunConfig};
use super::held_out::PatchScores;

/// Share of the time that validation may take.
const SHARE: f64 = 0.05;
/// What the network alone takes of a step, about, on the safe side: a third of its arithmetic, and reading the patches.
const FORWARD: f64 = 0.5;
/// Validations of a run of so many steps, at most.
const PARTS: u64 = 50;
/// Of a run of so many minutes, and seconds from one to the next at most.
const PARTS_OF_MINUTES: f64 = 20.0;
const LONGEST: f64 = 180.0;
/// Steps after which the pace is known.
const PACE: u64 = 10;
/// What a new score counts in the smoothed mean.
const NEW: f64 = 0.3;

/// The best weights so far.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Best {
    /// Steps that they had.
    pub step: u64,
    /// Mean over the domains of their smoothed pseudo-Dice.
    pub score: f64,
}

/// Past and coming validations.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Validations {
    /// Steps from one to the next; 0 as long as the pace is not known.
    interval: u64,
    /// Step of the next one.
    next: u64,
    /// Smoothed mean of each domain that has held-out patches.
    smoothed: Vec<Option<f64>>,
    /// The best weights.
    pub best: Option<Best>,
}

/// Where a training stands, in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Steps done.
    pub step: u64,
    /// Steps of this start.
    pub here: u64,
    /// Seconds so far, and of this start.
    pub seconds: f64,
    pub seconds_here: f64,
    /// Of all of them what validation took.
    pub validating: f64,
}

impl Validations {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is one after this step.
    pub fn is_due(&self, step: u64) -> bool {
        self.next > 0 && self.next == step
    }

    /// Decides how often there are validations of so many batches, as soon as that can be told. It is not decided again.
    pub fn begin(&mut self, config: &RunConfig, batches: usize, pace: &Pace) {
        let every = config.validation.as_ref().and_then(|validation| validation.every);
        if self.interval > 0 || batches == 0 {
            return;
        }
        let least = (batches as f64 * FORWARD / SHARE).ceil() as u64;
        self.interval = match (every, config.length) {
            (Some(every), _) => every,
            // the same in every run on these settings, however fast
            (None, Length::Steps(steps)) => least.max(steps / PARTS),
            (None, Length::Minutes(_)) if pace.here < PACE => return,
            (None, Length::Minutes(minutes)) => {
                let pause = (minutes * 60.0 / PARTS_OF_MINUTES).min(LONGEST);
                let step = pace.seconds_here / pace.here as f64;
                least.max((pause / step.max(f64::EPSILON)) as u64)
            }
        };
        self.next = pace.step / self.interval * self.interval + self.interval;
    }

    /// Takes in the scores of a validation, which get their smoothed means; whether the weights are the best so far.
    pub fn take(&mut self, step: u64, scores: &mut [PatchScores]) -> bool {
        self.smoothed.resize(scores.len(), None);
        for (smoothed, scores) in self.smoothed.iter_mut().zip(scores) {
            let mean = scores
                .mean
                .map(|mean| smoothed.map_or(mean, |smoothed| smoothed + NEW * (mean - smoothed)));
            *smoothed = mean.or(*smoothed);
            scores.smoothed = *smoothed;
        }
        let known: Vec<f64> = self.smoothed.iter().flatten().copied().collect();
        if known.is_empty() {
            return false;
        }
        let score = known.iter().sum::<f64>() / known.len() as f64;
        let better = self.best.is_none_or(|best| score > best.score);
        if better {
            self.best = Some(Best { step, score });
        }
        better
    }

    /// Says when the next one is: after the interval, or later where validation took more than its share of the time so far. What
    /// the user fixed stays.
    pub fn go_on(&mut self, config: &RunConfig, pace: &Pace) {
        let Pace { step, seconds, validating, .. } = *pace;
        let fixed = config.validation.as_ref().is_some_and(|v| v.every.is_some());
        let late = validating / SHARE - seconds;
        let training = (seconds - validating) / step.max(1) as f64;
        let mut wait = self.interval;
        if late > 0.0 && training > 0.0 && !fixed {
            wait = wait.max((late / training).ceil() as u64);
            log::debug!(
                "validation took {validating:.1} of {seconds:.1} s; the next is in {wait} steps"
            );
        }
        self.next = step + wait;
    }

    /// What is wrong with them in a checkpoint.
    pub fn fault(&self) -> Option<String> {
        let scores = self.smoothed.iter().flatten().copied().chain(self.best.map(|b| b.score));
        let bad = scores.into_iter().find(|score| !(0.0..=1.0).contains(score));
        bad.map(|score| format!("a pseudo-Dice of {score}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Validation;
    use super::*;

    fn pace(step: u64, seconds: f64, validating: f64) -> Pace {
        Pace { step, here: step, seconds, seconds_here: seconds, validating }
    }

    fn config(length: Length, every: Option<u64>) -> RunConfig {
        let validation = Some(Validation { every, ..Validation::default() });
        RunConfig { length, validation, ..RunConfig::new(vec!["a".into()]) }
    }

    fn began(config: &RunConfig, batches: usize, at: &Pace) -> (u64, u64) {
        let mut validations = Validations::default();
        validations.begin(config, batches, at);
        (validations.interval, validations.next)
    }

    #[test]
    fn steps_say_when_and_minutes_once_the_pace_is_known() {
        let steps = |steps| config(Length::Steps(steps), None);
        // twelve batches take six steps, of 120
        assert_eq!(began(&steps(1000), 12, &pace(1, 9.0, 0.0)), (120, 120));
        assert_eq!(began(&steps(50_000), 12, &pace(1, 9.0, 0.0)), (1000, 1000));
        assert_eq!(began(&steps(1000), 0, &pace(1, 9.0, 0.0)), (0, 0));
        let minutes = config(Length::Minutes(30.0), None);
        assert_eq!(began(&minutes, 12, &pace(9, 2.0, 0.0)), (0, 0));
        assert_eq!(began(&minutes, 12, &pace(10, 2.0, 0.0)), (450, 450));
        assert_eq!(began(&minutes, 12, &pace(10, 60.0, 0.0)), (120, 120));
        let fixed = config(Length::Minutes(30.0), Some(7));
        assert_eq!(began(&fixed, 12, &pace(1, 2.0, 0.0)), (7, 7));
        assert_eq!(began(&fixed, 12, &pace(15, 2.0, 0.0)), (7, 21));
    }

    #[test]
    fn the_interval_stretches_where_validation_takes_too_long() {
        let auto = config(Length::Steps(1000), None);
        let mut validations = Validations { interval: 100, next: 100, ..Validations::default() };
        // 5 of 100 seconds are its share
        validations.go_on(&auto, &pace(100, 105.0, 5.0));
        assert_eq!(validations.next, 200);
        // 20 s are that of 400: 300 s more, of steps of a second
        validations.go_on(&auto, &pace(100, 120.0, 20.0));
        assert_eq!(validations.next, 380);
        validations.go_on(&config(Length::Steps(1000), Some(100)), &pace(100, 120.0, 20.0));
        assert_eq!(validations.next, 200);
        assert!(validations.is_due(200) && !validations.is_due(100));
    }

    #[test]
    fn the_best_has_the_highest_smoothed_mean_over_the_domains() {
        let scores = |means: [Option<f64>; 2]| {
            means.map(|mean| PatchScores {
                domain: "a".into(),
                dice: Vec::new(),
                mean,
                smoothed: None,
            })
        };
        let mut validations = Validations::default();
        assert!(!validations.take(5, &mut scores([None, None])));
        assert!(validations.take(10, &mut scores([Some(0.5), None])));
        let mut second = scores([Some(0.6), Some(0.7)]);
        assert!(validations.take(20, &mut second));
        assert_eq!(second.map(|s| s.smoothed.unwrap()), [0.53, 0.7]);
        // a lucky one alone does not make the best
        assert!(!validations.take(30, &mut scores([Some(0.6), Some(0.3)])));
        assert_eq!(validations.best.unwrap().step, 20);
        let text = serde_json::to_string(&validations).unwrap();
        assert_eq!(serde_json::from_str::<Validations>(&text).unwrap(), validations);
        validations.smoothed[0] = Some(f64::NAN);
        assert!(validations.fault().is_some());
    }
}
