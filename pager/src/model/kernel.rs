//! A kernel in small: page tables, userfaultfd and a frame store, as `mm/userfaultfd.c` and `mm/memory.c`
//! treat a `MAP_PRIVATE` mapping of a memfd. One lock is every page-table lock; each page of a ranged call
//! takes it anew, so that others come between.
//!
//! ```text
//!                 COPY                     write (kernel's copy)
//!   Absent ---------------> Anonymous <--------------------------- ZeroPage, Frame   (when not protected)
//!    |  ^ \-- ZEROPAGE --> ZeroPage   any of them  --discard, punch--> Absent, or Marked if it was protected
//!    |  |  \-- CONTINUE -> Frame, protected               (a punch takes away zero pages and frames only)
//!    |  | unprotect
//!    v protect
//!   Marked (absent, with a uffd-wp marker): COPY and CONTINUE take it for absent, ZEROPAGE for mapped
//! ```
//!
//! An anonymous page may be swapped out at any time, and comes back when somebody touches it. Where the
//! guest's memory has a limit of the kernel's, the kernel swaps others out for that.
//!
//! An access to an absent page, or a write to a protected one, queues the thread and an event. A wake of the
//! page lets the thread go, and takes an event that was not read yet with it. Between the two steps of
//! `place` nothing faults: an absent page is mapped to its frame, unprotected, or copied from it.

mod mapping;

use std::io;

use shuttle::sync::{Condvar, Mutex, MutexGuard};

use super::{
    content::Content,
    size::{FRAMES, PAGES},
    truth::Truth,
};
use wire::{Frame, Gfn, Run};

