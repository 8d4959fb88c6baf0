//! The page allocator: which page of RAM is whose.
//!
//! A free page is never touched: the host may have taken it away, and a touch would bring it back. So nothing
//! is kept *in* free pages. The allocator's own memory lies at the bottom of RAM, behind page 0, which is
//! nobody's:
//!
//! ```text
//!   page 1..   used         one bit a page: not to be had
//!              reported     one bit a page: free, and the host knows it
//!              descriptors  32 bits a page: kind (3), pinned (1), key (28)
//! ```
//!
//! ```text
//!                 allocate                  take_for_balloon
//!   Anonymous  <------------  Free  ------------------------->  Ballooned
//!              ------------>   |  <-------------------------
//!                  free        |  \       return_ballooned
//!      Clean  <----------------+   \ take_for_report
//!              --------------->     `------------->  Reporting  ---- report_done ----> Free
//!               free, or dropped
//!
//!   Free  --- take_for_hint ---> Hinted  --- release_hinted: the host is done, or nothing is left ---> Free
//! ```
//!
//! Workloads get the lowest free pages and the balloon the highest, so both stay contiguous. *Clean* pages
//! are a page cache: their content can be had again, so they may be dropped at any moment unless pinned; who
//! wants one must [`Allocator::pin`] it by the key it was allocated with, and learns there whether it still
//! exists.

mod kind;
mod reports;
mod supply;

use core::ops::Range;

use wire::PAGE_BYTES;
use wire::balloon::stat;

use crate::memory::{Ram, Span};

use kind::KINDS;
pub use kind::Kind;
pub use reports::REPORT_RUN_MAX;

/// Most clean pages dropped for one allocation: enough that the next ones need not search.
const DROP_BATCH: u32 = 64;
const KIND_MASK: u32 = 0b111;
const PINNED: u32 = 0b1000;
const KEY_SHIFT: u32 = 4;
/// Keys of clean pages are below this.
pub const KEY_END: u32 = 1 << (32 - KEY_SHIFT);

/// All pages of the guest, each exactly once.
#[derive(Debug)]
pub struct Allocator {
    used: Span,
    reported: Span,
    descriptors: Span,
    pages: u32,
    counts: [u32; KINDS.len()],
    /// No page below is free.
    free_low: u32,
    /// No page from here on is free.
    free_end: u32,
    /// No page below is ballooned.
    ballooned_low: u32,
    /// No page from here on is clean.
    clean_end: u32,
    /// Where the last search for clean pages to drop for an allocation ended.
    clean_hand: u32,
    /// Where the last search for pages to report ended.
    report_hand: u32,
    /// Where the search for pages to hint at goes on.
    hint_hand: u32,
    /// Allocations that found nothing, not even a clean page.
    pub failures: u64,
    /// Clean pages dropped.
    pub clean_drops: u64,
    /// Pages reported free, in all.
    pub reported_total: u64,
}

impl Allocator {
    /// All of RAM free but page 0, or more pages at the bottom, `reserved` of them, and the allocator's own.
    /// `None` if RAM is too small for that.
    pub fn new(ram: Ram, reserved: u32) -> Option<Allocator> {
        let pages = ram.pages();
        let bitmap_pages = pages.div_ceil(8 * PAGE_BYTES as u32);
        let descriptor_pages = pages.div_ceil(PAGE_BYTES as u32 / 4);
        let first = reserved.max(1);
        let first_free = first.checked_add(2 * bitmap_pages + descriptor_pages).filter(|&free| free < pages)?;
        let mut allocator = Allocator {
            used: ram.span(first, bitmap_pages),
            reported: ram.span(first + bitmap_pages, bitmap_pages),
            descriptors: ram.span(first + 2 * bitmap_pages, descriptor_pages),
            pages,
            counts: [0; KINDS.len()],
            free_low: first_free,
            free_end: pages,
            ballooned_low: pages,
            clean_end: 0,
            clean_hand: 0,
            report_hand: 0,
            hint_hand: 0,
            failures: 0,
            clean_drops: 0,
            reported_total: 0,
        };
        allocator.used.clear();
        allocator.reported.clear();
        allocator.descriptors.clear();
        allocator.counts[Kind::Free as usize] = pages;
        for gfn in 0..first_free {
            allocator.set(gfn, Kind::Reserved, 0);
        }
        for beyond in pages..bitmap_pages * 8 * PAGE_BYTES as u32 {
            set_bit(&allocator.used, beyond, true);
        }
        Some(allocator)
    }

