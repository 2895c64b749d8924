//! How fast an adapter works, as measured, and how much work a submission may hold so that no watchdog strikes.

use std::sync::Mutex;
use std::time::Instant;

use crate::base::locked;

/// Seconds that a submission should take at the measured pace. Watchdogs strike after two seconds or more; kernels may be several
/// times slower than the mean.
const AIM: f64 = 0.125;

/// The work that a submission may hold.
pub(super) struct Pace {
    most: u64,
    state: Mutex<State>,
}

struct State {
    budget: u64,
    /// Submissions that were done since the device was last asked: their work, and when the first was submitted.
    done: Done,
    /// When submissions were last known to be done.
    since: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Done {
    work: u64,
    largest: u64,
    begun: Option<Instant>,
}

impl Pace {
    /// Nothing is measured yet: a tenth of what an adapter of this kind is given at most.
    pub fn new(software: bool) -> Self {
        let most = if software { 4_000_000_000 } else { 200_000_000_000 };
        let state = State { budget: most / 10, done: Done::default(), since: None };
        Self { most, state: Mutex::new(state) }
    }

    /// Work that a submission may hold.
    pub fn budget(&self) -> u64 {
        locked(&self.state).budget
    }

    /// A submission is done.
    pub fn done(&self, work: u64, begun: Instant) {
        let mut state = locked(&self.state);
        let Done { work: before, largest, begun: first } = state.done;
        let begun = Some(first.unwrap_or(begun));
        state.done = Done { work: before + work, largest: largest.max(work), begun };
    }

    /// The device was asked: takes in what was done till `now`. Submissions that hold little say nothing. A slower pace counts at
    /// once; a faster one doubles the budget at most.
    pub fn settle(&self, now: Instant) {
        let mut state = locked(&self.state);
        let Done { work, largest, begun } = std::mem::take(&mut state.done);
        let Some(begun) = begun else { return };
        // they wait for those before them
        let begun = state.since.map_or(begun, |since| since.max(begun));
        state.since = Some(now);
        if largest < state.budget / 2 {
            return;
        }
        let seconds = now.saturating_duration_since(begun).as_secs_f64().max(1e-6);
        let budget = (work as f64 / seconds * AIM) as u64;
        let next = budget.clamp(1, self.most).min(state.budget.saturating_mul(2));
        if next < state.budget / 2 || next >= state.budget.saturating_mul(2) {
            log::debug!("submissions of {next} operations, {seconds:.3} s for {work}");
        }
        state.budget = next;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn submissions_follow_the_pace() {
        let pace = Pace::new(false);
        let mut now = Instant::now();
        let mut submit = |count: u64, operations_a_second: f64| {
            let (begun, work) = (now, pace.budget());
            (0..count).for_each(|_| pace.done(work, begun));
            let seconds = (count * work) as f64 / operations_a_second;
            now += Duration::from_secs_f64(seconds);
            pace.settle(now);
            work as f64 / operations_a_second
        };
        // a GPU of 2 TFLOPS gets there in some submissions, none of which takes half a second, however many are under way
        let seconds: Vec<f64> = (0..10).map(|n| submit(1 + n % 3, 2e12)).collect();
        assert!(seconds.iter().all(|s| *s < 0.5), "{seconds:?}");
        assert!((0.09..=0.126).contains(&seconds[9]), "{seconds:?}");
        // a slow one is known after the first
        let first = submit(1, 2e10);
        assert!(first > 0.5);
        let seconds: Vec<f64> = (0..10).map(|_| submit(2, 2e10)).collect();
        assert!(seconds.iter().all(|s| (0.12..0.13).contains(s)), "{seconds:?}");
        // as large as ever
        let last = (0..20).map(|_| submit(1, 1e14)).last();
        assert_eq!(last, Some(2e-3));
        assert_eq!(pace.budget(), 200_000_000_000);
    }

    #[test]
    fn little_work_says_nothing() {
        let pace = Pace::new(true);
        let (before, now) = (pace.budget(), Instant::now());
        pace.done(before / 3, now);
        pace.settle(now + Duration::from_secs(9));
        pace.settle(now + Duration::from_secs(10));
        assert_eq!(pace.budget(), before);
    }
}
