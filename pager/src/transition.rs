//! Every way a page can change state. Nothing else touches the mapping.
//!
//! ```text
//!                fault                     share                    fault (write): break
//!   Zero --------------------> Private --------------> Shared ----------------------------> Private
//!    ^  \__ zero_around: Zero, open     \-- drop_zero --> Zero
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
//! Pages given up without inflating become `Compressed` instead of `Zero` where the guest wants them filled with a pattern: a slot that
//! costs nothing, see `FILLED`.
//!
//! The order inside each transition is what makes it safe against the guest's threads, which know nothing of locks:
//!
//! 1. *lock* the entry, so that a fault on the page waits;
//! 2. *protect* the page, so that a write to it faults, and so waits;
//! 3. read it (compare, compress): nobody can change it now;
//! 4. *discard* it, map what takes its place;
//! 5. *unlock* with the new state, give back credits, and wake whoever waited.
//!
//! An error of the kernel in the middle of this is not repaired: it ends the guest, whose memory nobody reads any more.
//!
//! **Invariant:** a credit is taken before step 4 of whatever makes a page private.
//! **Invariant:** no transition waits for a lock while it holds one, a fault never waits at all.

mod ahead;
mod bring;
mod demote;
mod patch;
mod prefetch;
mod promote;
mod rejoin;
mod tidy;

use std::io;

use control::status::PageCounts;
use wire::{Frame, Gfn, PAGE_BYTES, PageBytes, Run, runs};

use crate::{
    accounts::{counters::Counters, credit::Credits, references::References},
    entry::{Entry, State, Taker},
    mapping::{Mapped, Mapping, Woken, pieces},
    rules::{
        reach::{REACH_MIN, Reach},
        victims::LIVES_WRITTEN,
    },
    sync::{Mutex, Ordering},
    sys::PageBuffer,
    table::PageTable,
    tiers::{
        image::{Image, ImageError},
        pool::Pool,
        swap::{ReadError, Swap},
    },
};

pub use ahead::AHEAD_MAX;
pub(crate) use ahead::reach as ahead;
pub(crate) use demote::in_pool;
pub use demote::{Evicted, Noise, Staging};
pub use promote::SwapIn;

/// How many pages ahead samples are fetched: memory answers in some 100 ns, a page is done in 20.
pub(crate) const PREFETCH: usize = 6;
/// Refaults: a page promoted within this many eras of its eviction.
const REFAULT_ERAS: u64 = 1;
/// Slots with this bit set are no slots but a repeated 32-bit pattern.
const FILLED: u64 = 1 << 39;

/// Why a page could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// the kernel refused
    #[error("{action} page {:#x} of the guest: {source}", gfn.0)]
    Kernel {
        /// What we were doing.
        action: &'static str,
        /// To which page.
        gfn: Gfn,
        /// The kernel's word.
        source: io::Error,
    },
    /// a page that nothing but its own copy backs is gone
    #[error("private page {:#x} of the guest is gone: somebody else changed its mapping", gfn.0)]
    Lost {
        /// Which page.
        gfn: Gfn,
    },
    /// a compressed page does not decompress
    #[error("compressed copy of page {:#x} in slot {slot:#x} is damaged", gfn.0)]
    Damaged {
        /// Which page.
        gfn: Gfn,
        /// Where its copy is.
        slot: u64,
    },
    /// a swapped page cannot be read back
    #[error(
        "page {:#x} of the guest (address {:#x}) cannot be read back from slot {slot} of its swap file: {source}",
        gfn.0, u64::from(gfn.0) * PAGE_BYTES as u64
    )]
    Unreadable {
        /// Which page.
        gfn: Gfn,
        /// Where its copy is.
        slot: u64,
        /// What is wrong with it.
        source: ReadError,
    },
    /// a clean page cannot be had from the image
    #[error(
        "page {:#x} of the guest (address {:#x}) cannot be read back from its image {name}: {source}",
        gfn.0, u64::from(gfn.0) * PAGE_BYTES as u64
    )]
    Image {
        /// Which page.
        gfn: Gfn,
        /// The image's file.
        name: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// a clean page without an image
    #[error("page {:#x} of the guest is in an image that does not exist", gfn.0)]
    NoImage {
        /// Which page.
        gfn: Gfn,
    },
    /// a swapped page without a swap file
    #[error("page {:#x} of the guest is in slot {slot} of a swap file that does not exist", gfn.0)]
    NoSwap {
        /// Which page.
        gfn: Gfn,
        /// Where its copy should be.
        slot: u64,
    },
}

