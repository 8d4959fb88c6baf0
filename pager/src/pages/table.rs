//! The page-state table: one atomic word a guest page, a lock bit in each, and the sums over all of them.
//!
//! ```text
//!            try_lock                       unlock(new entry): by `Locked` alone
//!   free ----------------> locked by us ------------------------> free      wake whoever waited
//!     ^                       |
//!     |                       | fault on it: lock_or_wait sets WAITERS, the faulting thread stays blocked
//!     +-----------------------+
//! ```
//!
//! **Invariant:** an entry's state, payload and credit change only between a successful lock and its unlock,
//! by the locker.
//! **Invariant:** nobody who holds a page's lock waits for another page's, except one thread at a time
//! through [`PageTable::lock`], whose opponents all use [`PageTable::try_lock`] and so never wait for it.

use control::status::PageCounts;
use wire::Gfn;

mod entry;
mod left;
mod page;

use crate::sync::{AtomicI64, AtomicU64, Ordering, pause, zeroed_u64s};

pub use entry::Entry;
pub use left::{Left, Taker};
pub use page::{Page, State};

/// One word a page.
pub struct PageTable {
    entries: Box<[AtomicU64]>,
    by_state: [AtomicI64; 7],
    zero_touched: AtomicI64,
    ballooned_touched: AtomicI64,
    open: AtomicI64,
    noise: AtomicI64,
    lent: AtomicI64,
}

impl PageTable {
    /// What a page costs.
    pub const BYTES_PER_PAGE: usize = size_of::<Entry>();

    /// A table of `pages` untouched pages.
    pub fn new(pages: u32) -> PageTable {
        const { assert!(Entry::UNTOUCHED.0 == 0, "a new table is all zeros") };
        let table = PageTable {
            entries: zeroed_u64s(pages),
            by_state: Default::default(),
            zero_touched: AtomicI64::new(0),
            ballooned_touched: AtomicI64::new(0),
            open: AtomicI64::new(0),
            noise: AtomicI64::new(0),
            lent: AtomicI64::new(0),
        };
        table.by_state[State::Zero as usize].store(i64::from(pages), Ordering::Relaxed);
        table
    }

    /// Pages.
    pub fn pages(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The entry as it is at this moment; a hint for whoever does not hold the lock.
    pub fn peek(&self, gfn: Gfn) -> Entry {
        Entry(self.entries[gfn.index()].load(Ordering::Relaxed))
    }

    /// Locks the page unless somebody has it; gives its entry.
    pub(super) fn try_lock(&self, gfn: Gfn) -> Option<Entry> {
        let word = &self.entries[gfn.index()];
        let seen = Entry(word.load(Ordering::Relaxed));
        if seen.locked() {
            return None;
        }
        // Acquire: what the last holder did to the page happened before its unlock's release.
        word.compare_exchange(seen.0, seen.with_lock().0, Ordering::Acquire, Ordering::Relaxed).ok().map(Entry)
    }

    /// Locks the page, or leaves word that a faulting thread waits for it: the holder wakes that thread at
    /// its unlock.
    pub(super) fn lock_or_wait(&self, gfn: Gfn) -> Option<Entry> {
        let word = &self.entries[gfn.index()];
        let mut seen = Entry(word.load(Ordering::Relaxed));
        loop {
            let wanted = if seen.locked() { seen.with_waiters() } else { seen.with_lock() };
            // Acquire: as in `try_lock`. Release is not needed: WAITERS publishes nothing but itself.
            match word.compare_exchange_weak(seen.0, wanted.0, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if seen.locked() => return None,
                Ok(_) => return Some(seen),
                Err(now) => seen = Entry(now),
            }
        }
    }

    /// Locks the page, waiting for whoever has it. For device threads, boot loading and the end of hinting
    /// only, and whoever waits for several pages takes them in rising order, so that two of them never wait
    /// for each other.
    pub(super) fn lock(&self, gfn: Gfn) -> Entry {
        loop {
            if let Some(entry) = self.try_lock(gfn) {
                return entry;
            }
            pause();
        }
    }

    /// Ends a transition from `old` to `new`; says whether a faulting thread waits to be woken.
    #[must_use = "a waiting thread sleeps until it is woken"]
    pub(super) fn unlock(&self, gfn: Gfn, old: Entry, new: Entry) -> bool {
        debug_assert!(!new.locked() && !new.waiters());
        if old.summed() != new.summed() {
            self.count(old, -1);
            self.count(new, 1);
        }
        // Release: whoever locks the page next sees all we did to it.
        let last = Entry(self.entries[gfn.index()].swap(new.0, Ordering::Release));
        debug_assert!(last.locked(), "unlocked by somebody else");
        let marked = [(&self.noise, new.is_noise(), last.is_noise()), (&self.lent, new.is_lent(), last.is_lent())];
        for (sum, is, was) in marked.into_iter().filter(|(_, is, was)| is != was) {
            sum.fetch_add(i64::from(is) - i64::from(was), Ordering::Relaxed);
        }
        last.waiters()
    }

    /// The entry of a page that the caller has locked: nobody else changes it, but for the mark of who waits.
    pub(super) fn held(&self, gfn: Gfn) -> Entry {
        let entry = self.peek(gfn);
        debug_assert!(entry.locked(), "asked of a page that is not locked");
        entry.unlocked()
    }

    fn count(&self, entry: Entry, by: i64) {
        self.by_state[entry.state() as usize].fetch_add(by, Ordering::Relaxed);
        match entry.state() {
            State::Zero if entry.touched() => _ = self.zero_touched.fetch_add(by, Ordering::Relaxed),
            State::Ballooned if entry.touched() => _ = self.ballooned_touched.fetch_add(by, Ordering::Relaxed),
            _ => {}
        }
        if entry.open() {
            self.open.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Pages by state.
    pub fn counts(&self) -> PageCounts {
        let count = |state: State| self.by_state[state as usize].load(Ordering::Relaxed).max(0) as u64;
        PageCounts {
            private: count(State::Private),
            shared: count(State::Shared),
            zero: count(State::Zero),
            ballooned: count(State::Ballooned),
            compressed: count(State::Compressed),
            swapped: count(State::Swapped),
            clean: count(State::Clean),
        }
    }

    /// Private pages.
    pub fn private(&self) -> u64 {
        self.by_state[State::Private as usize].load(Ordering::Relaxed).max(0) as u64
    }

    /// Private pages that did not compress when they were last tried.
    pub fn noise(&self) -> u64 {
        self.noise.load(Ordering::Relaxed).max(0) as u64
    }

    /// Private pages that the kernel has, as far as we know.
    pub fn lent(&self) -> u64 {
        self.lent.load(Ordering::Relaxed).max(0) as u64
    }

    /// Private pages in memory, as far as we know.
    pub fn here(&self) -> u64 {
        self.private().saturating_sub(self.lent())
    }

    /// Zero pages that the guest had touched.
    pub fn zero_touched(&self) -> u64 {
        self.zero_touched.load(Ordering::Relaxed).max(0) as u64
    }

    /// Ballooned pages that the guest had touched.
    pub fn ballooned_touched(&self) -> u64 {
        self.ballooned_touched.load(Ordering::Relaxed).max(0) as u64
    }

    /// Pages the kernel may copy without telling us.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed).max(0) as u64
    }
}
