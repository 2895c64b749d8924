//! Which cases lie in GPU memory as a whole: bookkeeping without a GPU, done in the order of the samples by the thread that
//! draws them, so that the parts of the others are cut in advance.

use std::collections::HashMap;

use crate::dataset::prepared::Facts;
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;

/// A case: position of its domain, position in the domain.
pub type Key = (usize, usize);

/// Rounds of its domain's cases that a case stays without being asked for, where others want its room. Cases are drawn
/// at random, so that one asked for a moment ago is no likelier to come next than any other: where not all fit, leaving
/// at once would send a whole case each time instead of the box that a patch reads. A round passes without a
/// given case with probability 1/e, four with 2 %.
const ROUNDS: u64 = 4;

/// What GPU memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes for whole cases.
    pub budget: u64,
    /// Bytes that one binding covers: a channel.
    binding: u64,
    /// Bytes of one buffer: a case.
    buffer: u64,
    alignment: u64,
}

/// Places of a volume's channels and labels in its buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub channels: usize,
    pub plane: u64,
    /// From a channel to the next.
    span: u64,
    label: u64,
    pub bytes: u64,
}

impl Places {
    /// Offset and size of a channel; beyond the last channel those of the first.
    pub fn channel(&self, channel: usize) -> (u64, u64) {
        let channel = if channel < self.channels { channel } else { 0 };
        (channel as u64 * self.span, self.plane)
    }

    pub fn labels(&self) -> (u64, u64) {
        (self.channels as u64 * self.span, self.label)
    }

    /// Places for either of two volumes.
    pub fn union(&self, other: &Self) -> Self {
        let larger = if self.plane < other.plane { other } else { self };
        let channels = self.channels.max(other.channels);
        Self { channels, bytes: channels as u64 * larger.span + larger.label, ..*larger }
    }
}

impl Capacity {
    /// With `budget` bytes for whole cases.
    pub fn new(gpu: &Gpu, caps: &Caps, budget: u64) -> Self {
        let buffer = gpu.limits().max_buffer_size;
        Self { budget, binding: caps.max_binding, buffer, alignment: caps.alignment }
    }

    pub(super) fn places(&self, channels: usize, shape: [usize; 3]) -> Places {
        let voxels = shape.iter().product::<usize>() as u64;
        let (plane, label) = (voxels * 4, voxels.next_multiple_of(4));
        let span = plane.next_multiple_of(self.alignment);
        Places { channels, plane, span, label, bytes: channels as u64 * span + label }
    }

    /// Whether a volume fits one buffer and each channel one binding.
    pub(super) fn fits(&self, places: &Places) -> bool {
        places.plane <= self.binding && places.bytes <= self.buffer
    }

    /// Whether a case may lie there as a whole.
    pub fn holds(&self, case: &Facts) -> bool {
        let places = self.places(case.channels, case.shape);
        self.fits(&places) && places.bytes <= self.budget
    }
}

/// What becomes of a case that a sample needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is there.
    Here,
    /// It goes there, once these have left.
    Load(Vec<Key>),
    /// It stays away, and the box that the patch reads is sent.
    Box,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    /// Of its domain's clock.
    last: u64,
}

/// The cases that are there once every sample so far is made.
#[derive(Debug, Clone)]
pub struct Cache {
    capacity: Capacity,
    /// Cases of each domain.
    cases: Vec<usize>,
    /// Samples of each domain so far.
    clocks: Vec<u64>,
    entries: HashMap<Key, Entry>,
    used: u64,
}

impl Cache {
    /// An empty one for domains of so many cases.
    pub fn new(capacity: Capacity, cases: Vec<usize>) -> Self {
        let clocks = vec![0; cases.len()];
        Self { capacity, cases, clocks, entries: HashMap::new(), used: 0 }
    }

    /// Asks for the case of the next sample.
    pub(super) fn ask(&mut self, key: Key, case: &Facts) -> Answer {
        let places = self.capacity.places(case.channels, case.shape);
        self.ask_for(key, places.bytes, self.capacity.fits(&places))
    }

