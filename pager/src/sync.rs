//! The primitives everything lock-free here is built on: the standard library's, and in unit tests the model
//! checker's. (Tests on the real kernel are in `tests/`, where this crate is compiled without `cfg(test)`.)

#[cfg(not(test))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

#[cfg(test)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

#[cfg(not(test))]
pub(crate) use control::sync::lock;

/// As in `control`.
#[cfg(test)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs a test once, where these primitives work: under the model checker's scheduler.
#[cfg(test)]
pub(crate) fn run_once(test: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(test, 1);
}

/// So many zeros; memory for them comes when they are first written to.
#[cfg(not(test))]
pub(crate) fn zeroed_u8s(count: u32) -> Box<[AtomicU8]> {
    bytemuck::zeroed_slice_box(count as usize)
}

/// So many zeros; memory for them comes when they are first written to.
#[cfg(not(test))]
pub(crate) fn zeroed_u64s(count: u32) -> Box<[AtomicU64]> {
    bytemuck::zeroed_slice_box(count as usize)
}

#[cfg(test)]
pub(crate) fn zeroed_u8s(count: u32) -> Box<[AtomicU8]> {
    (0..count).map(|_| AtomicU8::new(0)).collect()
}

#[cfg(test)]
pub(crate) fn zeroed_u64s(count: u32) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// Lets another thread go on.
pub(crate) fn pause() {
    #[cfg(not(test))]
    std::thread::yield_now();
    #[cfg(test)]
    shuttle::thread::yield_now();
}
