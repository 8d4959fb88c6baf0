//! What ends a guest.

use std::{any::Any, io, time::Duration};

use crate::pages::Error;

/// Why a guest's memory cannot go on. The guest must be stopped. It has not seen a wrong byte; after a panic
/// nobody knows that.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// a page could not be moved
    #[error(transparent)]
    Page(#[from] Error),
    /// userfaultfd or the mapping failed
    #[error("guest memory: {0}")]
    Kernel(#[from] io::Error),
    /// out of memory
    #[error(
        "out of memory: a fault found no page for {waited:?}, and nothing more can be evicted: the allocation of \
         {allocation_bytes} B is full with {private} private and {open} open pages, a pool of {pool_bytes} B and an overhead of \
         {overhead_bytes} B ({incompressible} tries found pages incompressible); a larger budget, fewer guests, a balloon or a swap file that takes pages help"
    )]
    Starved {
        /// How long the fault waited.
        waited: Duration,
        /// The allocation, bytes.
        allocation_bytes: u64,
        /// Private pages.
        private: u64,
        /// Open pages.
        open: u64,
        /// The compressed pool, bytes.
        pool_bytes: u64,
        /// What is neither guest pages nor pool, bytes.
        overhead_bytes: u64,
        /// Failed tries to compress.
        incompressible: u64,
    },
    /// a rule of our own is broken
    #[error("guest memory: the {thread} thread panicked: {said}")]
    Panicked {
        /// Which thread.
        thread: &'static str,
        /// Its words.
        said: String,
    },
}

impl Failure {
    /// What a thread said that panicked.
    pub(super) fn of_panic(thread: &'static str, payload: &(dyn Any + Send)) -> Failure {
        let said = payload.downcast_ref::<&str>().map(|said| (*said).into());
        let said = said.or_else(|| payload.downcast_ref().cloned()).unwrap_or_else(|| "without a word".into());
        Failure::Panicked { thread, said }
    }
}