    /// Pages of RAM.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// How many pages are of this kind.
    pub fn count(&self, kind: Kind) -> u32 {
        self.counts[kind as usize]
    }

    /// What the page is.
    pub fn kind(&self, gfn: u32) -> Kind {
        KINDS[(self.descriptors.u32(gfn as usize) & KIND_MASK) as usize]
    }

    /// An anonymous page with unknown content: the lowest there is.
    pub fn allocate(&mut self) -> Option<u32> {
        let gfn = self.lowest_free_or_drop()?;
        self.set(gfn, Kind::Anonymous, 0);
        Some(gfn)
    }

    /// A clean page with unknown content, pinned.
    pub fn allocate_clean(&mut self, key: u32) -> Option<u32> {
        assert!(key < KEY_END, "key of a clean page too large");
        let gfn = self.lowest_free_or_drop()?;
        self.set(gfn, Kind::Clean, key << KEY_SHIFT | PINNED);
        self.clean_end = self.clean_end.max(gfn + 1);
        Some(gfn)
    }

    /// `pages` contiguous pages of this kind, [`Kind::Anonymous`] or [`Kind::Reserved`]. Drops nothing for
    /// it.
    pub fn allocate_run(&mut self, pages: u32, kind: Kind) -> Option<u32> {
        let mut from = self.free_low;
        loop {
            let Some(run) = self.free_run(from, self.pages, false) else {
                self.failures += 1;
                return None;
            };
            if run.end - run.start >= pages {
                (run.start..run.start + pages).for_each(|gfn| self.set(gfn, kind, 0));
                return Some(run.start);
            }
            from = run.end;
        }
    }

    /// Takes an anonymous page, or a clean one that is not pinned, back.
    pub fn free(&mut self, gfn: u32) {
        assert!(matches!(self.kind(gfn), Kind::Anonymous | Kind::Clean), "freeing a page that is not allocated");
        self.set(gfn, Kind::Free, 0);
    }

    /// Holds a clean page, if it is still the one allocated with this key.
    pub fn pin(&mut self, gfn: u32, key: u32) -> bool {
        let there = self.descriptors.u32(gfn as usize) == key << KEY_SHIFT | Kind::Clean as u32;
        if there {
            self.descriptors.set_u32(gfn as usize, key << KEY_SHIFT | PINNED | Kind::Clean as u32);
        }
        there
    }

    /// Lets a pinned page go.
    pub fn unpin(&mut self, gfn: u32) {
        self.descriptors.set_u32(gfn as usize, self.descriptors.u32(gfn as usize) & !PINNED);
    }

    /// Moves up to `gfns.len()` pages to the balloon, leaving at least `floor_pages` outside it: free ones
    /// from the top, and when there are none left, clean ones from the top. Says how many.
    pub fn take_for_balloon(&mut self, floor_pages: u32, gfns: &mut [u32]) -> usize {
        let may_go = (self.pages - self.count(Kind::Ballooned)).saturating_sub(floor_pages) as usize;
        let bound = gfns.len().min(may_go);
        let mut taken = 0;
        while taken < bound {
            let Some(gfn) = self.highest_free().or_else(|| self.highest_clean()) else { break };
            self.set(gfn, Kind::Ballooned, 0);
            self.ballooned_low = self.ballooned_low.min(gfn);
            gfns[taken] = gfn;
            taken += 1;
        }
        taken
    }

    /// Names up to `gfns.len()` pages to take back from the balloon, lowest first. They stay in it until
    /// [`Self::return_ballooned`].
    pub fn pick_ballooned(&mut self, gfns: &mut [u32]) -> usize {
        let bound = gfns.len().min(self.count(Kind::Ballooned) as usize);
        let mut picked = 0;
        let mut gfn = self.ballooned_low;
        while picked < bound {
            if self.kind(gfn) == Kind::Ballooned {
                if picked == 0 {
                    self.ballooned_low = gfn;
                }
                gfns[picked] = gfn;
                picked += 1;
            }
            gfn += 1;
        }
        picked
    }

    /// The host gave this page back.
    pub fn return_ballooned(&mut self, gfn: u32) {
        assert!(self.kind(gfn) == Kind::Ballooned, "deflating a page that is not ballooned");
        self.set(gfn, Kind::Free, 0);
    }

