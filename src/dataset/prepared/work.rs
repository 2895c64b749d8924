//! Cases read or prepared by several threads, as many at once as a budget of memory allows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use crate::base::{Error, Result, host, locked};

/// What is done with cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Read, to know shapes, spacings and intensities.
    Reading,
    /// Cropped, resampled, normalised and kept.
    Preparing,
}

/// How far the work on the cases of a dataset is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What is done.
    pub stage: Stage,
    /// Name of the dataset.
    pub dataset: String,
    /// Cases that are done.
    pub done: usize,
    /// Cases that there is work on; those that were kept are not among them.
    pub total: usize,
    /// Share of the work that is done, by size of the cases, from 0 to 1.
    pub share: f64,
    /// Since the work began.
    pub seconds: f64,
}

impl Progress {
    /// Seconds that the rest will take, as the work went so far; none before anything is done.
    pub fn remaining(&self) -> Option<f64> {
        (self.share > 0.0).then(|| self.seconds * (1.0 - self.share) / self.share)
    }
}

/// Is told of progress; an error ends the work and is given back.
pub type Tell<'a> = dyn FnMut(&Progress) -> Result<()> + 'a;

/// Memory that is left.
pub(super) struct Budget {
    bytes: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// A part of a budget, given back when it is dropped.
pub(super) struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Half of the memory that no program uses.
    pub fn of_machine() -> Self {
        let free = host::free_memory();
        Self::new(if free > 0 { free / 2 } else { UNTOLD })
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn used(&self) -> MutexGuard<'_, u64> {
        locked(&self.used)
    }

    /// Waits until so many bytes are left; more than there are at all are given once nobody has any.
    pub fn take(&self, bytes: u64) -> Share<'_> {
        let fits = |used: &mut u64| *used > 0 && *used + bytes > self.bytes;
        let waited = self.freed.wait_while(self.used(), fits);
        *waited.unwrap_or_else(PoisonError::into_inner) += bytes;
        Share { budget: self, bytes }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.budget.used() -= self.bytes;
        self.budget.freed.notify_all();
    }
}

/// A budget where the system does not say how much memory is free.
const UNTOLD: u64 = 4 << 30;

/// Work on one case.
pub(super) struct Job<T> {
    /// Bytes of memory that it takes, about.
    pub bytes: u64,
    pub work: T,
}

/// Work on the cases of a dataset.
pub(super) struct Jobs<'a, T> {
    pub stage: Stage,
    pub dataset: &'a str,
    pub jobs: Vec<Job<T>>,
}

impl<T: Sync> Jobs<'_, T> {
    /// Does the work on one thread more than there are cores, as there is always one that waits for the disk; results are in
    /// the order of the jobs. The caller's thread tells of progress meanwhile.
    ///
    /// # Errors
    ///
    /// The first failure, after which nothing more is begun; what `tell` gives.
    pub fn run<R: Send>(
        &self,
        budget: &Budget,
        tell: &mut Tell<'_>,
        each: impl Fn(&T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let Self { stage, dataset, jobs } = self;
        let start = Instant::now();
        let all: u64 = jobs.iter().map(|job| job.bytes.max(1)).sum();
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let work = |sender: mpsc::Sender<(usize, Result<R>)>| {
            while !stopped.load(Ordering::Relaxed)
                && let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(job) = jobs.get(index)
            {
                let _share = budget.take(job.bytes);
                let done = each(&job.work);
                stopped.fetch_or(done.is_err(), Ordering::Relaxed);
                // nobody listens any more where telling failed
                sender.send((index, done)).ok();
            }
        };
        let mut results: Vec<Option<R>> = jobs.iter().map(|_| None).collect();
        std::thread::scope(|scope| {
            let threads = (rayon::current_num_threads() + 1).min(jobs.len());
            for _ in 0..threads {
                let sender = sender.clone();
                scope.spawn(|| work(sender));
            }
            drop(sender);
            let (mut done, mut bytes) = (0, 0);
            let mut progress = |index: Option<usize>| {
                done += usize::from(index.is_some());
                bytes += index.map_or(0, |index| jobs[index].bytes.max(1));
                let seconds = start.elapsed().as_secs_f64();
                let share = bytes as f64 / all.max(1) as f64;
                let dataset = dataset.to_string();
                tell(&Progress { stage: *stage, dataset, done, total: jobs.len(), share, seconds })
            };
            let mut outcome = if jobs.is_empty() { Ok(()) } else { progress(None) };
            stopped.fetch_or(outcome.is_err(), Ordering::Relaxed);
            for (index, result) in receiver {
                let told = result.and_then(|result| {
                    results[index] = Some(result);
                    if outcome.is_ok() { progress(Some(index)) } else { Ok(()) }
                });
                stopped.fetch_or(told.is_err(), Ordering::Relaxed);
                outcome = outcome.and(told);
            }
            outcome
        })?;
        let results: Option<Vec<R>> = results.into_iter().collect();
        results.ok_or_else(|| Error::Internal("a case that nobody worked on".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(count: usize) -> Jobs<'static, usize> {
        let jobs = (0..count).map(|work| Job { bytes: 10, work }).collect();
        Jobs { stage: Stage::Reading, dataset: "A", jobs }
    }

    #[test]
    fn results_are_in_order_and_progress_ends_at_all() {
        let mut told = Vec::new();
        let mut tell = |progress: &Progress| {
            told.push((progress.done, progress.share));
            Ok(())
        };
        let squares = jobs(50).run(&Budget::new(25), &mut tell, |n| Ok(n * n)).unwrap();
        assert_eq!(squares, (0..50).map(|n| n * n).collect::<Vec<_>>());
        assert_eq!((told.len(), told[0], told[50]), (51, (0, 0.0), (50, 1.0)));
        let none = jobs(0).run(&Budget::new(1), &mut |_| Ok(()), |n| Ok(*n)).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn memory_bounds_how_many_run_and_the_largest_runs_alone() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let budget = Budget::new(15);
        std::thread::scope(|scope| {
            for bytes in [10, 10, 100, 5, 10] {
                let (budget, running, most) = (&budget, &running, &most);
                scope.spawn(move || {
                    let _share = budget.take(bytes);
                    let sum = running.fetch_add(bytes as usize, Ordering::SeqCst) + bytes as usize;
                    assert!(sum <= 15 || sum == 100, "{sum}");
                    most.fetch_max(sum, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    running.fetch_sub(bytes as usize, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 100);
        assert_eq!(*budget.used(), 0);
    }

    #[test]
    fn a_failure_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let fail = |n: &usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            match n {
                3 => Err(Error::Internal("three".into())),
                _ => Ok(()),
            }
        };
        let error = jobs(10_000).run(&Budget::new(10), &mut |_| Ok(()), fail).unwrap_err();
        assert!(error.to_string().contains("three"));
        assert!(begun.load(Ordering::SeqCst) < 10_000);
        let mut stop = |progress: &Progress| match progress.done {
            5 => Err(Error::Internal("enough".into())),
            _ => Ok(()),
        };
        let error = jobs(10_000).run(&Budget::new(100), &mut stop, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("enough"));
    }
}
