//! Every way a page can change state. Nothing else touches the mapping, and nothing else locks a page.
//!
//! ```text
//!                fault                     share                    fault (write): break
//!   Zero --------------------> Private --------------> Shared ----------------------------> Private
//!    ^  \__ fault: Zero, open               \-- drop_zero --> Zero
//!    |                          |
//!    | deflate, report_free     | evict                    fault
//!    |                          +---------> Compressed ------------> Private
//!    |                          |               | write_back
//!    |                          |               v          swap_in
//!    |                          +---------> Swapped ---------------> Private
//!   Ballooned <--- inflate --- any state
//!
//!   Compressed --- rejoin: equal to the frame at its address ---> Shared
//!
//!   Private, Shared, Compressed --- watch ---> the same, *watched* --- drop_hinted ---> Zero
//!                                                    `-- written, moved, unwatch --> the same
//! ```
//!
//! A first touch maps the zero page *open*: the kernel copies it on the first write without a word, which
//! `note_written` and `close_open` find out later. Pages given up without inflating are `Filled` instead of
//! `Zero` where the guest wants them filled with a pattern: that costs nothing to keep.
//!
//! | where to look | what is there |
//! |---|---|
//! | [`table`], [`locked`] | one word a page, its lock, and the sums; the lock in hand |
//! | [`fault`] | what a touch does |
//! | [`load`], [`zero`], [`give_up`] | boot loading; pages that are all zero; the balloon |
//! | [`hint`], [`scan`] | free page hinting; what the scanner and the hand note of a page |
//! | [`share`] | how a page comes to share a frame, at home or elsewhere; how aliases end |
//! | [`open`], [`probe`] | pages that the kernel may copy without us; which pages the guest uses |
//! | [`down`], [`up`] | to the tiers and within them; back from them |
//!
//! The order inside each transition is what makes it safe against the guest's threads, which know nothing of
//! locks:
//!
//! 1. *lock* the entry, so that a fault on the page waits;
//! 2. *protect* the page, so that a write to it faults, and so waits;
//! 3. read it (compare, compress): nobody can change it now;
//! 4. *discard* it, map what takes its place;
//! 5. *unlock* with the new state, give back credits, and wake whoever waited.
//!
//! An error of the kernel in the middle of this is not repaired: it ends the guest, whose memory nobody reads
//! any more. No page stays locked for that.
//!
//! **Invariant:** a credit is taken before step 4 of whatever makes a page private.
//! **Invariant:** no transition waits for a lock while it holds one, a fault never waits at all.

mod down;
mod error;
mod fault;
mod give_up;
mod hint;
mod load;
mod locked;
mod open;
pub(crate) mod probe;
mod scan;
mod share;
pub(crate) mod table;
mod up;
mod zero;

use control::status::PageCounts;
use wire::{Frame, Gfn, Run};

use crate::{
    accounts::{counters::Counters, credit::Credits, references::References},
    mapping::Mapping,
    rules::reach::Reach,
    sync::Mutex,
    tiers::{image::Image, kernel::KernelTier, pool::Pool, swap::Swap},
};
use table::{PageTable, State};

pub use down::evict::{Evicted, Noise};
pub use down::staging::Staging;
pub use error::Error;
pub use fault::Served;
pub use locked::SwapIn;

/// A guest's pages: the table, and all it speaks of.
pub struct Pages<M> {
    pub(crate) table: PageTable,
    pub(crate) credits: Credits,
    pub(crate) references: References,
    pub(crate) pool: Mutex<Pool>,
    pub(crate) swap: Option<Swap>,
    pub(crate) image: Option<Image>,
    pub(crate) kernel: KernelTier,
    pub(crate) reach: Reach,
    /// How far to read ahead of pages that come back from a tier.
    pub(crate) ahead: Reach,
    pub(crate) mapping: M,
    pub(crate) counters: Counters,
    pub(crate) vma_budget: u32,
    /// With at least so many credits to spare, shared pages are open.
    pub(crate) open_credits: i64,
}

impl<M: Mapping> Pages<M> {
    /// The page's state at this moment.
    pub fn state(&self, gfn: Gfn) -> State {
        self.table.peek(gfn).state()
    }

    /// Pages of RAM.
    pub fn count(&self) -> u32 {
        self.table.pages()
    }

    /// Pages by state.
    pub fn counts(&self) -> PageCounts {
        self.table.counts()
    }

    /// Which frames the guest holds.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Address-space areas that aliases cost now.
    pub fn vmas(&self) -> u32 {
        self.mapping.vmas()
    }

    /// Whether the host has announced the frame.
    pub fn published(&self, frame: Frame) -> bool {
        self.mapping.published(frame)
    }

    /// Gives up what is kept only to read frames faster: for the end of a scan.
    pub fn forget_frames(&self) {
        self.mapping.forget_frames();
    }

    pub(crate) fn clip(&self, run: Run) -> Run {
        let first = run.first.0.min(self.table.pages());
        Run { first: Gfn(first), count: run.count.min(self.table.pages() - first) }
    }
}
