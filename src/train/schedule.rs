//! Which domain a step trains, and how fast.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;

use crate::patch::rng_for;
use crate::{Error, Result};

/// How domains share the steps.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// One step each, in order.
    #[default]
    Turns,
    /// At random, in proportion to the number of training cases.
    Size,
    /// At random, in proportion to the loss a while ago.
    Loss,
    /// At random, in proportion to these numbers.
    Weights(Vec<f64>),
}

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "turns" => Ok(Self::Turns),
            "size" => Ok(Self::Size),
            "loss" => Ok(Self::Loss),
            _ => {
                let numbers: Option<Vec<f64>> =
                    text.split(',').map(|part| part.trim().parse().ok()).collect();
                let good = |w: &Vec<f64>| w.iter().all(|v| v.is_finite() && *v > 0.0);
                numbers.filter(good).map(Self::Weights).ok_or_else(|| {
                    format!(
                        "expected turns, size, loss or numbers above 0 such as 2,1,1, found {text}"
                    )
                })
            }
        }
    }
}

impl Schedule {
    /// Refuses numbers that do not fit the domains.
    pub(super) fn check(&self, domains: usize) -> Result<()> {
        match self {
            Self::Weights(weights) if weights.len() != domains => Err(Error::setting(
                "schedule",
                format!("{} numbers", weights.len()),
                format!("{domains}, one a domain"),
                "Give a number for each dataset, in their order.",
            )),
            _ => Ok(()),
        }
    }
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Rate {
    /// As (1 − progress)^0.9.
    #[default]
    Polynomial,
    /// By `factor` after each epoch of `epoch` steps at whose end the mean loss of the last `window` epochs is not at least
    /// `improvement` below what it was an epoch before; training ends under the rate `least`.
    Plateau { epoch: u64, window: usize, improvement: f64, factor: f64, least: f64 },
}

impl Rate {
    /// The published rule.
    pub fn plateau(epoch: u64) -> Self {
        Self::Plateau { epoch, window: 20, improvement: 1e-4, factor: 0.5, least: 1e-8 }
    }

    pub(super) fn good(&self) -> bool {
        match self {
            Self::Polynomial => true,
            Self::Plateau { epoch, window, improvement, factor, least } => {
                *epoch > 0
                    && *window > 0
                    && improvement.is_finite()
                    && (0.0..1.0).contains(factor)
                    && least.is_finite()
            }
        }
    }

    /// Whether the losses up to this step (from 1) decide on the next one's rate.
    pub(super) fn changes(&self, step: u64) -> bool {
        match self {
            Self::Polynomial => false,
            Self::Plateau { epoch, .. } => step.is_multiple_of(*epoch),
        }
    }

    /// The learning rate at a share of the run; none where training ends.
    pub(super) fn at(&self, start: f64, progress: f64, falls: &Falls) -> Option<f64> {
        match self {
            Self::Polynomial => Some(start * (1.0 - progress.clamp(0.0, 1.0)).powf(0.9)),
            Self::Plateau { factor, least, .. } => {
                Some(start * factor.powi(falls.count)).filter(|rate| rate >= least)
            }
        }
    }
}

/// What the plateau rule knows; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Falls {
    /// How often the rate fell.
    count: i32,
    /// Sum and number of the readings in this epoch.
    current: (f64, u32),
    /// Mean losses of the last epochs.
    epochs: VecDeque<f64>,
    /// Mean over a whole window, at the end of the epoch before.
    before: Option<f64>,
}

