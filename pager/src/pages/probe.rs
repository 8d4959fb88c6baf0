//! Which pages the guest uses, found out without its help: pages chosen at random are made absent, and looked
//! at again later.
//!
//! ```text
//!   Private, with a kernel tier --> lent                   an access brings it back: see `down::lend`
//!   Private, compresses        --> Compressed (or Zero)   an access brings it back: touched if it is Private
//!   Private, does not          --> protected, *probed*    a write takes the mark away; reads go unnoticed
//!   Shared                     --> the same, mapped no more   an access maps it again
//!   Zero, open / Shared, open  --> closed first
//!   evicted, zero, ballooned       as it is                    touched if it is backed then
//! ```
//!
//! There are no accessed bits to read from user space, so reclaim is the probe here, too (see
//! `memory::hands`): the sample costs the guest at most one fault a page and nothing in memory; what
//! it does not touch was rightly taken. Waldspurger's sampling (OSDI 2002, section 5.3) invalidates mappings
//! and keeps the pages; there is no such thing for a private mapping of a file: `UFFDIO_MOVE` wants anonymous
//! areas, `mprotect` splits them, and the kernel's idle-page tracking is not built everywhere.
//!
//! Pages of the swap file are never written for a sample: reading them back would cost too much.

use wire::{Gfn, PageBytes};

use super::{
    Error, Pages,
    table::{Entry, State},
};
use crate::mapping::{Mapped, Mapping};

/// How an access to a page will show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The page will be backed again.
    Backed,
    /// The page will be mapped again.
    Mapped,
    /// The page will lose its mark, if the access writes.
    Marked,
}

impl<M: Mapping> Pages<M> {
    /// Makes the next access to a page show. A page that somebody else is moving is left as it is.
    pub fn probe(&self, gfn: Gfn, buffer: &mut PageBytes) -> Result<Probe, Error> {
        if self.table.peek(gfn).open() {
            self.close_run(gfn.run())?;
        }
        match self.table.peek(gfn).state() {
            State::Private => self.probe_private(gfn, buffer),
            State::Shared => self.probe_shared(gfn),
            State::Zero | State::Ballooned | State::Compressed | State::Swapped | State::Clean => Ok(Probe::Backed),
        }
    }

    fn probe_shared(&self, gfn: Gfn) -> Result<Probe, Error> {
        let closed = |entry: Entry| entry.state() == State::Shared && !entry.open();
        if let Some(page) = self.lock_if(gfn, closed) {
            self.mapping.discard(gfn.run()).map_err(|source| Error::Kernel { action: "sampling", gfn, source })?;
            drop(page);
        }
        Ok(Probe::Mapped)
    }

    fn probe_private(&self, gfn: Gfn, buffer: &mut PageBytes) -> Result<Probe, Error> {
        let failed = |source| Error::Kernel { action: "sampling", gfn, source };
        let Some(page) = self.lock_here(gfn) else { return Ok(Probe::Backed) };
        if self.suits_kernel(&page, buffer) {
            self.lend(vec![page], Entry::into_probed)?;
            return Ok(Probe::Backed);
        }
        self.mapping.protect(gfn.run()).map_err(failed)?;
        self.mapping.read(gfn, buffer);
        let Some(stored) = self.store(gfn, buffer) else {
            let probed = page.entry().into_probed();
            page.turn_into(probed);
            return Ok(Probe::Marked);
        };
        self.mapping.discard(gfn.run()).map_err(failed)?;
        page.turn_into(if stored.state() == State::Compressed { stored.into_probed() } else { stored });
        Ok(Probe::Backed)
    }

    /// Whether the guest has used a page since it was probed.
    pub fn touched_since(&self, gfn: Gfn, probe: Probe) -> Result<bool, Error> {
        let entry = self.table.peek(gfn);
        match probe {
            Probe::Backed => Ok(entry.is_here() || entry.state() == State::Shared),
            Probe::Marked => Ok(entry.state() == State::Private && !entry.probed()),
            Probe::Mapped => {
                let Some(page) = self.lock_if(gfn, |entry| entry.state() == State::Shared) else {
                    return Ok(self.table.peek(gfn).state() == State::Private);
                };
                let mapped = self.mapping.mapped(page.gfn());
                let mapped = mapped.map_err(|source| Error::Kernel { action: "looking at", gfn, source })?;
                Ok(!matches!(mapped, Mapped::Absent | Mapped::Doubtful))
            }
        }
    }
}
