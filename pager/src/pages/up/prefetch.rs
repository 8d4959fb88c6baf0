//! Back in bulk: pages of a [`WorkingSet`], in address order, before anybody asks for them.
//!
//! ```text
//!   from .... | - | C | C | C | - | S | S | ...     C: one run, decompressed, one COPY
//!                                                   S: side by side in a file: one read, one COPY
//! ```

use wire::{Gfn, Run};

use crate::{
    mapping::Mapping,
    pages::{
        Error, Pages,
        locked::PaidRun,
        table::{Entry, State},
    },
    rules::working_set::WorkingSet,
    sync::Ordering,
    sys::PageBuffer,
};

/// Lives of a page that was prefetched: it was in use once, but whether it is again nobody sees.
const LIVES_PREFETCHED: u8 = 1;

impl<M: Mapping> Pages<M> {
    /// Brings back the first run of pages of `set` at `from` or behind it, at most `most` pages and what
    /// `buffer` holds, as far as there are credits. Says where to go on, nothing at the end of RAM. May wait
    /// for the disk; a page that cannot be read stays until it is asked for.
    pub fn prefetch(
        &self,
        set: WorkingSet,
        from: Gfn,
        most: u32,
        buffer: &mut PageBuffer,
    ) -> Result<Option<Gfn>, Error> {
        let (now, evictions) = (self.now(), self.counters.evictions_total.load(Ordering::Relaxed));
        let wanted = |entry: Entry| {
            let left = entry.is_away().then(|| entry.left()).or(entry.lent());
            let contains = |left| set.contains(left, now, evictions, self.eviction_unit());
            !entry.probed() && left.is_some_and(contains)
        };
        let rest = Run { first: from, count: self.table.pages().saturating_sub(from.0) };
        let Some(first) = rest.gfns().find(|&gfn| wanted(self.table.peek(gfn))) else { return Ok(None) };
        let count = most.min(self.table.pages() - first.0).min(buffer.pages() as u32);
        let run = Run { first, count };
        if self.table.peek(first).is_lent() {
            return Ok(Some(first.plus(self.take_back(run, wanted).max(1))));
        }
        let pages = match self.table.peek(first).state() {
            State::Compressed => self.lock_compressed(run, wanted, buffer)?,
            _ => self.read_some(run, wanted, buffer),
        };
        let count = pages.run().count;
        self.map(pages, buffer, |_, _| Entry::private_with(LIVES_PREFETCHED))?;
        self.counters.prefetched_total.fetch_add(u64::from(count), Ordering::Relaxed);
        // At least one: that in front may be in motion, and is then asked for already.
        Ok(Some(first.plus(count.max(1))))
    }

    /// Has the kernel bring lent pages back, from the beginning of `run` on. How many.
    fn take_back(&self, run: Run, wanted: impl Fn(Entry) -> bool) -> u32 {
        let lent = |entry: Entry| entry.is_lent() && wanted(entry);
        let mut count = 0;
        for page in run.gfns().map_while(|gfn| self.lock_if(gfn, lent)) {
            // `MADV_WILLNEED` does not bring back what is private in a mapping of a file; a touch does.
            self.mapping.sample(page.gfn());
            let here = page.entry().into_here(LIVES_PREFETCHED);
            page.turn_into(here);
            count += 1;
        }
        self.counters.prefetched_total.fetch_add(u64::from(count), Ordering::Relaxed);
        count
    }

    /// Locks, pays for and reads pages from the beginning of `run` on.
    fn read_some(&self, run: Run, wanted: impl Fn(Entry) -> bool, buffer: &mut PageBuffer) -> PaidRun<'_, M> {
        let none = || PaidRun::empty(self, run.first);
        let in_file = |entry: Entry| matches!(entry.state(), State::Swapped | State::Clean) && wanted(entry);
        let (mut pages, first) = (none(), self.lock_if(run.first, in_file));
        if !first.is_some_and(|page| pages.pay(page)) {
            return none();
        }
        self.lock_in_file(&mut pages, run.count, wanted);
        // What is wrong with the disk is told to whoever needs the page.
        if self.read_back(&mut pages, buffer).is_err() { none() } else { pages }
    }
}
