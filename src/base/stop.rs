//! A request to stop, heard between two pieces of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Error, Result};

/// A wish that may come at any time, such as a signal, that work ends early and in good order. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// What sets it from elsewhere: any number but 0 asks to stop, and says why in the terms of whoever writes it.
    pub fn cause_cell(&self) -> Arc<AtomicUsize> {
        self.0.clone()
    }

    /// Asks to stop for a cause, a number other than 0.
    pub fn ask(&self, cause: usize) {
        self.0.store(cause, Ordering::SeqCst);
    }

    /// Why to stop; none where nobody asked.
    pub fn cause(&self) -> Option<usize> {
        Some(self.0.load(Ordering::SeqCst)).filter(|cause| *cause != 0)
    }

    /// An error where somebody asked.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub fn check(&self) -> Result<()> {
        self.cause().map_or(Ok(()), |_| Err(Error::Stopped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_hears_it() {
        let stop = Stop::default();
        let other = stop.clone();
        assert!(other.check().is_ok() && other.cause().is_none());
        stop.ask(2);
        assert!(matches!(other.check(), Err(Error::Stopped)));
        assert_eq!(other.cause(), Some(2));
    }
}
