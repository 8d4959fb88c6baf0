//! Pages on their way to the swap file, one write's worth.
//!
//! They stay locked and protected until the file has them, and are discarded only then. Reads of them go on;
//! a write waits, and calls the page's departure off.

use std::io;

use wire::{Gfn, PageBytes};

use crate::{
    mapping::Mapping,
    pages::locked::Locked,
    sys::PageBuffer,
    tiers::{squeeze::Squeeze, swap::Swap},
};

/// What evicting works in, made once: room for pages to be written together, and a compressor.
pub struct Staging {
    pub(super) buffer: PageBuffer,
    pub(super) squeeze: Squeeze,
}

impl Staging {
    /// Room for `pages` pages, at least one.
    pub fn new(pages: usize) -> io::Result<Staging> {
        Ok(Staging { buffer: PageBuffer::new(pages)?, squeeze: Squeeze::new()? })
    }

    /// Room for one page while nothing is staged.
    pub(super) fn page(&mut self) -> &mut PageBytes {
        self.buffer.page_mut(0)
    }

    /// That page, and what compresses it.
    pub(super) fn page_and_squeeze(&mut self) -> (&PageBytes, &mut Squeeze) {
        (self.buffer.page(0), &mut self.squeeze)
    }
}

/// What became of a staged page.
pub(super) enum Fate {
    /// It is in this slot of the file.
    Written(u64),
    /// It is in the file, but a thread of the guest waits for it.
    Wanted,
    /// It is not in the file.
    Kept,
}

/// Locked pages that are staged: their content is in the buffer, in order.
pub(super) struct Staged<'s, 'p, M: Mapping> {
    pages: Vec<Locked<'p, M>>,
    staging: &'s mut Staging,
}

impl<'s, 'p, M: Mapping> Staged<'s, 'p, M> {
    pub fn new(staging: &'s mut Staging) -> Self {
        Staged { pages: Vec::new(), staging }
    }

    /// Where the bytes of the next page go.
    pub fn next(&mut self) -> &mut PageBytes {
        self.staging.buffer.page_mut(self.pages.len())
    }

    /// The next page's bytes, and what compresses them.
    pub fn next_and_squeeze(&mut self) -> (&PageBytes, &mut Squeeze) {
        (self.staging.buffer.page(self.pages.len()), &mut self.staging.squeeze)
    }

    /// The page whose bytes are next is to be written.
    pub fn push(&mut self, page: Locked<'p, M>) {
        self.pages.push(page);
    }

    pub fn is_full(&self) -> bool {
        self.pages.len() == self.staging.buffer.pages()
    }

    /// Writes what is staged, and says of each page, in order, what became of it; empty afterwards.
    pub fn write(&mut self, swap: &Swap, now_ms: u64) -> Vec<(Locked<'p, M>, Fate)> {
        let gfns: Vec<Gfn> = self.pages.iter().map(Locked::gfn).collect();
        let mut fates: Vec<_> = self.pages.drain(..).map(|page| (page, Fate::Kept)).collect();
        swap.write(&gfns, &self.staging.buffer, now_ms, |index, slot| {
            let (page, fate) = &mut fates[index];
            *fate = if page.is_wanted() {
                swap.free(slot);
                Fate::Wanted
            } else {
                Fate::Written(slot)
            };
        });
        fates
    }
}