impl Falls {
    /// Ends `step` (from 0), with its loss where it was read.
    pub fn add(&mut self, rule: &Rate, step: u64, reading: Option<f64>) {
        let Rate::Plateau { epoch, window, improvement, .. } = *rule else { return };
        if let Some(loss) = reading.filter(|loss| loss.is_finite()) {
            self.current = (self.current.0 + loss, self.current.1 + 1);
        }
        if !(step + 1).is_multiple_of(epoch) || self.current.1 == 0 {
            return;
        }
        self.epochs.push_back(self.current.0 / f64::from(self.current.1));
        self.current = (0.0, 0);
        while self.epochs.len() > window {
            self.epochs.pop_front();
        }
        if self.epochs.len() == window {
            let mean = self.epochs.iter().sum::<f64>() / window as f64;
            if self.before.is_some_and(|before| before - mean < improvement) {
                self.count += 1;
            }
            self.before = Some(mean);
        }
    }
}

/// Steps after which losses count for the choice.
const PERIOD: u64 = 50;
/// Least share of the largest weight: no domain is forgotten.
const FLOOR: f64 = 0.05;
/// Apart from the streams that draw patches.
const STREAM: u64 = u64::MAX - 1;

/// Losses by period, from which steps two periods later are chosen: batches are cut ahead, and a resumed run repeats the choice.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Losses {
    /// Last known loss of each domain at the end of a period.
    known: BTreeMap<u64, Vec<f64>>,
    /// Sum and number of readings of each domain in the current period.
    current: Vec<(f64, u32)>,
}

impl Losses {
    /// Ends `step` (from 0), with a domain's loss where it was read.
    fn add(&mut self, step: u64, reading: Option<(usize, f64)>, domains: usize) {
        self.current.resize(domains, (0.0, 0));
        if let Some((domain, loss)) = reading.filter(|(_, loss)| loss.is_finite()) {
            let (sum, count) = self.current[domain];
            self.current[domain] = (sum + loss, count + 1);
        }
        if (step + 1).is_multiple_of(PERIOD) {
            let period = step / PERIOD;
            let last = self.known.values().next_back().cloned().unwrap_or(vec![1.0; domains]);
            let now = self.current.iter().zip(last);
            let now = now.map(|((sum, n), old)| if *n > 0 { sum / f64::from(*n) } else { old });
            self.known.insert(period, now.collect());
            self.known.retain(|p, _| p + 2 > period);
            self.current.clear();
        }
    }
}

/// Chooses a domain for each step; shared by the trainer and the thread that cuts batches.
#[derive(Debug, Clone)]
pub struct Chooser {
    schedule: Schedule,
    seed: u64,
    /// Training cases of each domain.
    cases: Vec<usize>,
    losses: Arc<Mutex<Losses>>,
}

impl Chooser {
    /// `cases` counts the training cases of each domain; `losses` are those of a run that goes on.
    pub fn new(schedule: &Schedule, seed: u64, cases: Vec<usize>, losses: Losses) -> Self {
        Self { schedule: schedule.clone(), seed, cases, losses: Arc::new(Mutex::new(losses)) }
    }

    /// To be called after every step (from 0), with a domain's loss where it was read.
    pub fn report(&self, step: u64, reading: Option<(usize, f64)>) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.add(step, reading, self.cases.len());
    }

    /// For the checkpoint.
    pub fn losses(&self) -> Losses {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The domain of a step, from 0.
    pub fn domain(&self, step: u64) -> usize {
        let turns = (step % self.cases.len() as u64) as usize;
        let weights: Vec<f64> = match &self.schedule {
            Schedule::Turns => return turns,
            Schedule::Size => self.cases.iter().map(|n| *n as f64).collect(),
            Schedule::Weights(weights) => weights.clone(),
            Schedule::Loss => {
                let losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
                let period = (step / PERIOD).checked_sub(2);
                let Some(known) = period.and_then(|p| losses.known.get(&p)) else { return turns };
                let largest = known.iter().copied().fold(0.0, f64::max);
                known.iter().map(|loss| loss.max(FLOOR * largest)).collect()
            }
        };
        draw(&weights, rng_for(self.seed, step, STREAM).random::<f64>())
    }
}

