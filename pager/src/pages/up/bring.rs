//! Many at once: neighbouring pages that come back from a tier are read into one buffer and mapped by one
//! COPY.
//!
//! ```text
//!   lock_compressed   Compressed, lock, credit, decompress --+
//!   lock_in_file      Swapped, slots side by side, or        +--> buffer | 0 | 1 | 2 | ... |
//!                     Clean, lock, credit ... read ----------+      map: one COPY --> Private, unlock, wake
//! ```
//!
//! A COPY costs a system call and a look at the areas, whatever its length. All pages of a run are locked
//! until it is mapped: a thread of the guest that wants one waits for the rest of its run, some tens of
//! microseconds.

use wire::{Gfn, Run};

use crate::{
    mapping::Mapping,
    pages::{
        Error, Pages,
        locked::PaidRun,
        table::{Entry, Page, State},
    },
    sys::PageBuffer,
};

/// Whether a page lies `behind` pages behind that of `first` in the same file. (Clean pages of neighbours
/// always do: the image is RAM as it was.)
fn follows(entry: Entry, first: Entry, behind: u32) -> bool {
    match (first.decode(), entry.decode()) {
        (Page::Swapped { slot: first }, Page::Swapped { slot }) => slot == first + u64::from(behind),
        (Page::Clean, Page::Clean) => true,
        _ => false,
    }
}

impl<M: Mapping> Pages<M> {
    /// Locks, pays for and decompresses pages from the beginning of `run` on, as far as they are compressed
    /// and `wanted` and there is room in `buffer`. Gives those that were.
    pub(super) fn lock_compressed(
        &self,
        run: Run,
        wanted: impl Fn(Entry) -> bool,
        buffer: &mut PageBuffer,
    ) -> Result<PaidRun<'_, M>, Error> {
        let mut pages = PaidRun::empty(self, run.first);
        for (at, gfn) in run.gfns().take(buffer.pages()).enumerate() {
            let away = |entry: Entry| entry.state() == State::Compressed && wanted(entry);
            let Some(page) = self.lock_if(gfn, away) else { break };
            let entry = page.entry();
            if !pages.pay(page) {
                break;
            }
            self.content(gfn, entry, buffer.page_mut(at))?;
        }
        Ok(pages)
    }

    /// Locks and pays for pages behind those in `pages`, up to `most` in all, as far as they are `wanted` and
    /// lie side by side in the file that the first is in.
    pub(super) fn lock_in_file<'p>(&'p self, pages: &mut PaidRun<'p, M>, most: u32, wanted: impl Fn(Entry) -> bool) {
        let (first, start) = (pages.first(), pages.run().first);
        for behind in pages.run().count..most {
            let next = |entry: Entry| follows(entry, first, behind) && wanted(entry);
            let Some(page) = self.lock_if(start.plus(behind), next) else { break };
            if !pages.pay(page) {
                break;
            }
        }
    }

    /// Maps pages whose content is in `buffer`. They make room where they were, and become what `into` says.
    pub(super) fn map(
        &self,
        pages: PaidRun<'_, M>,
        buffer: &PageBuffer,
        into: impl Fn(Gfn, Entry) -> Entry,
    ) -> Result<(), Error> {
        let run = pages.run();
        if run.count == 0 {
            return Ok(());
        }
        let copied = self.mapping.copy(run, buffer.bytes(0, run.count as usize));
        let woken = copied.map_err(|source| Error::Kernel { action: "bringing back", gfn: run.first, source })?;
        // Who came after COPY woke all has left a mark.
        pages.turn_each(woken, |gfn, entry| {
            self.free_backing(entry);
            into(gfn, entry)
        });
        Ok(())
    }
}