/// What became of a fault.
#[derive(Debug, PartialEq, Eq)]
pub enum Served {
    /// The page is there; whoever waited for it has been woken.
    Done,
    /// Somebody is moving the page and will wake who waits for it.
    Moving,
    /// There is no credit; the fault must be served again.
    NoCredit,
    /// The page is on disk: whoever may wait for that brings it back, and wakes who waits.
    Read(SwapIn),
}

/// A guest's pages: the table, and all it speaks of.
pub struct Pages<M> {
    pub(crate) table: PageTable,
    pub(crate) credits: Credits,
    pub(crate) references: References,
    pub(crate) pool: Mutex<Pool>,
    pub(crate) swap: Option<Swap>,
    pub(crate) image: Option<Image>,
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

    /// Serves one fault on `gfn`. Never waits for a lock or for memory. `buffer` is for at least one page; with one for [`AHEAD_MAX`] pages those that
    /// come along are mapped together.
    pub fn fault(&self, gfn: Gfn, write: bool, buffer: &mut PageBuffer) -> Result<Served, Error> {
        let Some(entry) = self.table.lock_or_wait(gfn) else { return Ok(Served::Moving) };
        let failed = |action| move |source| Error::Kernel { action, gfn, source };
        let result = match entry.state() {
            // Served by somebody else between the fault and now, or protected for a transition that came to nothing.
            State::Private => match self.mapping.mapped(gfn) {
                Ok(Mapped::Absent) => Err(Error::Lost { gfn }),
                _ => {
                    let writable = self.mapping.unprotect(gfn.run()).map_err(failed("unprotecting"));
                    writable.map(|()| Some((entry.into_unwatched(), Woken::Nobody)))
                }
            },
            State::Shared if !write || entry.open() => {
                let mapped = self.mapping.map_placed(gfn.run(), entry.open());
                // An open page can have been protected by mistake.
                let writable = mapped.and_then(|()| if write { self.mapping.unprotect(gfn.run()) } else { Ok(()) });
                writable.map(|()| Some((entry, Woken::Nobody))).map_err(failed("mapping the frame of"))
            }
            State::Shared => self.break_share(gfn, entry).map_err(failed("breaking the share of")),
            State::Zero | State::Ballooned => self.fill_zero(gfn, entry, write).map_err(failed("zeroing")),
            State::Compressed => self.promote(gfn, entry, buffer),
            State::Swapped | State::Clean => return Ok(self.begin_swap_in(gfn, entry)),
        };
        match result {
            Ok(Some((new, woken))) => {
                // Who came after all were woken has left a mark.
                if self.table.unlock(gfn, entry, new) || woken == Woken::Nobody {
                    self.mapping.wake(gfn.run());
                }
                Ok(Served::Done)
            }
            Ok(None) => {
                self.unlock(gfn, entry, entry);
                Ok(Served::NoCredit)
            }
            Err(error) => {
                self.unlock(gfn, entry, entry);
                Err(error)
            }
        }
    }

    /// A write to a shared page: it gets a copy of its own.
    fn break_share(&self, gfn: Gfn, entry: Entry) -> io::Result<Option<(Entry, Woken)>> {
        if !self.credits.take(1) {
            return Ok(None);
        }
        let frame = entry.frame();
        self.mapping.discard(gfn.run())?;
        let woken = self.mapping.copy_frame(gfn, frame)?;
        self.references.remove(frame);
        self.counters.breaks.fetch_add(1, Ordering::Relaxed);
        Ok(Some((Entry::private_with(LIVES_WRITTEN), woken)))
    }

    /// A first touch: the zero page for it, and for untouched neighbours while credits last.
    ///
    /// The page is open from now on, even if this touch is a write: the kernel's copy comes only when the thread tries again,
    /// and until then a hole punched in the store at the page's placement takes the zero page away once more.
    ///
    /// A sweep that writes gets pages of its own instead: a vCPU that breaks the zero page loses what KVM had mapped for it, and faults
    /// once more. They are zero until they are written to, so those that the sweep does not come to are dropped as such.
    fn fill_zero(&self, gfn: Gfn, entry: Entry, write: bool) -> io::Result<Option<(Entry, Woken)>> {
        if !entry.open() && !self.credits.take(1) {
            return Ok(None);
        }
        let neighbours = if entry == Entry::UNTOUCHED { self.lock_untouched_after(gfn) } else { 0 };
        let run = Run { first: gfn, count: 1 + neighbours };
        if let Some(taker) = entry.taken().filter(|_| entry.eras_since_taken(self.counters.era()) <= REFAULT_ERAS) {
            self.counters.back_soon(taker);
        }
        let is_sweep = write && entry == Entry::UNTOUCHED && self.reach.follows(gfn);
        let (new, woken) = match is_sweep {
            true => (Entry::fresh(), self.mapping.clear(run)?),
            false => (Entry::zero_open(), self.mapping.zero(run)?),
        };
        run.skip(1).gfns().for_each(|gfn| self.unlock(gfn, Entry::UNTOUCHED, new));
        if entry == Entry::UNTOUCHED {
            self.reach.opened(gfn, run.count);
        }
        Ok(Some((new, woken)))
    }