/// The index that a share (0 to 1) of the weights' sum falls on.
fn draw(weights: &[f64], share: f64) -> usize {
    let mut left = share * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index;
        }
    }
    weights.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(chooser: &Chooser, steps: std::ops::Range<u64>) -> Vec<f64> {
        let mut counts = vec![0.0; chooser.cases.len()];
        let length = (steps.end - steps.start) as f64;
        steps.for_each(|step| counts[chooser.domain(step)] += 1.0 / length);
        counts
    }

    #[test]
    fn the_rate_halves_on_a_plateau_until_training_ends() {
        let rule =
            Rate::Plateau { epoch: 3, window: 2, improvement: 1e-4, factor: 0.5, least: 1e-2 };
        let mut falls = Falls::default();
        let mut rates = Vec::new();
        // six epochs of falling losses, then none better
        for step in 0..60u64 {
            let loss = 1.0 - 0.1 * (step / 3).min(6) as f64;
            falls.add(&rule, step, step.is_multiple_of(2).then_some(loss));
            let saved = serde_json::to_string(&falls).unwrap();
            assert_eq!(serde_json::from_str::<Falls>(&saved).unwrap(), falls);
            rates.push(rule.at(0.1, 0.0, &falls));
        }
        // epoch 8 is the first whose window equals the one before
        let first = rates.iter().position(|rate| *rate != Some(0.1));
        assert_eq!(first, Some(9 * 3 - 1));
        assert_eq!(rates[9 * 3 - 1], Some(0.05));
        assert_eq!(rates[10 * 3 - 1], Some(0.025));
        assert_eq!(rates[12 * 3 - 1], None, "0.1 / 16 is below the least rate");
        assert_eq!(Rate::Polynomial.at(0.1, 0.0, &falls), Some(0.1));
    }

    #[test]
    fn domains_come_in_turns_or_in_proportion() {
        let of =
            |text: &str| Chooser::new(&text.parse().unwrap(), 1, vec![30, 10], Losses::default());
        assert_eq!((0..4).map(|s| of("turns").domain(s)).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!((shares(&of("size"), 0..4000)[0] - 0.75).abs() < 0.03);
        assert!((shares(&of("1,4"), 0..4000)[1] - 0.8).abs() < 0.03);
        assert!("1,-1".parse::<Schedule>().is_err() && "often".parse::<Schedule>().is_err());
        assert!(Schedule::Weights(vec![1.0]).check(2).is_err());
    }

    #[test]
    fn the_worse_domain_gets_more_steps_and_the_choice_survives_a_restart() {
        let chooser = Chooser::new(&Schedule::Loss, 1, vec![1, 1], Losses::default());
        let mut first = Vec::new();
        for step in 0..400 {
            let domain = chooser.domain(step);
            first.push(domain);
            chooser.report(step, Some((domain, if domain == 0 { 0.9 } else { 0.1 })));
            if step == 173 {
                let saved = serde_json::to_string(&chooser.losses()).unwrap();
                let losses = serde_json::from_str(&saved).unwrap();
                let again = Chooser::new(&Schedule::Loss, 1, vec![1, 1], losses);
                assert_eq!(again.losses(), chooser.losses());
                assert_eq!(again.domain(174), chooser.domain(174));
            }
        }
        let share = first[100..].iter().filter(|d| **d == 0).count() as f64 / 300.0;
        assert!((share - 0.9).abs() < 0.06, "{share}");
    }

    #[test]
    fn a_choice_does_not_depend_on_losses_of_the_last_steps() {
        // batches are cut a few steps ahead of the trainer
        let chooser = Chooser::new(&Schedule::Loss, 1, vec![1, 1], Losses::default());
        (0..100).for_each(|step| chooser.report(step, Some((0, 1.0))));
        let ahead: Vec<usize> = (100..140).map(|step| chooser.domain(step)).collect();
        (100..140).for_each(|step| chooser.report(step, Some((1, 9.0))));
        assert_eq!(ahead, (100..140).map(|step| chooser.domain(step)).collect::<Vec<_>>());
    }
}
