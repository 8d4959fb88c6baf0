//! Back in bulk: pages of a [`WorkingSet`], in address order, before anybody asks for them.
//!
//! ```text
//!   from .... | - | C | C | C | - | S | S | ...        C: one run, decompressed, one COPY        S: side by side in a file: one read, one COPY
//! ```

use super::{Error, Pages, bring::is_away};
use wire::{Gfn, Run};

use crate::{
    entry::{Entry, State},
    mapping::Mapping,
    rules::working_set::WorkingSet,
    sync::Ordering,
    sys::PageBuffer,
};

/// Lives of a page that was prefetched: it was in use once, but whether it is again nobody sees.
const LIVES_PREFETCHED: u8 = 1;

impl<M: Mapping> Pages<M> {
    /// Brings back the first run of pages of `set` at `from` or behind it, at most `most` pages and what `buffer` holds, as far as there are
    /// credits. Says where to go on, nothing at the end of RAM. May wait for the disk; a page that cannot be read stays until it is asked for.
    pub fn prefetch(
        &self,
        set: WorkingSet,
        from: Gfn,
        most: u32,
        buffer: &mut PageBuffer,
    ) -> Result<Option<Gfn>, Error> {
        let (now, evictions) = (self.now(), self.counters.evictions.load(Ordering::Relaxed));
        let wanted = |entry: Entry| {
            is_away(entry) && !entry.probed() && set.contains(entry.left(), now, evictions, self.eviction_unit())
        };
        let rest = Run { first: from, count: self.table.pages().saturating_sub(from.0) };
        let Some(first) = rest.gfns().find(|&gfn| wanted(self.table.peek(gfn))) else { return Ok(None) };
        let count = most.min(self.table.pages() - first.0).min(buffer.pages() as u32);
        let (run, entry) = (Run { first, count }, self.table.peek(first).unlocked());
        let back = match entry.state() {
            State::Compressed => self.lock_compressed(run, wanted, buffer)?,
            _ => self.read_some(run, entry, wanted, buffer),
        };
        self.map(back, buffer, 0, |_, _| Entry::private_with(LIVES_PREFETCHED))?;
        self.counters.prefetched.fetch_add(u64::from(back.count), Ordering::Relaxed);
        // At least one: that in front may be in motion, and is then asked for already.
        Ok(Some(first.plus(back.count.max(1))))
    }

    /// Locks, pays for and reads pages from the beginning of `run` on.
    fn read_some(&self, run: Run, entry: Entry, wanted: impl Fn(Entry) -> bool, buffer: &mut PageBuffer) -> Run {
        let run = self.lock_in_file(run, entry, 0, wanted);
        if run.count == 0 {
            return run;
        }
        // What is wrong with the disk is told to whoever needs the page.
        let read = self.read_back(run, self.table.peek(run.first).unlocked(), buffer).unwrap_or_else(|_| {
            self.give_back(run.first);
            0
        });
        Run { count: read, ..run }
    }
}
