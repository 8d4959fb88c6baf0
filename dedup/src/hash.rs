//! The content hash: a hint where equal pages may be found, keyed with the domain's secret so that a guest
//! cannot aim at another's index entries. It decides nothing; bytes are compared before anything is shared.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wire::{Gfn, PAGE_BYTES, PageBytes};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ScanMemory;

/// Keyed hash of a page.
pub fn content_hash(secret: u64, page: &PageBytes) -> u64 {
    xxh3_64_with_seed(page, secret)
}

/// True when every byte is zero. Looks at the page in cache lines, so that a page that differs early costs
/// one of them.
pub fn is_zero(page: &PageBytes) -> bool {
    let (lines, _) = page.as_chunks::<64>();
    lines.iter().all(|line| line.iter().fold(0, |or, byte| or | byte) == 0)
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Zero,
    Hash(u64),
}

/// Hashes batches of pages: on the calling thread, or on a pool of its own.
#[derive(Debug)]
pub(crate) struct BatchHasher {
    secret: u64,
    pool: Option<ThreadPool>,
}

impl BatchHasher {
    /// With one thread, or if no more can be had, there is no pool.
    pub(crate) fn new(secret: u64, threads: usize) -> Self {
        let name = |thread| format!("dedup-hash-{thread}");
        let pool = || ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build().ok();
        Self { secret, pool: (threads > 1).then(pool).flatten() }
    }

    /// Content of each of these pages that is private.
    pub(crate) fn read_all(&self, memory: &(impl ScanMemory + ?Sized), gfns: &[Gfn]) -> Vec<(Gfn, Content)> {
        // One page's copy at a time: it is hashed while it is in the first cache.
        let read = |page: &mut PageBytes, gfn| {
            let content = |page: &PageBytes| {
                if is_zero(page) { Content::Zero } else { Content::Hash(content_hash(self.secret, page)) }
            };
            memory.read_held(gfn, page).then(|| (gfn, content(page)))
        };
        let empty = || [0; PAGE_BYTES];
        match &self.pool {
            Some(pool) => {
                pool.install(|| gfns.par_iter().map_init(empty, |page, &gfn| read(page, gfn)).flatten().collect())
            }
            None => {
                let mut page = empty();
                gfns.iter().filter_map(|&gfn| read(&mut page, gfn)).collect()
            }
        }
    }

    /// CPU time so far of the calling thread and the pool.
    pub(crate) fn cpu_time(&self) -> Duration {
        let pool = self.pool.as_ref().map(|pool| pool.broadcast(|_| thread_cpu_time()).iter().sum());
        thread_cpu_time() + pool.unwrap_or_default()
    }
}

fn thread_cpu_time() -> Duration {
    // The clock of one's own thread cannot fail; if it did, time would stand still, and the pace with it.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_set_bit_anywhere_is_not_zero() {
        let mut page = [0; PAGE_BYTES];
        assert!(is_zero(&page));
        for at in 0..PAGE_BYTES {
            page[at] = 0x80;
            assert!(!is_zero(&page));
            page[at] = 0;
        }
    }

    #[test]
    fn domains_hash_the_same_page_differently() {
        let page = [7; PAGE_BYTES];
        assert_eq!(content_hash(1, &page), content_hash(1, &page));
        assert_ne!(content_hash(1, &page), content_hash(2, &page));
    }
}
