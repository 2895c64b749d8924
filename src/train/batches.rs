//! The patches of coming steps: drawn by one thread in the order of the steps, read from the disk by several, some steps ahead of
//! the trainer.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::cases::DomainCases;
use super::config::RunConfig;
use super::domain_sampling::DomainSampler;
use crate::base::{Error, Result, locked};
use crate::patch;
use crate::patch::{Cache, Sample, Wanted};

/// Steps that are read ahead, at most.
pub(super) const AHEAD: usize = 6;
/// Bytes of voxels that are read ahead, as soon as there are two steps.
pub(super) const AHEAD_BYTES: u64 = 256 << 20;

/// A step's input, drawn and read.
pub(super) struct Batch {
    pub domain: usize,
    pub samples: Vec<Sample>,
    /// Gives its memory back to what is read ahead.
    _room: Taken,
}

/// Memory for what is read ahead.
#[derive(Default)]
struct Room {
    ahead: Mutex<Ahead>,
    freed: Condvar,
}

/// What is read ahead.
#[derive(Default)]
struct Ahead {
    steps: usize,
    bytes: u64,
}

struct Taken {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    /// Waits until there is room for a step of so many bytes.
    fn take(self: &Arc<Self>, bytes: u64) -> Taken {
        let full = |ahead: &mut Ahead| ahead.steps >= 2 && ahead.bytes + bytes > AHEAD_BYTES;
        let waited = self.freed.wait_while(locked(&self.ahead), full);
        let mut ahead = waited.unwrap_or_else(PoisonError::into_inner);
        ahead.steps += 1;
        ahead.bytes += bytes;
        Taken { room: self.clone(), bytes }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut ahead = locked(&self.room.ahead);
        ahead.steps -= 1;
        ahead.bytes -= self.bytes;
        self.room.freed.notify_all();
    }
}

/// Steps to come. Once it is dropped, no thread of it holds the cases any more.
pub(super) struct Batches {
    // goes first, which ends the threads
    steps: Receiver<Receiver<Result<Batch>>>,
    _threads: Threads,
}

/// Waits at its end for the threads, each of which holds a sender as long as it holds cases: a process that ended before them would
/// leave what they were about to remove.
struct Threads(Receiver<()>);

impl Drop for Threads {
    fn drop(&mut self) {
        // nothing is sent
        self.0.recv().ok();
    }
}

/// Who draws.
struct Drawing {
    domains: Arc<Vec<DomainCases>>,
    config: RunConfig,
    sampler: DomainSampler,
    cache: Cache,
    room: Arc<Room>,
    readers: rayon::ThreadPool,
    // goes last
    alive: Sender<()>,
}

impl Drawing {
    /// Draws the samples of a step.
    fn draw(&mut self, domain: usize, step: u64) -> Result<Vec<Wanted>> {
        use rand::RngExt;
        let Self { domains, config, cache, .. } = self;
        let source = domains[domain].source();
        let count = domains[domain].domain.batch;
        let draw = |index: usize| -> Result<_> {
            let mut rng = patch::rng_for(config.seed, step, index as u64);
            let case = rng.random_range(0..source.cases.len());
            let focus = config.patch_sampling.focus(index, count, &mut rng);
            let size = &source.size;
            Ok((
                case,
                patch::draw_patch(source.cases[case], size, focus, &config.augment, &mut rng)?,
            ))
        };
        let drawn = (0..count).map(draw).collect::<Result<_>>()?;
        Ok(Wanted::ask(domain, &source, drawn, cache))
    }

    /// Draws a step and lets its voxels be read; what will come of it.
    fn step(&mut self, step: u64) -> Receiver<Result<Batch>> {
        let (sender, receiver) = sync_channel(1);
        let domain = self.sampler.domain(step);
        match self.draw(domain, step) {
            Ok(wanted) => self.read(domain, wanted, sender),
            // a place of its own is free in the channel
            Err(error) => drop(sender.send(Err(error))),
        }
        receiver
    }

    fn read(&self, domain: usize, wanted: Vec<Wanted>, sender: SyncSender<Result<Batch>>) {
        use rayon::prelude::*;
        let room = self.room.take(wanted.iter().map(Wanted::bytes).sum());
        let (domains, alive) = (self.domains.clone(), self.alive.clone());
        self.readers.spawn_fifo(move || {
            let source = domains[domain].source();
            let samples = wanted.into_par_iter().map(|wanted| wanted.read(&source));
            let samples = samples.collect::<Result<Vec<_>>>();
            drop(domains);
            drop(alive);
            // the trainer may have gone
            sender.send(samples.map(|samples| Batch { domain, samples, _room: room })).ok();
        });
    }
}

impl Batches {
    /// Draws batches from step `first` (from 0) on, some ahead of the trainer, until this is dropped.
    pub fn stream(
        domains: Arc<Vec<DomainCases>>,
        config: RunConfig,
        sampler: DomainSampler,
        first: u64,
        cache: Cache,
    ) -> Result<Self> {
        let (sender, steps) = sync_channel(AHEAD);
        let no_thread = |e: &dyn std::fmt::Display| Error::Internal(format!("no thread: {e}"));
        let readers = rayon::ThreadPoolBuilder::new()
            .num_threads(rayon::current_num_threads().clamp(1, MOST_READERS))
            .thread_name(|index| format!("boxes {index}"))
            .build()
            .map_err(|e| no_thread(&e))?;
        let room = Arc::new(Room::default());
        let (alive, ended) = channel();
        let mut drawing = Drawing { domains, config, sampler, cache, room, readers, alive };
        let work = move || {
            for step in first.. {
                if sender.send(drawing.step(step)).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new()
            .name("batches".into())
            .spawn(work)
            .map_err(|e| no_thread(&e))?;
        Ok(Self { steps, _threads: Threads(ended) })
    }

    /// The next step's input. `waiting` is called again and again as long as it is not there.
    ///
    /// # Errors
    ///
    /// Where a case cannot be read, and what `waiting` gives.
    pub fn next(&self, mut waiting: impl FnMut() -> Result<()>) -> Result<Batch> {
        let step = until(&self.steps, &mut waiting)?;
        until(&step, &mut waiting)?
    }
}

/// Threads that read boxes, at most: decoding keeps one of them busy for some milliseconds a box.
const MOST_READERS: usize = 4;
/// How often a wait is broken.
const BREAK: Duration = Duration::from_millis(1);

fn until<T>(receiver: &Receiver<T>, waiting: &mut impl FnMut() -> Result<()>) -> Result<T> {
    loop {
        match receiver.recv_timeout(BREAK) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => waiting()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::Internal("the thread that draws batches ended".into()));
            }
        }
    }
}
