//! Calls at the seam to the driver that fail, for tests: the n-th, counted over all devices of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::Call;
use crate::base::{Error, Result};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device is lost.
    Loss,
    /// There is no memory for a buffer.
    Memory,
}

/// A fault at a call, counted from 1: of all calls, or of those that make buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// What goes wrong.
    pub fault: Fault,
    /// At which call.
    pub at: u64,
    /// Whether at every later one, too.
    pub stays: bool,
}

/// Faults to come, and the calls so far.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Vec<Planned>,
    calls: AtomicU64,
    allocations: AtomicU64,
}

impl Faults {
    /// Those of a list such as `loss@17,memory@3,loss@40+`, where + stands for every later call, too.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || Error::Internal(format!("U2SEG_FAULTS={text} is no list of faults"));
        let one = |text: &str| {
            let (fault, at) = text.split_once('@')?;
            let fault = match fault {
                "loss" => Fault::Loss,
                "memory" => Fault::Memory,
                _ => return None,
            };
            let stays = at.ends_with('+');
            let at = at.trim_end_matches('+').parse().ok()?;
            Some(Planned { fault, at, stays })
        };
        let planned = text.split(',').filter(|part| !part.is_empty()).map(one);
        let planned = planned.collect::<Option<_>>().ok_or_else(refused)?;
        Ok(Self { planned, calls: AtomicU64::new(0), allocations: AtomicU64::new(0) })
    }

    /// Those of the environment's `U2SEG_FAULTS`.
    #[cfg_attr(test, allow(dead_code))]
    pub fn of_environment() -> Result<Arc<Self>> {
        let text = std::env::var("U2SEG_FAULTS").unwrap_or_default();
        Self::parse(&text).map(Arc::new)
    }

    /// Counts a call, and gives what goes wrong with it.
    pub(super) fn next(&self, call: Call) -> Option<Fault> {
        let (count, fault) = match call {
            Call::Allocation => (&self.allocations, Fault::Memory),
            Call::Other => (&self.calls, Fault::Loss),
        };
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let hit = |p: &&Planned| p.fault == fault && (p.at == number || p.stays && p.at <= number);
        self.planned.iter().find(hit).map(|planned| planned.fault)
    }

    /// Calls so far, and buffers that were asked for.
    pub fn calls(&self) -> (u64, u64) {
        (self.calls.load(Ordering::SeqCst), self.allocations.load(Ordering::SeqCst))
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let (calls, allocations) = self.calls();
        log::info!("{calls} calls at the seam to the driver, {allocations} buffers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fail_where_they_are_told_to() {
        let faults = Faults::parse("loss@2,memory@1,loss@5+").unwrap();
        let losses: Vec<_> = (0..6).map(|_| faults.next(Call::Other).is_some()).collect();
        assert_eq!(losses, [false, true, false, false, true, true]);
        assert_eq!(faults.next(Call::Allocation), Some(Fault::Memory));
        assert_eq!((faults.next(Call::Allocation), faults.calls()), (None, (6, 2)));
        assert!(Faults::parse("").unwrap().planned.is_empty());
        assert!(["loss", "loss@x", "fire@3"].iter().all(|text| Faults::parse(text).is_err()));
    }
}
