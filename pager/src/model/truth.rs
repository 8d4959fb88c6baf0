//! What the guest must see of one page: what was last written to it, or what it was given up for.
//!
//! While the device gives a page up, and until the guest has looked, both are right: nobody says when exactly
//! it goes. A page that was only *hinted* at may go as well, but not once it was written to.

use super::content::Content;

/// The truth about one page. All calls are made at the instant of the access they tell of.
#[derive(Clone, Copy)]
pub(super) struct Truth {
    content: Content,
    /// One bit for each content that is right as well.
    instead: u8,
    givings: u32,
    hints: u32,
    writes: u32,
}

impl Truth {
    pub const UNTOUCHED: Truth = Truth { content: Content::ZERO, instead: 0, givings: 0, hints: 0, writes: 0 };

    /// The guest sees `seen`.
    pub fn observe(&mut self, seen: Content) {
        if seen != self.content {
            let right = self.instead & 1 << seen.0 != 0 || self.hints > 0 && seen == Content::ZERO;
            assert!(right, "the guest sees {seen:?} where it wrote {:?}", self.content);
            self.content = seen;
        }
        if self.givings == 0 {
            self.instead = 0;
        }
    }

    /// The guest changes a page it finds `found` in.
    pub fn write(&mut self, found: Content, new: Content) {
        self.observe(found);
        self.content = new;
        self.writes += 1;
        self.hints = 0;
    }

    /// The device begins to give the page up; what it says here is for [`Truth::given`].
    pub fn giving(&mut self, instead: Content) -> u32 {
        self.givings += 1;
        self.instead |= 1 << instead.0;
        self.writes
    }

    /// The page was given up: it is `instead` now, unless it was written to meanwhile, or given up for
    /// something else.
    pub fn given(&mut self, writes: u32, instead: Content) {
        self.givings -= 1;
        if self.writes == writes {
            self.content = instead;
        }
    }

    /// The guest hints at the page; what it says here is for [`Truth::hinted`].
    pub fn hinting(&mut self) -> u32 {
        self.hints += 1;
        self.writes
    }

    /// The device is done with the hint: it has dropped the page, or never will.
    pub fn hinted(&mut self, writes: u32) {
        if self.writes == writes {
            self.hints -= 1;
            self.instead |= 1 << Content::ZERO.0;
        }
    }
}
