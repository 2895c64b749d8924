//! Which domain a step trains.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand::RngExt;

use crate::base::{Error, Result, locked};
use crate::patch::rng_for;

/// How domains share the steps.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainSampling {
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

impl std::str::FromStr for DomainSampling {
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

impl DomainSampling {
    /// Refuses numbers that do not fit the domains.
    pub(super) fn check(&self, domains: usize) -> Result<()> {
        let usable = |weight: &f64| weight.is_finite() && *weight > 0.0;
        match self {
            Self::Weights(weights) if !weights.iter().all(usable) => Err(Error::setting(
                "schedule",
                format!("{weights:?}"),
                "numbers above 0",
                "Correct the numbers.",
            )),
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

/// Steps after which losses count for the choice.
const PERIOD: u64 = 50;
/// Least share of the largest weight: no domain is forgotten.
const FLOOR: f64 = 0.05;
/// Apart from the streams that draw patches.
const STREAM: u64 = u64::MAX - 1;

/// Losses by period, from which steps two periods later are chosen: batches are drawn ahead, and a resumed run repeats the
/// choice.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossHistory {
    /// Last known loss of each domain at the end of a period.
    known: BTreeMap<u64, Vec<f64>>,
    /// Sum and number of readings of each domain in the current period.
    current: Vec<(f64, u32)>,
}

impl LossHistory {
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

/// Chooses a domain for each step; shared by the trainer and the thread that draws batches.
#[derive(Debug, Clone)]
pub struct DomainSampler {
    sampling: DomainSampling,
    seed: u64,
    /// Training cases of each domain.
    cases: Vec<usize>,
    history: Arc<Mutex<LossHistory>>,
}

impl DomainSampler {
    /// `cases` counts the training cases of each domain; `history` is that of a run that goes on.
    pub fn new(
        sampling: &DomainSampling,
        seed: u64,
        cases: Vec<usize>,
        history: LossHistory,
    ) -> Self {
        Self { sampling: sampling.clone(), seed, cases, history: Arc::new(Mutex::new(history)) }
    }

    /// To be called after every step (from 0), with a domain's loss where it was read.
    pub fn report(&self, step: u64, reading: Option<(usize, f64)>) {
        let mut losses = locked(&self.history);
        losses.add(step, reading, self.cases.len());
    }

    /// For the checkpoint.
    pub fn history(&self) -> LossHistory {
        locked(&self.history).clone()
    }

    /// The domain of a step, from 0.
    pub fn domain(&self, step: u64) -> usize {
        let turns = (step % self.cases.len() as u64) as usize;
        let weights: Vec<f64> = match &self.sampling {
            DomainSampling::Turns => return turns,
            DomainSampling::Size => self.cases.iter().map(|n| *n as f64).collect(),
            DomainSampling::Weights(weights) => weights.clone(),
            DomainSampling::Loss => {
                let losses = locked(&self.history);
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

    fn shares(sampler: &DomainSampler, steps: std::ops::Range<u64>) -> Vec<f64> {
        let mut counts = vec![0.0; sampler.cases.len()];
        let length = (steps.end - steps.start) as f64;
        steps.for_each(|step| counts[sampler.domain(step)] += 1.0 / length);
        counts
    }

    #[test]
    fn domains_come_in_turns_or_in_proportion() {
        let of = |text: &str| {
            DomainSampler::new(&text.parse().unwrap(), 1, vec![30, 10], LossHistory::default())
        };
        assert_eq!((0..4).map(|s| of("turns").domain(s)).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!((shares(&of("size"), 0..4000)[0] - 0.75).abs() < 0.03);
        assert!((shares(&of("1,4"), 0..4000)[1] - 0.8).abs() < 0.03);
        assert!(
            "1,-1".parse::<DomainSampling>().is_err() && "often".parse::<DomainSampling>().is_err()
        );
        assert!(DomainSampling::Weights(vec![1.0]).check(2).is_err());
    }

    #[test]
    fn the_worse_domain_gets_more_steps_and_the_choice_survives_a_restart() {
        let sampler =
            DomainSampler::new(&DomainSampling::Loss, 1, vec![1, 1], LossHistory::default());
        let mut first = Vec::new();
        for step in 0..400 {
            let domain = sampler.domain(step);
            first.push(domain);
            sampler.report(step, Some((domain, if domain == 0 { 0.9 } else { 0.1 })));
            if step == 173 {
                let saved = serde_json::to_string(&sampler.history()).unwrap();
                let losses = serde_json::from_str(&saved).unwrap();
                let again = DomainSampler::new(&DomainSampling::Loss, 1, vec![1, 1], losses);
                assert_eq!(again.history(), sampler.history());
                assert_eq!(again.domain(174), sampler.domain(174));
            }
        }
        let share = first[100..].iter().filter(|d| **d == 0).count() as f64 / 300.0;
        assert!((share - 0.9).abs() < 0.06, "{share}");
    }

    #[test]
    fn a_choice_does_not_depend_on_losses_of_the_last_steps() {
        // batches are drawn a few steps ahead of the trainer
        let sampler =
            DomainSampler::new(&DomainSampling::Loss, 1, vec![1, 1], LossHistory::default());
        (0..100).for_each(|step| sampler.report(step, Some((0, 1.0))));
        let ahead: Vec<usize> = (100..140).map(|step| sampler.domain(step)).collect();
        (100..140).for_each(|step| sampler.report(step, Some((1, 9.0))));
        assert_eq!(ahead, (100..140).map(|step| sampler.domain(step)).collect::<Vec<_>>());
    }
}
