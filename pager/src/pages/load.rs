//! Boot loading: what a page has before the guest runs.
//!
//! A page that is published at its own address already is not loaded but shared: the second guest of a kernel
//! or an image has no copy of what the first one brought.

use std::io;

use wire::{Gfn, PageBytes};

use super::{Error, Pages, locked::Locked, share::shared, table::Entry};
use crate::mapping::Mapping;

impl<M: Mapping> Pages<M> {
    /// Gives an untouched page its first content. False when there is no credit.
    pub fn populate(&self, gfn: Gfn, bytes: &PageBytes) -> Result<bool, Error> {
        let page = self.lock(gfn);
        debug_assert_eq!(page.entry(), Entry::UNTOUCHED);
        let failed = |source| Error::Kernel { action: "loading", gfn, source };
        let entry = match self.find_at_home(&page, bytes).map_err(failed)? {
            Some(entry) => entry,
            None if !self.credits.take(1) => return Ok(false),
            None => {
                if let Err(source) = self.mapping.copy(gfn.run(), bytes) {
                    self.credits.give(1);
                    return Err(failed(source));
                }
                Entry::private()
            }
        };
        self.image.iter().for_each(|image| image.note(gfn, bytes));
        page.turn_into(entry);
        Ok(true)
    }

    /// Maps the frame at the page's address, if it is published and has this content.
    fn find_at_home(&self, page: &Locked<'_, M>, bytes: &PageBytes) -> io::Result<Option<Entry>> {
        let (run, frame) = (page.gfn().run(), self.mapping.placement(page.gfn()));
        if !self.adopt_if(frame, |published| Ok::<_, io::Error>(published == bytes))? {
            return Ok(None);
        }
        let open = self.may_open() && self.credits.take(1);
        if let Err(error) = self.mapping.map_placed(run, open) {
            self.credits.give(i64::from(open));
            self.references.remove(frame);
            return Err(error);
        }
        Ok(Some(shared(frame, open)))
    }
}
