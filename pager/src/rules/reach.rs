//! How many pages one fault brings: more while faults follow each other. Of fresh memory, from 16 to 128:
//!
//! ```text
//!   fault at 0      opens 0..16
//!   fault at 16     where the last ended: a sweep. opens 16..48, the next 48..112, then 128 at a time
//!   fault at 5000   elsewhere: 16 again
//! ```

use wire::Gfn;

use crate::sync::{AtomicU32, Ordering};

/// Pages around a first touch that follows no other; 64 KiB costs 1.5 µs and saves up to 15 faults.
pub const REACH_MIN: u32 = 16;
/// Most pages: a sweep then has one fault in 128 pages. Each takes some 15 µs longer, and a sweep that
/// writes, which gets pages of its own, some 60 µs: less than half a µs a page.
pub const REACH_MAX: u32 = 128;

/// Most pages that come back together, 64 KiB: some 40 µs of decompression after the page that was asked for
/// is there, and one request to the disk.
pub const AHEAD_MAX: usize = 16;

/// Where the last neighbourhood ended, and how large it was. A hint: relaxed, and two faults at once may
/// forget each other.
pub(crate) struct Reach {
    next: AtomicU32,
    pages: AtomicU32,
    min: u32,
    max: u32,
}

impl Reach {
    /// `min` pages for a fault that follows no other, up to `max` for those that do.
    pub fn new(min: u32, max: u32) -> Reach {
        Reach { next: AtomicU32::new(u32::MAX), pages: AtomicU32::new(0), min, max }
    }

    /// For first touches.
    pub fn of_fresh_memory() -> Reach {
        Reach::new(REACH_MIN, REACH_MAX)
    }

    /// For returns from a tier: how far to read ahead of them.
    pub fn of_returns() -> Reach {
        Reach::new(1, AHEAD_MAX as u32)
    }

    /// Whether a fault on `gfn` follows the one before: a sweep.
    pub fn follows(&self, gfn: Gfn) -> bool {
        self.next.load(Ordering::Relaxed) == gfn.0
    }

    /// Pages that a fault on `gfn` is to bring, itself included.
    pub fn pages(&self, gfn: Gfn) -> u32 {
        let follows = self.follows(gfn);
        let doubled = self.pages.load(Ordering::Relaxed).saturating_mul(2);
        if follows { doubled.clamp(self.min, self.max) } else { self.min }
    }

    /// It brought `pages` pages from `gfn` on.
    pub fn opened(&self, gfn: Gfn, pages: u32) {
        self.opened_up_to(gfn.plus(pages), pages);
    }

    /// It brought `pages` pages, and a fault on `next` would follow it.
    pub fn opened_up_to(&self, next: Gfn, pages: u32) {
        self.next.store(next.0, Ordering::Relaxed);
        self.pages.store(pages, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::run_once;

    #[test]
    fn it_doubles_along_a_sweep_and_starts_again_elsewhere() {
        run_once(|| {
            let reach = Reach::of_fresh_memory();
            let mut sizes = Vec::new();
            let mut gfn = 1000;
            for _ in 0..5 {
                let pages = reach.pages(Gfn(gfn));
                reach.opened(Gfn(gfn), pages);
                sizes.push(pages);
                gfn += pages;
            }
            assert_eq!(sizes, [16, 32, 64, 128, 128]);
            assert_eq!(reach.pages(Gfn(gfn + 1)), 16);
            // A neighbourhood cut short by a page in use is no reason to reach further.
            reach.opened(Gfn(gfn), 3);
            assert_eq!(reach.pages(Gfn(gfn + 3)), 16);
        });
    }
}
