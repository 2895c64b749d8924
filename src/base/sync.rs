//! Mutexes between threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks even after a panic elsewhere: for what is whole between any two calls, such as caches, lists and counts.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
