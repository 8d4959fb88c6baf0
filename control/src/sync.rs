//! Locks that outlive a panic, in both processes.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. What is locked in host and VMM is whole at each step, so a panic elsewhere is no reason to give up
/// on it, and a guest must not lose its device to one.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
