//! What the transitions need of the address space that guest RAM is mapped in.
//!
//! One implementation talks to the kernel ([`crate::sys::Ram`]); another, in the tests, is a model of one
//! that the model checker can interleave. The kernel's rules that both keep:
//!
//! * A page is *absent*, or mapped to an anonymous page of its own, the zero page, or the frame its placement
//!   names.
//! * Touching an absent page, or writing to a protected one, blocks the thread until it is woken; then it
//!   tries again.
//! * The kernel may swap an anonymous page out at any time, and brings it back when it is touched, without a
//!   fault of ours. Protection stays; what is swapped and protected looks like what is absent and marked.
//! * Mapping a page that is mapped already changes nothing (EEXIST): somebody was faster.

use std::io;

use wire::{Frame, Gfn, PageBytes, Run};

/// Pages that one protect, discard or map call covers at most: 2 MiB, a page table's worth.
pub const RUN_MAX: u32 = 512;

/// Pages next to each other whose frames are so too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The pages.
    pub run: Run,
    /// The first one's frame.
    pub frame: Frame,
}

/// How a page was found to be mapped, at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Not at all.
    Absent,
    /// To an anonymous page of its own, in memory.
    Anonymous,
    /// To an anonymous page of its own, which the kernel has swapped out.
    SwappedOut,
    /// The same, protected; or not at all, marked as protected. [`Mapping::unprotect`] tells them apart.
    Doubtful,
    /// To the zero page.
    ZeroPage,
    /// To a frame.
    Frame,
}

impl Mapped {
    /// To an anonymous page of its own, wherever that is.
    pub fn is_anonymous(self) -> bool {
        matches!(self, Mapped::Anonymous | Mapped::SwappedOut)
    }
}

/// Whether threads that waited for a page still need a [`Mapping::wake`] once it has been mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a waiting thread sleeps until it is woken"]
pub enum Woken {
    /// Mapping the page woke all who waited for it until then.
    All,
    /// The page was mapped already, or mapping it wakes nobody.
    Nobody,
}

/// The address space of one guest's RAM. All of it works on pages whose lock the caller holds, except
/// [`Mapping::wake`], [`Mapping::published`], [`Mapping::look`] and [`Mapping::look_present`].
pub trait Mapping: Send + Sync {
    /// Gives absent pages anonymous pages with this content, and wakes who waits for them.
    fn copy(&self, run: Run, bytes: &[u8]) -> io::Result<Woken>;
    /// [`Mapping::copy`] of a frame's content to one page.
    fn copy_frame(&self, gfn: Gfn, frame: Frame) -> io::Result<Woken>;
    /// Maps absent pages to the zero page, to be copied by the kernel on write, and wakes who waits for them.
    fn zero(&self, run: Run) -> io::Result<Woken>;
    /// Maps absent pages to the frames their placement names: write-protected, or open to the kernel's copy
    /// on write.
    fn map_placed(&self, run: Run, open: bool) -> io::Result<()>;
    /// Gives absent pages anonymous pages of zeros, and wakes who waits for them. At most [`RUN_MAX`] pages.
    fn clear(&self, run: Run) -> io::Result<Woken>;
    /// Changes the placement of pages to these frames. They become absent, or what an access in between made
    /// of them: their frame, or an anonymous copy of it. The aliases ascend.
    fn place(&self, aliases: &[Alias]) -> io::Result<()>;
    /// Gives pages their home placement, in one step: they become absent, and what they held is gone.
    fn rehome(&self, run: Run) -> io::Result<()>;
    /// The frame that the page's address range is a mapping of.
    fn placement(&self, gfn: Gfn) -> Frame;
    /// Address-space areas that placements away from home cost now.
    fn vmas(&self) -> u32;
    /// Makes writes to mapped pages block.
    fn protect(&self, run: Run) -> io::Result<()>;
    /// Undoes [`Mapping::protect`], and forgets protection of absent pages.
    fn unprotect(&self, run: Run) -> io::Result<()>;
    /// Makes pages absent; what they held is gone.
    fn discard(&self, run: Run) -> io::Result<()>;
    /// [`Mapping::discard`] of many runs, at the price of one TLB flush.
    fn discard_all(&self, runs: &[Run]) -> io::Result<()> {
        runs.iter().try_for_each(|&run| self.discard(run))
    }
    /// Asks the kernel to swap out these pages, which are private. It may leave any of them where they are.
    fn page_out(&self, runs: &[Run]) -> io::Result<()>;
    /// Lets threads that wait for these pages try again.
    fn wake(&self, run: Run);
    /// Calls `found` with runs of pages of `run`, ascending, and how they are mapped; absent ones are left
    /// out.
    fn look(&self, run: Run, found: &mut dyn FnMut(Run, Mapped)) -> io::Result<()>;
    /// Calls `found` with runs of pages of `run`, ascending, that are in memory: mapped to whatever it may
    /// be. It costs a small part of [`Mapping::look`].
    fn look_present(&self, run: Run, found: &mut dyn FnMut(Run)) -> io::Result<()>;
    /// How the page is mapped.
    fn mapped(&self, gfn: Gfn) -> io::Result<Mapped> {
        let mut mapped = Mapped::Absent;
        self.look(gfn.run(), &mut |_, found| mapped = found)?;
        Ok(mapped)
    }
    /// A digest of a few words spread over a mapped page: a page whose digest changed has changed. 0 if, and
    /// only if, all of these words are zero.
    fn sample(&self, gfn: Gfn) -> u64;
    /// [`Mapping::sample`] of this page comes soon: begin to fetch it. A hint; the page may be mapped to
    /// anything, or nothing.
    fn prefetch(&self, _gfn: Gfn) {}
    /// Whether a mapped page's sample is a frame's, which is published and counted: false means that they are
    /// not equal.
    fn alike(&self, gfn: Gfn, frame: Frame) -> bool;
    /// Whether every byte of a mapped page is zero.
    fn is_zero(&self, gfn: Gfn) -> bool;
    /// Copies out a page that is mapped.
    fn read(&self, gfn: Gfn, into: &mut PageBytes);
    /// Whether a mapped page's content equals a published frame's.
    fn equal(&self, gfn: Gfn, frame: Frame) -> bool;
    /// Copies out a frame that is counted, or published in a silence of the references.
    fn read_frame(&self, frame: Frame, into: &mut PageBytes);
    /// Whether the host has announced this frame; false for one that does not exist.
    fn published(&self, frame: Frame) -> bool;
    /// Gives up what is kept only to read frames faster.
    fn forget_frames(&self) {}
}

/// The run in pieces of at most [`RUN_MAX`].
pub(crate) fn pieces(run: Run) -> impl Iterator<Item = Run> {
    (0..run.count).step_by(RUN_MAX as usize).map(move |skip| {
        let rest = run.skip(skip);
        Run { count: rest.count.min(RUN_MAX), ..rest }
    })
}
