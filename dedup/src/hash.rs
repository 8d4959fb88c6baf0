//! The content hash: a hint where equal pages may be found, keyed with the domain's secret so that a guest cannot aim at
//! another's index entries. It decides nothing; bytes are compared before anything is shared.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wire::PAGE_BYTES;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One page's content.
pub type PageBytes = [u8; PAGE_BYTES];

/// Keyed hash of a page.
pub fn content_hash(secret: u64, page: &PageBytes) -> u64 {
    xxh3_64_with_seed(page, secret)
}

/// True when every byte is zero. Looks at the page in cache lines, so that a page that differs early costs one of them.
pub fn is_zero(page: &PageBytes) -> bool {
    let (lines, _) = page.as_chunks::<64>();
    lines.iter().all(|line| line.iter().fold(0, |or, byte| or | byte) == 0)
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

    /// Hash of one page.
    pub(crate) fn hash(&self, page: &PageBytes) -> u64 {
        content_hash(self.secret, page)
    }

    /// Hash of each page.
    pub(crate) fn hash_all(&self, pages: &[PageBytes]) -> Vec<u64> {
        match &self.pool {
            Some(pool) => pool.install(|| pages.par_iter().map(|page| self.hash(page)).collect()),
            None => pages.iter().map(|page| self.hash(page)).collect(),
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

    #[test]
    fn a_pool_hashes_like_a_single_thread_and_its_time_counts() {
        let pages: Vec<PageBytes> = (0..=255).map(|byte| [byte; PAGE_BYTES]).collect();
        let (single, pool) = (BatchHasher::new(3, 1), BatchHasher::new(3, 2));
        let before = pool.cpu_time();
        assert_eq!(single.hash_all(&pages), pool.hash_all(&pages));
        assert!(pool.cpu_time() > before);
    }
}