    /// Locks and pays for untouched pages behind `gfn`; how many.
    fn lock_untouched_after(&self, gfn: Gfn) -> u32 {
        let first = gfn.plus(1);
        // What is opened takes credits that other faults may need sooner: a sweep gets the eighth part of them.
        let spare = u32::try_from(self.credits.available() / 8).unwrap_or(0).max(REACH_MIN);
        let most = (self.reach.pages(gfn).min(spare) - 1).min(self.table.pages() - first.0);
        let fresh = (0..most).take_while(|&i| self.table.peek(first.plus(i)) == Entry::UNTOUCHED).count();
        let credits = self.credits.take_up_to(fresh as i64);
        let lock = |gfn| self.lock_if(gfn, |entry| entry == Entry::UNTOUCHED).is_some();
        let count = (0..credits as u32).take_while(|&i| lock(first.plus(i))).count() as u32;
        self.credits.give(credits - i64::from(count));
        count
    }

    /// Boot loading: gives an untouched page its first content. False when there is no credit.
    pub fn populate(&self, gfn: Gfn, bytes: &PageBytes) -> Result<bool, Error> {
        let entry = self.table.lock(gfn);
        debug_assert_eq!(entry, Entry::UNTOUCHED);
        let paid = self.credits.take(1);
        let result = if paid { self.mapping.copy(gfn.run(), bytes) } else { Ok(Woken::Nobody) };
        let new = if paid && result.is_ok() { Entry::private() } else { entry };
        self.image.iter().for_each(|image| image.note(gfn, bytes));
        self.unlock(gfn, entry, new);
        match result {
            Ok(_) => Ok(paid),
            Err(source) => {
                self.credits.give(1);
                Err(Error::Kernel { action: "loading", gfn, source })
            }
        }
    }

    /// Drops private pages that are all zero. How many were.
    pub fn drop_zero(&self, run: Run) -> Result<u32, Error> {
        let mut dropped = 0;
        // Most that are not zero are spared the protection.
        let (zero, other): (Vec<_>, Vec<_>) =
            self.lock_private(run).into_iter().partition(|&(gfn, _)| self.mapping.is_zero(gfn));
        other.into_iter().for_each(|(gfn, entry)| self.unlock(gfn, Entry::private(), entry));
        for run in runs(zero.into_iter().map(|(gfn, _)| gfn)).flat_map(pieces) {
            let mut error = self.mapping.protect(run).err();
            let is_zero = |&gfn: &Gfn| error.is_none() && self.mapping.is_zero(gfn);
            let (zero, other): (Vec<_>, Vec<_>) = run.gfns().partition(is_zero);
            for run in runs(other) {
                error = self.mapping.unprotect(run).err().or(error);
                run.gfns().for_each(|gfn| self.unlock(gfn, Entry::private(), Entry::private()));
            }
            for run in runs(zero) {
                dropped += run.count;
                error = self.mapping.discard(run).err().or(error);
                run.gfns().for_each(|gfn| self.unlock(gfn, Entry::private(), self.found_zero()));
            }
            if let Some(source) = error {
                return Err(Error::Kernel { action: "dropping", gfn: run.first, source });
            }
        }
        Ok(dropped)
    }

    /// The guest gave up these pages: nothing backs them any more.
    pub fn inflate(&self, run: Run) -> Result<(), Error> {
        let lock_all = |run: Run| run.gfns().map(|gfn| (gfn, self.table.lock(gfn))).collect();
        pieces(self.clip(run)).try_for_each(|run| self.give_up(lock_all(run), Taker::Balloon, Entry::into_ballooned))
    }

    /// A page that was found to be all zero, and what was behind it is taken.
    fn found_zero(&self) -> Entry {
        self.counters.took(Taker::Zero, 1);
        Entry::zero_touched().taken_by(Taker::Zero, self.counters.era())
    }

