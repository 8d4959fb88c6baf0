//! What the guest must see of one page: what was last written to it, or zero once it has given the page up.
//!
//! While the device gives a page up, and until the guest has looked, both are right: nobody says when exactly it goes.

use super::content::Content;

/// The truth about one page. All calls are made at the instant of the access they tell of.
#[derive(Clone, Copy)]
pub(super) struct Truth {
    content: Content,
    or_zero: bool,
    givings: u32,
    writes: u32,
}

impl Truth {
    pub const UNTOUCHED: Truth = Truth { content: Content::ZERO, or_zero: false, givings: 0, writes: 0 };

    /// The guest sees `seen`.
    pub fn observe(&mut self, seen: Content) {
        if seen != self.content {
            assert!(self.or_zero && seen == Content::ZERO, "the guest sees {seen:?} where it wrote {:?}", self.content);
            self.content = Content::ZERO;
        }
        self.or_zero = self.givings > 0;
    }

    /// The guest changes a page it finds `found` in.
    pub fn write(&mut self, found: Content, new: Content) {
        self.observe(found);
        self.content = new;
        self.writes += 1;
    }

    /// The device begins to give the page up; what it says here is for [`Truth::given`].
    pub fn giving(&mut self) -> u32 {
        self.givings += 1;
        self.or_zero = true;
        self.writes
    }

    /// The page was given up: it is zero now, unless it was written to meanwhile.
    pub fn given(&mut self, writes: u32) {
        self.givings -= 1;
        if self.writes == writes {
            self.content = Content::ZERO;
        }
    }
}