use crate::{mapping::Mapping, sync::lock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pte {
    Absent,
    Marked,
    Anonymous { content: Content, protected: bool, out: bool },
    ZeroPage { protected: bool },
    Frame { protected: bool },
}

/// A thread of the guest that waits for a page.
struct Waiter {
    ticket: u32,
    gfn: Gfn,
    write: bool,
    read: bool,
}

struct Space {
    ptes: [Pte; PAGES as usize],
    placement: [Frame; PAGES as usize],
    registered: [bool; PAGES as usize],
    truth: [Truth; PAGES as usize],
    store: [Option<Content>; FRAMES as usize],
    published: [bool; FRAMES as usize],
    waiters: Vec<Waiter>,
    tickets: u32,
    closed: bool,
    /// Anonymous pages in memory the guest's allocation has room for.
    anonymous_max: usize,
    /// Whether the kernel holds the guest to that.
    limited: bool,
}

/// One guest's address space, its userfaultfd, and the store under it.
pub(super) struct Kernel {
    space: Mutex<Space>,
    event: Condvar,
    woken: Condvar,
}

impl Space {
    fn is_accessed(&mut self, gfn: Gfn, new: Option<Content>) -> bool {
        let page = gfn.index();
        let frame = self.store[self.placement[page].index()];
        let (seen, mapped) = match (self.ptes[page], new) {
            (Pte::Absent | Pte::Marked, _) if self.registered[page] => return false,
            (
                Pte::Anonymous { protected: true, .. }
                | Pte::ZeroPage { protected: true }
                | Pte::Frame { protected: true },
                Some(_),
            ) => {
                return false;
            }
            (Pte::Anonymous { .. }, _) => (self.brought_back(page), self.ptes[page]),
            (Pte::ZeroPage { .. }, _) => (Content::ZERO, self.ptes[page]),
            (mapped @ Pte::Frame { .. }, _) => (frame.expect("a mapped frame was punched"), mapped),
            (Pte::Absent | Pte::Marked, _) => (frame.expect("a hole is mapped"), Pte::Frame { protected: false }),
        };
        self.ptes[page] = mapped;
        match new {
            None => self.truth[page].observe(seen),
            Some(new) => {
                self.truth[page].write(seen, new);
                self.set_anonymous(page, new);
            }
        }
        true
    }

    fn set_anonymous(&mut self, page: usize, content: Content) {
        self.ptes[page] = Pte::Anonymous { content, protected: false, out: false };
        self.reclaim(page);
        let anonymous = self.here();
        assert!(anonymous <= self.anonymous_max, "{anonymous} anonymous pages, paid for {}", self.anonymous_max);
    }

    /// Anonymous pages in memory.
    fn here(&self) -> usize {
        self.ptes.iter().filter(|pte| matches!(pte, Pte::Anonymous { out: false, .. })).count()
    }

    /// The kernel's own reclaim, for `page`, which just came to memory.
    fn reclaim(&mut self, page: usize) {
        while self.limited && self.here() > self.anonymous_max {
            let victim = (0..PAGES as usize).find(|&other| other != page && self.swap_out(other));
            victim.expect("the guest's limit has room for a page");
        }
    }

    /// Whether it was there.
    fn swap_out(&mut self, page: usize) -> bool {
        let Pte::Anonymous { out, .. } = &mut self.ptes[page] else { return false };
        !std::mem::replace(out, true)
    }

    /// The content of an anonymous page, which is in memory from now on.
    fn brought_back(&mut self, page: usize) -> Content {
        let Pte::Anonymous { content, out, .. } = &mut self.ptes[page] else { panic!("page {page} is not anonymous") };
        let content = *content;
        if std::mem::replace(out, false) {
            self.reclaim(page);
        }
        content
    }

    fn is_absent(&self, gfn: Gfn) -> bool {
        assert!(self.registered[gfn.index()], "ENOENT: page {} is not registered", gfn.0);
        matches!(self.ptes[gfn.index()], Pte::Absent | Pte::Marked)
    }

    fn set_protected(&mut self, gfn: Gfn, on: bool) -> io::Result<()> {
        if !self.registered[gfn.index()] {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        match &mut self.ptes[gfn.index()] {
            Pte::Anonymous { protected, .. } | Pte::ZeroPage { protected } | Pte::Frame { protected } => {
                *protected = on
            }
            absent => *absent = if on { Pte::Marked } else { Pte::Absent },
        }
        Ok(())
    }

    fn drop_page(&mut self, page: usize) {
        self.ptes[page] = match self.ptes[page] {
            Pte::Anonymous { protected: true, .. }
            | Pte::ZeroPage { protected: true }
            | Pte::Frame { protected: true } => Pte::Marked,
            Pte::Marked => Pte::Marked,
            _ => Pte::Absent,
        };
    }

    fn frame(&self, frame: Frame) -> Content {
        self.store[frame.index()].expect("a hole of the store is read")
    }
}

impl Kernel {
    /// A guest of untouched pages, at home in an empty store.
    pub fn new(anonymous_max: usize, limited: bool) -> Kernel {
        let space = Space {
            ptes: [Pte::Absent; PAGES as usize],
            placement: std::array::from_fn(|page| Frame(page as u32)),
            registered: [true; PAGES as usize],
            truth: [Truth::UNTOUCHED; PAGES as usize],
            store: [None; FRAMES as usize],
            published: [false; FRAMES as usize],
            waiters: Vec::new(),
            tickets: 0,
            closed: false,
            anonymous_max,
            limited,
        };
        Kernel { space: Mutex::new(space), event: Condvar::new(), woken: Condvar::new() }
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        lock(&self.space)
    }

    /// A thread of the guest reads the page, or writes `new` to it, for as many faults as that takes.
    pub fn access(&self, gfn: Gfn, new: Option<Content>) {
        while !self.space().is_accessed(gfn, new) {
            // The lock was free in between: what made the access fault may be over.
            let mut space = self.space();
            space.tickets += 1;
            let ticket = space.tickets;
            space.waiters.push(Waiter { ticket, gfn, write: new.is_some(), read: false });
            self.event.notify_one();
            while space.waiters.iter().any(|waiter| waiter.ticket == ticket) {
                space = self.woken.wait(space).expect("no thread panicked");
            }
        }
    }

    /// The next fault: its page, and whether it is a write. Waits for one; none after [`Kernel::close`].
    pub fn next_fault(&self) -> Option<(Gfn, bool)> {
        let mut space = self.space();
        loop {
            if let Some(waiter) = space.waiters.iter_mut().find(|waiter| !waiter.read) {
                waiter.read = true;
                return Some((waiter.gfn, waiter.write));
            }
            if space.closed {
                return None;
            }
            space = self.event.wait(space).expect("no thread panicked");
        }
    }

    /// No more faults will come.
    pub fn close(&self) {
        self.space().closed = true;
        self.event.notify_one();
    }

    /// The kernel swaps the page out, or back in, if it can be.
    pub fn swap(&self, gfn: Gfn) {
        let mut space = self.space();
        if !space.swap_out(gfn.index()) && matches!(space.ptes[gfn.index()], Pte::Anonymous { .. }) {
            space.brought_back(gfn.index());
        }
    }

    /// Pages that are swapped out.
    pub fn swapped(&self) -> i64 {
        self.space().ptes.iter().filter(|pte| matches!(pte, Pte::Anonymous { out: true, .. })).count() as i64
    }

    /// Whether the page is anonymous, wherever it is.
    pub fn is_anonymous(&self, gfn: Gfn) -> bool {
        matches!(self.space().ptes[gfn.index()], Pte::Anonymous { .. })
    }

    /// The page was given its first content from outside.
    pub fn loaded(&self, gfn: Gfn, content: Content) {
        self.space().truth[gfn.index()].write(Content::ZERO, content);
    }

    /// Does what gives pages up for `instead`, and holds the guest to what that means.
    pub fn giving_up(&self, run: Run, instead: Content, action: impl FnOnce()) {
        let writes: Vec<_> = run.gfns().map(|gfn| self.space().truth[gfn.index()].giving(instead)).collect();
        action();
        run.gfns().zip(writes).for_each(|(gfn, writes)| self.space().truth[gfn.index()].given(writes, instead));
    }

    /// Does what may drop pages that the guest hinted at, unless the guest writes to them first.
    pub fn hinting(&self, run: Run, action: impl FnOnce()) {
        let writes: Vec<_> = run.gfns().map(|gfn| self.space().truth[gfn.index()].hinting()).collect();
        action();
        run.gfns().zip(writes).for_each(|(gfn, writes)| self.space().truth[gfn.index()].hinted(writes));
    }

    /// The host writes a frame, then announces it.
    pub fn publish(&self, frame: Frame, content: Content) {
        self.space().store[frame.index()] = Some(content);
        self.set_published(frame, true);
    }

    /// The host sets or clears a frame's published bit.
    pub fn set_published(&self, frame: Frame, published: bool) {
        self.space().published[frame.index()] = published;
    }

    /// The host punches a frame's hole.
    pub fn punch(&self, frame: Frame) {
        let mut space = self.space();
        space.store[frame.index()] = None;
        for page in 0..PAGES as usize {
            if space.placement[page] != frame {
                continue;
            }
            match space.ptes[page] {
                Pte::Frame { .. } => panic!("frame {} is punched while page {page} maps it", frame.0),
                Pte::ZeroPage { .. } => space.drop_page(page),
                Pte::Absent | Pte::Marked | Pte::Anonymous { .. } => {}
            }
        }
    }

    /// ZEROPAGE of one page; whether it was absent, and bore no mark.
    fn zero_one(&self, gfn: Gfn) -> bool {
        let mut space = self.space();
        if !space.is_absent(gfn) || space.ptes[gfn.index()] == Pte::Marked {
            return false;
        }
        space.ptes[gfn.index()] = Pte::ZeroPage { protected: false };
        drop(space);
        self.wake(gfn.run());
        true
    }

    /// What the store holds there.
    pub fn stored(&self, frame: Frame) -> Option<Content> {
        self.space().store[frame.index()]
    }
}