    /// The guest reported these pages free: nothing backs them, and it may touch them again without a word. It finds them zero, or
    /// filled with the pattern.
    pub fn report_free(&self, run: Run, pattern: u32) -> Result<(), Error> {
        let lock_all = |run: Run| run.gfns().map(|gfn| (gfn, self.table.lock(gfn))).collect();
        pieces(self.clip(run))
            .try_for_each(|run| self.give_up(lock_all(run), Taker::Reporting, self.filled_after(pattern)))
    }

    /// From now on it is known whether these pages are written to. Pages with nothing to lose, in motion, or that the kernel may copy
    /// without us are left out.
    pub fn watch(&self, run: Run) -> Result<(), Error> {
        let has_content = |entry: Entry| {
            let has = matches!(entry.state(), State::Private | State::Shared | State::Compressed);
            has && !entry.open() && !entry.watched()
        };
        for run in pieces(self.clip(run)) {
            let locked = |gfn| self.lock_if(gfn, has_content).map(|entry| (gfn, entry));
            let entries: Vec<_> = run.gfns().filter_map(locked).collect();
            let private = entries.iter().filter(|(_, entry)| entry.state() == State::Private);
            let protected = runs(private.map(|&(gfn, _)| gfn)).try_for_each(|run| self.mapping.protect(run));
            for (gfn, entry) in entries {
                self.unlock(gfn, entry, if protected.is_ok() { entry.into_watched() } else { entry });
            }
            protected.map_err(|source| Error::Kernel { action: "watching", gfn: run.first, source })?;
        }
        Ok(())
    }

    /// The guest said, at some time since [`Pages::watch`], that these pages were free. Those that nobody wrote to since that watch began
    /// go as in [`Pages::report_free`]; all others stay. How many went.
    pub fn drop_hinted(&self, run: Run, pattern: u32) -> Result<u32, Error> {
        let mut dropped = 0;
        for run in pieces(self.clip(run)) {
            let locked = |gfn| self.lock_if(gfn, Entry::watched).map(|entry| (gfn, entry));
            let entries: Vec<_> = run.gfns().filter_map(locked).collect();
            let count = entries.len() as u32;
            self.give_up(entries, Taker::Reporting, self.filled_after(pattern))?;
            dropped += count;
        }
        Ok(dropped)
    }

    /// Ends [`Pages::watch`]. Once this has returned, no hint drops anything.
    pub fn unwatch(&self, run: Run) -> Result<(), Error> {
        for run in pieces(self.clip(run)) {
            // Waits for pages in motion: they may be watched still when they come to rest.
            let watched = |gfn: &Gfn| self.table.peek(*gfn).watched();
            let entries: Vec<_> = run.gfns().filter(watched).map(|gfn| (gfn, self.table.lock(gfn))).collect();
            let private = entries.iter().filter(|(_, entry)| entry.watched() && entry.state() == State::Private);
            let writable = runs(private.map(|&(gfn, _)| gfn)).try_for_each(|run| self.mapping.unprotect(run));
            entries.into_iter().for_each(|(gfn, entry)| self.unlock(gfn, entry, entry.into_unwatched()));
            writable.map_err(|source| Error::Kernel { action: "unwatching", gfn: run.first, source })?;
        }
        Ok(())
    }

    /// What becomes of a page that the guest does not need, but wants to find filled with a pattern if it comes back.
    fn filled_after(&self, pattern: u32) -> impl Fn(Entry) -> Entry {
        let left = self.now();
        move |entry| match pattern {
            0 => entry.into_zero(),
            _ => Entry::compressed(FILLED | u64::from(pattern), left),
        }
    }

    /// Takes what backs these pages, which are locked, and unlocks them.
    fn give_up(&self, entries: Vec<(Gfn, Entry)>, taker: Taker, into: impl Fn(Entry) -> Entry) -> Result<(), Error> {
        let backed =
            entries.iter().filter(|(_, entry)| entry.state() != State::Ballooned && *entry != Entry::UNTOUCHED);
        let discard = |run: Run| self.mapping.discard(run).map_err(|source| (run.first, source));
        let discarded = runs(backed.map(|&(gfn, _)| gfn)).try_for_each(discard);
        if let Err((gfn, source)) = discarded {
            entries.into_iter().for_each(|(gfn, entry)| self.unlock(gfn, entry, entry));
            return Err(Error::Kernel { action: "giving up", gfn, source });
        }
        let (era, mut taken) = (self.counters.era(), 0);
        for (gfn, entry) in entries {
            let mut new = into(entry);
            // An open page has its credit, and most likely a copy that nobody has noted yet.
            if entry.open() || !matches!(entry.state(), State::Zero | State::Ballooned) {
                taken += 1;
                // One that is to be found filled remembers by itself when it left.
                new = if new.state() == State::Compressed { new } else { new.taken_by(taker, era) };
            }
            match entry.state() {
                State::Shared => self.references.remove(entry.frame()),
                _ => self.free_backing(entry),
            }
            self.unlock(gfn, entry, new);
        }
        self.counters.took(taker, taken);
        Ok(())
    }

