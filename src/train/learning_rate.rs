//! How fast a step learns.

use std::collections::VecDeque;

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum LrSchedule {
    /// As (1 − progress)^0.9.
    #[default]
    Polynomial,
    /// By `factor` after each epoch of `epoch` steps at whose end the mean loss of the last `window` epochs is not at least
    /// `improvement` below what it was an epoch before; training ends under the rate `least`.
    Plateau {
        /// Steps.
        epoch: u64,
        /// Epochs.
        window: usize,
        /// Of the mean loss.
        improvement: f64,
        /// Between 0 and 1.
        factor: f64,
        /// A learning rate.
        least: f64,
    },
}

impl LrSchedule {
    /// The published rule, for epochs of so many steps.
    pub fn plateau(epoch: u64) -> Self {
        Self::Plateau { epoch, window: 20, improvement: 1e-4, factor: 0.5, least: 1e-8 }
    }

    /// Whether the numbers make sense.
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
    pub(super) fn at(&self, start: f64, progress: f64, state: &LrState) -> Option<f64> {
        match self {
            Self::Polynomial => Some(start * (1.0 - progress.clamp(0.0, 1.0)).powf(0.9)),
            Self::Plateau { factor, least, .. } => {
                Some(start * factor.powi(state.count)).filter(|rate| rate >= least)
            }
        }
    }
}

/// What the plateau rule knows; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LrState {
    /// How often the rate fell.
    count: i32,
    /// Sum and number of the readings in this epoch.
    current: (f64, u32),
    /// Mean losses of the last epochs.
    epochs: VecDeque<f64>,
    /// Mean over a whole window, at the end of the epoch before.
    before: Option<f64>,
}

impl LrState {
    /// What is wrong with one that was read.
    pub(super) fn fault(&self) -> Option<String> {
        (self.count < 0).then(|| format!("a learning rate that fell {} times", self.count))
    }

    /// Ends `step` (from 0), with its loss where it was read.
    pub fn add(&mut self, schedule: &LrSchedule, step: u64, reading: Option<f64>) {
        let LrSchedule::Plateau { epoch, window, improvement, .. } = *schedule else { return };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_halves_on_a_plateau_until_training_ends() {
        let schedule = LrSchedule::Plateau {
            epoch: 3,
            window: 2,
            improvement: 1e-4,
            factor: 0.5,
            least: 1e-2,
        };
        let mut state = LrState::default();
        let mut rates = Vec::new();
        // six epochs of falling losses, then none better
        for step in 0..60u64 {
            let loss = 1.0 - 0.1 * (step / 3).min(6) as f64;
            state.add(&schedule, step, step.is_multiple_of(2).then_some(loss));
            let saved = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<LrState>(&saved).unwrap(), state);
            rates.push(schedule.at(0.1, 0.0, &state));
        }
        // epoch 8 is the first whose window equals the one before
        let first = rates.iter().position(|rate| *rate != Some(0.1));
        assert_eq!(first, Some(9 * 3 - 1));
        assert_eq!(rates[9 * 3 - 1], Some(0.05));
        assert_eq!(rates[10 * 3 - 1], Some(0.025));
        assert_eq!(rates[12 * 3 - 1], None, "0.1 / 16 is below the least rate");
        assert_eq!(LrSchedule::Polynomial.at(0.1, 0.0, &state), Some(0.1));
    }
}
