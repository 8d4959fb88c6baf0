//! What must hold when nobody moves.

use wire::{Frame, Gfn, PAGE_BYTES};

use super::{
    size::FRAMES,
    world::{RAM, World},
};
use crate::{
    mapping::{Mapped, Mapping},
    pages::table::{Page, State},
    sync::lock,
};

impl World {
    /// The frame that a page is a patch of.
    fn patched(&self, gfn: Gfn) -> Option<Frame> {
        match self.pages.table.peek(gfn).decode() {
            Page::Pooled { slot, .. } => lock(&self.pages.pool).frame(slot),
            _ => None,
        }
    }

    /// At rest: no lock is held, table and mapping agree, every credit and every reference is where it should
    /// be.
    pub fn check(&self) {
        let (table, mapping) = (&self.pages.table, &self.pages.mapping);
        let mut carried = 0;
        for gfn in RAM.gfns() {
            let (entry, mapped) = (table.peek(gfn), mapping.mapped(gfn).expect("looking"));
            assert!(!entry.locked() && !entry.waiters(), "page {} was left locked: {entry:?}", gfn.0);
            let is_absent = matches!(mapped, Mapped::Absent | Mapped::Doubtful) && !mapping.is_anonymous(gfn);
            let right = match entry.decode() {
                Page::Private { .. } => mapping.is_anonymous(gfn),
                Page::Shared { frame, open: true } => mapping.placement(gfn) == frame && mapped != Mapped::ZeroPage,
                Page::Shared { frame, open: false } => {
                    mapping.placement(gfn) == frame && (mapped == Mapped::Frame || is_absent)
                }
                Page::Zero { open: true } => mapped != Mapped::Frame,
                Page::Zero { open: false } | Page::Ballooned => is_absent,
                Page::Filled { .. } | Page::Pooled { .. } | Page::Swapped { .. } | Page::Clean => is_absent,
            };
            assert!(right, "page {} is {entry:?} but mapped {mapped:?}", gfn.0);
            carried += entry.credits();
        }
        assert_eq!(carried, table.counts().private as i64 + table.open() as i64, "the sums are wrong");
        let pool = lock(&self.pages.pool).bytes() as i64 / PAGE_BYTES as i64;
        let slots = RAM.gfns().filter(|&gfn| table.peek(gfn).state() == State::Compressed).count();
        let patched: Vec<Frame> = RAM.gfns().filter_map(|gfn| self.patched(gfn)).collect();
        assert_eq!(lock(&self.pages.pool).patches().pages, patched.len() as u64, "patches are counted wrongly");
        assert!(slots > 0 || pool == 0, "the pool keeps {pool} pages for nobody");
        let relief = self.pages.credits.relief();
        assert_eq!(self.pages.credits.available() + carried + pool, self.credits + relief, "credits were lost or made");
        let swapped = table.counts().swapped;
        let slots = self.pages.swap.as_ref().map_or(0, |swap| swap.status(0).used_bytes) / PAGE_BYTES as u64;
        assert_eq!(slots, swapped, "slots of the swap file were lost, or are shared");
        for frame in (0..FRAMES).map(Frame) {
            let shares = |gfn| matches!(table.peek(gfn).decode(), Page::Shared { frame: of, .. } if of == frame);
            let shared = RAM.gfns().any(shares);
            let needed = shared || patched.contains(&frame);
            assert_eq!(self.pages.references.holds(frame), needed, "frame {} is held, or not, wrongly", frame.0);
        }
    }
}
