//! Work done on several threads, whose results are taken in order.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::base::{Error, Result, locked};

/// An item, and where its result goes.
type Job<I, T> = (I, Sender<T>);

/// Items beyond those that threads are at whose results may wait for an earlier one.
const WAITING: usize = 4;

/// Calls `make` with each item, on so many threads, and `take` with the results, in the order of the items. The first error of
/// `take` ends it.
pub fn in_order<I: Send, T: Send>(
    items: impl Iterator<Item = I>,
    threads: usize,
    make: impl Fn(I) -> T + Sync,
    take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let (jobs, queue) = channel();
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| work(&queue, &make));
        }
        // which it closes at its end, and so the threads'
        feed(items, jobs, threads.max(1) * WAITING, take)
    })
}

fn work<I, T>(queue: &Mutex<Receiver<Job<I, T>>>, make: &impl Fn(I) -> T) {
    // locked only while it waits for an item
    let next = || locked(queue).recv().ok();
    while let Some((item, sender)) = next() {
        // nobody takes the result where an earlier one ended it all
        sender.send(make(item)).ok();
    }
}

fn feed<I, T>(
    items: impl Iterator<Item = I>,
    jobs: Sender<Job<I, T>>,
    ahead: usize,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let ended = || Error::Internal("a thread ended before its work".into());
    let mut coming: VecDeque<Receiver<T>> = VecDeque::new();
    let mut oldest = |coming: &mut VecDeque<Receiver<T>>| match coming.pop_front() {
        Some(result) => take(result.recv().map_err(|_| ended())?),
        None => Ok(()),
    };
    for item in items {
        let (sender, result) = channel();
        jobs.send((item, sender)).map_err(|_| ended())?;
        coming.push_back(result);
        if coming.len() > ahead {
            oldest(&mut coming)?;
        }
    }
    while !coming.is_empty() {
        oldest(&mut coming)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Later items are done first, and none is begun long before its result is taken.
    #[test]
    fn results_come_in_order() {
        let (begun, mut taken) = (AtomicUsize::new(0), Vec::new());
        let make = |item: usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(10 * (item as u64 + 1) % 4));
            item * item
        };
        in_order(0..50, 4, make, |square| {
            assert!(begun.load(Ordering::Relaxed) <= taken.len() + 4 * WAITING + 1);
            taken.push(square);
            Ok(())
        })
        .unwrap();
        assert!(taken.iter().copied().eq((0..50).map(|item| item * item)));
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut taken = 0;
        let outcome = in_order(
            0..,
            3,
            |item: u64| item,
            |item| {
                taken += 1;
                if item < 5 { Ok(()) } else { Err(Error::Internal("enough".into())) }
            },
        );
        assert!(outcome.is_err());
        assert_eq!(taken, 6);
    }
}