    /// The guest wants these pages back; those that are not ballooned stay as they are.
    pub fn deflate(&self, run: Run) {
        for gfn in self.clip(run).gfns() {
            let entry = self.table.lock(gfn);
            let new = if entry.state() == State::Ballooned { entry.into_zero() } else { entry };
            self.unlock(gfn, entry, new);
        }
    }

    /// Calls `visit` with a digest of each private page of the run that is not in motion; see [`Mapping::sample`].
    pub fn sample_private(&self, run: Run, visit: &mut dyn FnMut(Gfn, u64)) {
        let run = self.clip(run);
        for gfn in run.gfns() {
            if gfn.0 + (PREFETCH as u32) < run.first.0 + run.count {
                self.mapping.prefetch(gfn.plus(PREFETCH as u32));
            }
            let Some((_, entry)) = self.lock_one_private(gfn) else { continue };
            let sample = self.mapping.sample(gfn);
            self.unlock(gfn, Entry::private(), entry);
            visit(gfn, sample);
        }
    }

    /// Copies out a page, if it is private or in the pool, and not in motion. It is not touched by that.
    pub fn read_held(&self, gfn: Gfn, into: &mut PageBytes) -> bool {
        let held = |entry: Entry| entry.state() == State::Private || in_pool(entry);
        let Some(entry) = self.clip(gfn.run()).gfns().next().and_then(|gfn| self.lock_if(gfn, held)) else {
            return false;
        };
        let is_read = match entry.state() {
            State::Private => {
                self.mapping.read(gfn, into);
                true
            }
            // Whoever needs the page will learn that it is damaged.
            _ => self.content(gfn, entry, into).is_ok(),
        };
        self.unlock(gfn, entry, entry);
        is_read
    }

    /// Whether the page is in the pool, and takes room there.
    pub fn is_pooled(&self, gfn: Gfn) -> bool {
        in_pool(self.table.peek(gfn))
    }

    /// The hand passes a private page: it has a life less, and `retry` says whether to try again to compress it.
    pub(crate) fn cool(&self, gfn: Gfn, retry: bool) {
        if let Some((_, entry)) = self.lock_one_private(gfn) {
            let new = if retry { entry.cooled().compressible_again() } else { entry.cooled() };
            self.unlock(gfn, entry, new);
        }
    }

    /// The scanner has dealt with these pages: whether others have what is in them is known, or cannot be.
    pub fn seen(&self, gfns: impl Iterator<Item = Gfn>) {
        for gfn in gfns.filter(|&gfn| self.table.peek(gfn).unseen()) {
            if let Some((_, entry)) = self.lock_one_private(gfn) {
                self.unlock(gfn, entry, entry.into_seen());
            }
        }
    }

    pub(crate) fn clip(&self, run: Run) -> Run {
        let first = run.first.0.min(self.table.pages());
        Run { first: Gfn(first), count: run.count.min(self.table.pages() - first) }
    }

    /// Locks the page if it is private, without waiting.
    pub(crate) fn lock_one_private(&self, gfn: Gfn) -> Option<(Gfn, Entry)> {
        self.lock_if(gfn, |entry| entry.state() == State::Private).map(|entry| (gfn, entry))
    }

    pub(crate) fn lock_if(&self, gfn: Gfn, wanted: impl Fn(Entry) -> bool) -> Option<Entry> {
        if !wanted(self.table.peek(gfn)) {
            return None;
        }
        let entry = self.table.try_lock(gfn)?;
        if wanted(entry) {
            return Some(entry);
        }
        self.unlock(gfn, entry, entry);
        None
    }

    pub(crate) fn lock_private(&self, run: Run) -> Vec<(Gfn, Entry)> {
        self.clip(run).gfns().filter_map(|gfn| self.lock_one_private(gfn)).collect()
    }

    /// Ends a transition: the new entry, the credits it no longer carries, and a wake for whoever waited.
    ///
    /// `old` may leave out flags that do not bear on counts (lives, incompressible).
    pub(crate) fn unlock(&self, gfn: Gfn, old: Entry, new: Entry) {
        let released = old.credits() - new.credits();
        if released > 0 {
            self.credits.give(released);
        }
        if self.table.unlock(gfn, old, new) {
            self.mapping.wake(gfn.run());
        }
    }
}