    /// What the guest says of itself, by tag.
    pub fn statistics(&self) -> [(u16, u64); 6] {
        let bytes = |pages: u32| u64::from(pages) * PAGE_BYTES as u64;
        let free = self.count(Kind::Free) + self.count(Kind::Reporting) + self.count(Kind::Hinted);
        let clean = self.count(Kind::Clean);
        [
            (stat::MEMFREE, bytes(free)),
            (stat::MEMTOT, bytes(self.pages())),
            (stat::AVAIL, bytes(free + clean)),
            (stat::CACHES, bytes(clean)),
            (stat::ALLOC_STALL, self.failures),
            (stat::DIRECT_RECLAIM, self.clean_drops),
        ]
    }

    fn lowest_free_or_drop(&mut self) -> Option<u32> {
        if self.count(Kind::Free) == 0 {
            // Cheaper than dropping what somebody may want again.
            self.release_hinted(DROP_BATCH);
        }
        if self.count(Kind::Free) == 0 {
            self.drop_clean();
        }
        let lowest = self.free_run(self.free_low, self.free_end, false).map(|run| run.start);
        match lowest {
            Some(gfn) => self.free_low = gfn,
            None => self.failures += 1,
        }
        lowest
    }

    /// Frees the next few clean pages in clock order.
    fn drop_clean(&mut self) {
        let (mut left, end) = (DROP_BATCH.min(self.count(Kind::Clean)), self.clean_end);
        for _ in 0..end {
            if left == 0 {
                break;
            }
            self.clean_hand = if self.clean_hand + 1 >= end { 0 } else { self.clean_hand + 1 };
            if self.is_droppable(self.clean_hand) {
                self.set(self.clean_hand, Kind::Free, 0);
                self.clean_drops += 1;
                left -= 1;
            }
        }
    }

    fn highest_free(&mut self) -> Option<u32> {
        if self.count(Kind::Free) == 0 {
            return None;
        }
        let mut word = self.free_end.div_ceil(64) as usize;
        while word > 0 {
            word -= 1;
            let free = !self.used.u64(word);
            if free != 0 {
                let gfn = word as u32 * 64 + 63 - free.leading_zeros();
                self.free_end = gfn + 1;
                return Some(gfn);
            }
        }
        None
    }

    fn highest_clean(&mut self) -> Option<u32> {
        while self.clean_end > 0 && self.kind(self.clean_end - 1) != Kind::Clean {
            self.clean_end -= 1;
        }
        let gfn = (0..self.clean_end).rev().find(|&gfn| self.is_droppable(gfn))?;
        self.clean_drops += 1;
        Some(gfn)
    }

    fn is_droppable(&self, gfn: u32) -> bool {
        self.descriptors.u32(gfn as usize) & (KIND_MASK | PINNED) == Kind::Clean as u32
    }

    /// The first run of free pages (that were not reported, if `unreported`) in `from..end`, as long as it
    /// goes.
    fn free_run(&self, from: u32, end: u32, unreported: bool) -> Option<Range<u32>> {
        let candidates = |word: u32| {
            let known = if unreported { self.reported.u64(word as usize) } else { 0 };
            !(self.used.u64(word as usize) | known)
        };
        let mut start = from;
        while start < end {
            let ahead = candidates(start / 64) >> (start % 64);
            if ahead != 0 {
                start += ahead.trailing_zeros();
                break;
            }
            start = (start / 64 + 1) * 64;
        }
        if start >= end {
            return None;
        }
        let mut stop = start;
        while stop < end {
            let ones = (candidates(stop / 64) >> (stop % 64)).trailing_ones();
            stop += ones;
            if ones == 0 || !stop.is_multiple_of(64) {
                break;
            }
        }
        Some(start..stop.min(end))
    }

    /// The one place where a page changes hands.
    fn set(&mut self, gfn: u32, kind: Kind, rest: u32) {
        self.counts[self.kind(gfn) as usize] -= 1;
        self.counts[kind as usize] += 1;
        self.descriptors.set_u32(gfn as usize, rest | kind as u32);
        set_bit(&self.used, gfn, kind != Kind::Free);
        if kind == Kind::Free {
            self.free_low = self.free_low.min(gfn);
            self.free_end = self.free_end.max(gfn + 1);
        } else {
            set_bit(&self.reported, gfn, false);
        }
    }
}

fn set_bit(bitmap: &Span, bit: u32, on: bool) {
    let (word, mask) = (bit as usize / 64, 1 << (bit % 64));
    let old = bitmap.u64(word);
    bitmap.set_u64(word, if on { old | mask } else { old & !mask });
}

#[cfg(test)]
mod tests;
