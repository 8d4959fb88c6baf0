//! The primitives everything lock-free here is built on: the standard library's, and in unit tests the model checker's.
//! (Tests on the real kernel are in `tests/`, where this crate is compiled without `cfg(test)`.)

#[cfg(not(test))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

#[cfg(test)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

/// Locks; a thread that panicked while holding the lock has not broken what it guards (every critical section here
/// leaves its data whole at each step).
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Lets another thread go on.
pub(crate) fn pause() {
    #[cfg(not(test))]
    std::thread::yield_now();
    #[cfg(test)]
    shuttle::thread::yield_now();
}
