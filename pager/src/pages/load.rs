//! Boot loading: what a page has before the guest runs.

use wire::{Gfn, PageBytes};

use super::{Error, Pages, table::Entry};
use crate::mapping::Mapping;

impl<M: Mapping> Pages<M> {
    /// Gives an untouched page its first content. False when there is no credit.
    pub fn populate(&self, gfn: Gfn, bytes: &PageBytes) -> Result<bool, Error> {
        let page = self.lock(gfn);
        debug_assert_eq!(page.entry(), Entry::UNTOUCHED);
        if !self.credits.take(1) {
            return Ok(false);
        }
        if let Err(source) = self.mapping.copy(gfn.run(), bytes) {
            self.credits.give(1);
            return Err(Error::Kernel { action: "loading", gfn, source });
        }
        self.image.iter().for_each(|image| image.note(gfn, bytes));
        page.turn_into(Entry::private());
        Ok(true)
    }
}