    fn ask_for(&mut self, key: Key, bytes: u64, fits: bool) -> Answer {
        self.clocks[key.0] += 1;
        let last = self.clocks[key.0];
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.last = last;
            return Answer::Here;
        }
        if !fits || bytes > self.capacity.budget {
            return Answer::Box;
        }
        let Some(leave) = self.leaving(bytes) else { return Answer::Box };
        for old in &leave {
            self.used -= self.entries.remove(old).map_or(0, |entry| entry.bytes);
        }
        self.used += bytes;
        self.entries.insert(key, Entry { bytes, last });
        Answer::Load(leave)
    }

    /// The least recently used cases whose room is enough for so many bytes, if they were not asked for long enough.
    fn leaving(&self, bytes: u64) -> Option<Vec<Key>> {
        let mut stale: Vec<(f64, Key)> = self
            .entries
            .iter()
            .map(|(key, entry)| {
                let age = self.clocks[key.0] - entry.last;
                (age as f64 / self.cases[key.0] as f64, *key)
            })
            .filter(|(rounds, _)| *rounds > ROUNDS as f64)
            .collect();
        stale.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (mut used, mut leave) = (self.used, Vec::new());
        for (_, key) in stale {
            if used + bytes <= self.capacity.budget {
                break;
            }
            used -= self.entries[&key].bytes;
            leave.push(key);
        }
        (used + bytes <= self.capacity.budget).then_some(leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Capacity =
        Capacity { budget: 1 << 30, binding: 1 << 27, buffer: 1 << 30, alignment: 256 };

    #[test]
    fn a_case_lies_there_whole_where_budget_binding_and_buffer_allow() {
        let holds = |capacity: Capacity| {
            let places = capacity.places(4, [30, 30, 30]);
            capacity.fits(&places) && places.bytes <= capacity.budget
        };
        assert!(holds(ROOMY));
        // a channel is 108,000 bytes, four with labels 459,056
        assert!(!holds(Capacity { binding: 107_999, ..ROOMY }));
        assert!(!holds(Capacity { buffer: 459_000, ..ROOMY }));
        assert!(!holds(Capacity { budget: 459_000, ..ROOMY }));
        assert!(holds(Capacity { binding: 108_000, buffer: 460_000, budget: 460_000, ..ROOMY }));
    }

    #[test]
    fn places_of_two_boxes_hold_either() {
        let (a, b) = (ROOMY.places(1, [9, 9, 9]), ROOMY.places(3, [5, 5, 5]));
        let both = a.union(&b);
        assert_eq!(both, b.union(&a));
        assert_eq!((both.channels, both.plane), (3, a.plane));
        assert!(both.bytes >= a.bytes.max(b.bytes));
    }

    #[test]
    fn the_least_recently_used_case_leaves_after_some_rounds() {
        let mut cache = Cache::new(Capacity { budget: 25, ..ROOMY }, vec![3]);
        assert_eq!(cache.ask_for((0, 0), 10, true), Answer::Load(vec![]));
        assert_eq!(cache.ask_for((0, 1), 10, true), Answer::Load(vec![]));
        // one asked for again and again stays, and the other as long as it may come again
        for _ in 0..11 {
            assert_eq!(cache.ask_for((0, 0), 10, true), Answer::Here);
        }
        assert_eq!(cache.ask_for((0, 2), 10, true), Answer::Box);
        assert_eq!(cache.ask_for((0, 2), 10, true), Answer::Load(vec![(0, 1)]));
        assert_eq!(cache.ask_for((0, 0), 10, true), Answer::Here);
        assert_eq!(cache.ask_for((0, 1), 10, true), Answer::Box);
        // what can never lie there sends nobody away
        (0..40).for_each(|_| assert_eq!(cache.ask_for((0, 1), 30, true), Answer::Box));
        (0..40).for_each(|_| assert_eq!(cache.ask_for((0, 1), 10, false), Answer::Box));
        assert_eq!(cache.ask_for((0, 1), 20, true), Answer::Load(vec![(0, 2), (0, 0)]));
        assert_eq!(cache.used, 20);
    }

    #[test]
    fn a_domain_that_waits_keeps_its_cases() {
        let mut cache = Cache::new(Capacity { budget: 20, ..ROOMY }, vec![1, 100]);
        cache.ask_for((0, 0), 10, true);
        cache.ask_for((1, 0), 10, true);
        for case in 1..100 {
            assert_eq!(cache.ask_for((1, case), 10, true), Answer::Box);
        }
        assert_eq!(cache.ask_for((0, 0), 10, true), Answer::Here);
    }

    #[test]
    fn random_samples_seldom_send_whole_cases() {
        use rand::RngExt;
        let mut rng = crate::patch::rng_for(1, 0, 0);
        let mut cache = Cache::new(Capacity { budget: 500, ..ROOMY }, vec![100]);
        let (mut here, mut loads) = (0, 0);
        for _ in 0..20_000 {
            match cache.ask_for((0, rng.random_range(0..100)), 10, true) {
                Answer::Here => here += 1,
                Answer::Load(_) => loads += 1,
                Answer::Box => {}
            }
            assert!(cache.used <= 500);
        }
        // half of the cases have room: half of the samples find theirs
        assert!((9_500..10_600).contains(&here), "{here}");
        assert!(loads < 400, "{loads}");
    }
}
