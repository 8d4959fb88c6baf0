//! The kernel in small, as the transitions see it.

use std::io;

use wire::{Frame, Gfn, PAGE_BYTES, PageBytes, Run};

use super::{Kernel, Pte};
use crate::{
    digest::digest,
    mapping::{Alias, Mapped, Mapping, Woken},
    model::{chance::coin, content::Content, size::FRAMES},
};

impl Mapping for Kernel {
    fn copy(&self, run: Run, bytes: &[u8]) -> io::Result<Woken> {
        let (pages, _) = bytes.as_chunks::<PAGE_BYTES>();
        assert_eq!(pages.len(), run.count as usize, "a page's content for each page");
        let mut woken = Woken::All;
        for (gfn, bytes) in run.gfns().zip(pages) {
            let mut space = self.space();
            if space.is_absent(gfn) {
                space.set_anonymous(gfn.index(), Content::of(bytes));
            } else {
                woken = Woken::Nobody;
            }
        }
        if woken == Woken::All {
            self.wake(run);
        }
        Ok(woken)
    }

    fn copy_frame(&self, gfn: Gfn, frame: Frame) -> io::Result<Woken> {
        let content = self.space().frame(frame);
        self.copy(gfn.run(), content.bytes())
    }

    fn zero(&self, run: Run) -> io::Result<Woken> {
        let (mut woken, mut marked) = (Woken::All, true);
        for (done, gfn) in (0..).zip(run.gfns()) {
            let mut zeroed = self.zero_one(gfn);
            if !zeroed && std::mem::take(&mut marked) {
                self.unprotect(run.skip(done))?;
                zeroed = self.zero_one(gfn);
            }
            if !zeroed {
                woken = Woken::Nobody;
            }
        }
        Ok(woken)
    }

    fn clear(&self, run: Run) -> io::Result<Woken> {
        let mut woken = Woken::All;
        for gfn in run.gfns() {
            if self.copy(gfn.run(), Content::ZERO.bytes())? == Woken::Nobody {
                woken = Woken::Nobody;
            }
        }
        Ok(woken)
    }

    fn map_placed(&self, run: Run, open: bool) -> io::Result<()> {
        for gfn in run.gfns() {
            let mut space = self.space();
            if space.is_absent(gfn) {
                _ = space.frame(space.placement[gfn.index()]);
                space.ptes[gfn.index()] = Pte::Frame { protected: !open };
            }
        }
        Ok(())
    }

    fn place(&self, aliases: &[Alias]) -> io::Result<()> {
        for alias in aliases {
            let mut space = self.space();
            for (gfn, frame) in alias.run.gfns().zip(alias.frame.0..) {
                space.ptes[gfn.index()] = Pte::Absent;
                space.placement[gfn.index()] = Frame(frame);
                space.registered[gfn.index()] = false;
            }
        }
        let mut space = self.space();
        aliases.iter().flat_map(|alias| alias.run.gfns()).for_each(|gfn| space.registered[gfn.index()] = true);
        Ok(())
    }

    fn rehome(&self, run: Run) -> io::Result<()> {
        let mut space = self.space();
        for gfn in run.gfns() {
            space.ptes[gfn.index()] = Pte::Absent;
            space.placement[gfn.index()] = Frame(gfn.0);
        }
        Ok(())
    }

    fn placement(&self, gfn: Gfn) -> Frame {
        self.space().placement[gfn.index()]
    }

    fn vmas(&self) -> u32 {
        let space = self.space();
        space.placement.windows(2).filter(|pair| pair[1] != pair[0].plus(1)).count() as u32
    }

    fn protect(&self, run: Run) -> io::Result<()> {
        run.gfns().try_for_each(|gfn| self.space().set_protected(gfn, true))
    }

    fn unprotect(&self, run: Run) -> io::Result<()> {
        run.gfns().try_for_each(|gfn| self.space().set_protected(gfn, false))
    }

    fn discard(&self, run: Run) -> io::Result<()> {
        run.gfns().for_each(|gfn| self.space().drop_page(gfn.index()));
        Ok(())
    }

    fn wake(&self, run: Run) {
        self.space().waiters.retain(|waiter| !run.gfns().any(|gfn| gfn == waiter.gfn));
        self.woken.notify_all();
    }

    fn page_out(&self, runs: &[Run]) -> io::Result<()> {
        for gfn in runs.iter().flat_map(|run| run.gfns()) {
            let mut space = self.space();
            assert!(matches!(space.ptes[gfn.index()], Pte::Anonymous { .. }), "page {} is no private page", gfn.0);
            // It may leave them where they are.
            if coin() {
                space.swap_out(gfn.index());
            }
        }
        Ok(())
    }

    fn look(&self, run: Run, found: &mut dyn FnMut(Run, Mapped)) -> io::Result<()> {
        for gfn in run.gfns() {
            let mapped = match self.space().ptes[gfn.index()] {
                Pte::Absent => continue,
                Pte::Marked | Pte::Anonymous { out: true, protected: true, .. } => Mapped::Doubtful,
                Pte::Anonymous { out: true, .. } => Mapped::SwappedOut,
                Pte::Anonymous { .. } => Mapped::Anonymous,
                Pte::ZeroPage { .. } => Mapped::ZeroPage,
                Pte::Frame { .. } => Mapped::Frame,
            };
            found(gfn.run(), mapped);
        }
        Ok(())
    }

    fn look_present(&self, run: Run, found: &mut dyn FnMut(Run)) -> io::Result<()> {
        self.look(run, &mut |run, mapped| match mapped {
            Mapped::Anonymous | Mapped::ZeroPage | Mapped::Frame => found(run),
            Mapped::Absent | Mapped::SwappedOut | Mapped::Doubtful => {}
        })
    }

    fn sample(&self, gfn: Gfn) -> u64 {
        let mut page = *Content::ZERO.bytes();
        self.read(gfn, &mut page);
        digest(|at| u64::from(page[at]))
    }

    fn read(&self, gfn: Gfn, into: &mut PageBytes) {
        // The reader holds the page's lock: its own fault would wait for it for ever, were it not anonymous.
        let content = self.space().brought_back(gfn.index());
        into.copy_from_slice(content.bytes());
    }

    fn is_zero(&self, gfn: Gfn) -> bool {
        let mut page = *Content::ZERO.bytes();
        self.read(gfn, &mut page);
        &page == Content::ZERO.bytes()
    }

    fn alike(&self, gfn: Gfn, frame: Frame) -> bool {
        let bytes = *self.space().frame(frame).bytes();
        self.sample(gfn) == digest(|at| u64::from(bytes[at]))
    }

    fn equal(&self, gfn: Gfn, frame: Frame) -> bool {
        let mut page = *Content::ZERO.bytes();
        self.read(gfn, &mut page);
        self.space().frame(frame).bytes() == &page
    }

    fn read_frame(&self, frame: Frame, into: &mut PageBytes) {
        into.copy_from_slice(self.space().frame(frame).bytes());
    }

    fn published(&self, frame: Frame) -> bool {
        frame.0 < FRAMES && self.space().published[frame.index()]
    }
}
