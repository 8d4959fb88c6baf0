//! Guest RAM: one `MAP_PRIVATE` mapping of the frame store, every fault in it ours.
//!
//! ```text
//!   address space   |  page 0  |  page 1  |  page 2  |  page 3  |
//!   placement       |  frame 0 |  frame 1 |  frame 9 |  frame 3 |     page 2 is an alias: an area of its own
//!   what is mapped  |  anon    |  frame 1 |  frame 9 |  (none)  |
//! ```

use std::{
    ffi::c_void,
    io,
    num::NonZeroUsize,
    ptr::{self, NonNull},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, TryLockError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::sys::mman::{MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mremap, munmap};

use super::{
    MmapArena, StoreView, Uffd,
    many::Advice,
    pagemap::{PageRegion, Pagemap, mapped},
};
use wire::{Frame, Gfn, PAGE_BYTES, PageBytes, Run};

use crate::{
    digest::{DIGEST_AT, digest},
    mapping::{Alias, Mapped, Mapping, RUN_MAX, Woken},
    sys::Arena,
};

/// What one call clears at most.
const ZEROS_BYTES: NonZeroUsize = NonZeroUsize::new(RUN_MAX as usize * PAGE_BYTES).unwrap();

/// What a page's placement costs, if it is not at home.
pub const PLACEMENT_BYTES: usize = size_of::<AtomicU32>();

/// The mapping, and which frame each page's address range is a mapping of.
pub struct Ram {
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
    uffd: Uffd,
    store: StoreView,
    pagemap: Pagemap,
    advice: Advice,
    /// Never written to: all of it is the kernel's zero page.
    zeros: MmapArena,
    /// How far each page's frame lies from home (wrapping): nothing, and no memory, for most.
    displaced: Box<[AtomicU32]>,
    /// Places where the placement of neighbours is not that of neighbours: each begins an address-space area.
    seams: AtomicU32,
    /// Held while a mapping is moved, and while faults are served: the move makes every operation of
    /// userfaultfd fail until whoever serves faults has read of it.
    moving: RwLock<()>,
}

// SAFETY: the mapping belongs to this value; everything done to it goes through the kernel or, for reads,
// through pointers to pages whose lock the caller holds (see `Mapping`).
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// Maps `pages` pages of guest RAM at their home offsets in the store.
    pub fn new(pages: u32, store: StoreView) -> io::Result<Ram> {
        let too_large = || io::Error::other(format!("{pages} pages of RAM over a store of {} frames", store.count()));
        let bytes =
            NonZeroUsize::new(pages as usize * PAGE_BYTES).filter(|_| pages <= store.count()).ok_or_else(too_large)?;
        let uffd = Uffd::new()?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, store.fd(), 0) };
        let base = base.map_err(super::io_error)?;
        let ram = Ram {
            base,
            bytes,
            uffd,
            store,
            pagemap: Pagemap::open()?,
            advice: Advice::new()?,
            zeros: MmapArena::new(ZEROS_BYTES).map_err(super::io_error)?,
            displaced: bytemuck::zeroed_slice_box(pages as usize),
            seams: AtomicU32::new(0),
            moving: RwLock::new(()),
        };
        ram.uffd.register(base.as_ptr() as u64, bytes.get())?;
        Ok(ram)
    }

    /// Where guest RAM is mapped.
    pub fn base(&self) -> NonNull<u8> {
        self.base.cast()
    }

    /// Where its faults arrive.
    pub fn uffd(&self) -> &Uffd {
        &self.uffd
    }

    /// For the thread that reads events: as long as it has this, no mapping is moved. None while one is: then
    /// read on.
    pub fn no_move(&self) -> Option<RwLockReadGuard<'_, ()>> {
        match self.moving.try_read() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// For other threads that serve faults: the same, once nothing is moved.
    pub fn wait_for_moves(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page an address belongs to, if it is one of RAM's.
    pub fn gfn(&self, address: u64) -> Option<Gfn> {
        let offset = address.checked_sub(self.base.as_ptr() as u64)?;
        (offset < self.bytes.get() as u64).then_some(Gfn((offset / PAGE_BYTES as u64) as u32))
    }

    fn address(&self, gfn: Gfn) -> u64 {
        debug_assert!(gfn.index() < self.displaced.len());
        self.base.as_ptr() as u64 + gfn.index() as u64 * PAGE_BYTES as u64
    }

    fn run_of(&self, region: PageRegion) -> Run {
        let pages = |bytes: u64| (bytes / PAGE_BYTES as u64) as u32;
        Run { first: Gfn(pages(region.start - self.base.as_ptr() as u64)), count: pages(region.end - region.start) }
    }

    fn page(&self, gfn: Gfn) -> *const PageBytes {
        self.address(gfn) as *const PageBytes
    }

    /// Whether an address-space area begins at `gfn`, after the first one.
    fn seam(&self, gfn: u32) -> bool {
        let at = |gfn: u32| self.displaced[gfn as usize].load(Ordering::Relaxed);
        gfn > 0 && (gfn as usize) < self.displaced.len() && at(gfn) != at(gfn - 1)
    }

    fn map_alias(&self, &Alias { run, frame }: &Alias) -> io::Result<()> {
        let target = NonZeroUsize::new(self.address(run.first) as usize);
        self.map_store(target, run, frame)?;
        self.note_placement(run, frame);
        Ok(())
    }

    /// Maps frames privately, at `target` or wherever there is room.
    fn map_store(&self, target: Option<NonZeroUsize>, run: Run, frame: Frame) -> io::Result<NonNull<c_void>> {
        let bytes = NonZeroUsize::new(run.bytes()).ok_or_else(|| io::Error::other("an empty run"))?;
        let fixed = if target.is_some() { MapFlags::MAP_FIXED } else { MapFlags::empty() };
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | fixed;
        let offset = i64::from(frame.0) * PAGE_BYTES as i64;
        // SAFETY: a new mapping overlaps nothing, or it lies inside our own mapping of RAM, whose pages here
        // the caller has locked.
        unsafe { mmap(target, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, self.store.fd(), offset) }
            .map_err(super::io_error)
    }

    fn note_placement(&self, run: Run, frame: Frame) {
        let seams = || (0..=run.count).filter(|i| self.seam(run.first.0 + i)).count() as u32;
        let before = seams();
        let displaced = frame.0.wrapping_sub(run.first.0);
        for gfn in run.gfns() {
            self.displaced[gfn.index()].store(displaced, Ordering::Relaxed);
        }
        self.seams.fetch_add(seams().wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: guests and devices that knew the address are gone when the last owner drops it.
        let _ = unsafe { munmap(self.base, self.bytes.get()) };
    }
}

impl Mapping for Ram {
    fn copy(&self, run: Run, bytes: &[u8]) -> io::Result<Woken> {
        assert_eq!(bytes.len(), run.bytes(), "a page's content for each page");
        let mut woken = Woken::All;
        self.in_one_area(run, |part| {
            let source = &bytes[(part.first.0 - run.first.0) as usize * PAGE_BYTES..];
            if self.uffd.copy(self.address(part.first), source.as_ptr() as u64, part.bytes())? == Woken::Nobody {
                woken = Woken::Nobody;
            }
            Ok(())
        })?;
        Ok(woken)
    }

    fn copy_frame(&self, gfn: Gfn, frame: Frame) -> io::Result<Woken> {
        self.uffd.copy(self.address(gfn), self.store.frame(frame) as u64, PAGE_BYTES)
    }

    fn zero(&self, run: Run) -> io::Result<Woken> {
        let mut woken = Woken::All;
        self.in_one_area(run, |part| {
            if self.uffd.zero(self.address(part.first), part.bytes())? == Woken::Nobody {
                woken = Woken::Nobody;
            }
            Ok(())
        })?;
        Ok(woken)
    }

    fn clear(&self, run: Run) -> io::Result<Woken> {
        self.copy(run, self.zeros.slice(0, run.bytes()))
    }

    fn map_placed(&self, run: Run, open: bool) -> io::Result<()> {
        self.in_one_area(run, |part| self.uffd.map_file(self.address(part.first), part.bytes(), !open))
    }

    fn place(&self, aliases: &[Alias]) -> io::Result<()> {
        let (Some(first), Some(last)) = (aliases.first(), aliases.last()) else { return Ok(()) };
        for alias in aliases {
            self.map_alias(alias)?;
        }
        // Once for all: what lies between the aliases is registered already, which costs a look at its areas.
        let (start, end) = (self.address(first.run.first), self.address(last.run.first) + last.run.bytes() as u64);
        self.uffd.register(start, (end - start) as usize)
    }

    fn rehome(&self, run: Run) -> io::Result<()> {
        let home = Frame(run.first.0);
        let new = self.map_store(None, run, home)?;
        // Registered first, so that nobody finds the pages unregistered.
        let registered = self.uffd.register(new.as_ptr() as u64, run.bytes());
        let target = NonNull::new(self.address(run.first) as *mut c_void);
        let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
        let moved = registered.and_then(|()| {
            let _moving = self.moving.write().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: from a mapping that only we know, of the same length, to inside our own mapping of RAM,
            // whose pages here the caller has locked.
            unsafe { mremap(new, run.bytes(), run.bytes(), flags, target) }.map_err(super::io_error)
        });
        if let Err(error) = moved {
            // SAFETY: it was not moved, and nobody else knows of it.
            let _ = unsafe { munmap(new, run.bytes()) };
            return Err(error);
        }
        self.note_placement(run, home);
        Ok(())
    }

    fn placement(&self, gfn: Gfn) -> Frame {
        Frame(gfn.0.wrapping_add(self.displaced[gfn.index()].load(Ordering::Relaxed)))
    }

    fn vmas(&self) -> u32 {
        self.seams.load(Ordering::Relaxed)
    }

    fn protect(&self, run: Run) -> io::Result<()> {
        self.uffd.protect(self.address(run.first), run.bytes())
    }

    fn unprotect(&self, run: Run) -> io::Result<()> {
        self.uffd.unprotect(self.address(run.first), run.bytes())
    }

    fn discard(&self, run: Run) -> io::Result<()> {
        let Some(address) = NonNull::new(self.address(run.first) as *mut c_void) else { return Ok(()) };
        // SAFETY: the range lies inside our own mapping of RAM, and nobody holds a reference into it.
        unsafe { madvise(address, run.bytes(), MmapAdvise::MADV_DONTNEED) }.map_err(super::io_error)
    }

    fn discard_all(&self, runs: &[Run]) -> io::Result<()> {
        let ranges: Vec<_> = runs.iter().map(|run| (self.address(run.first), run.bytes())).collect();
        // SAFETY: the ranges lie inside our own mapping of RAM, and nobody holds a reference into it.
        let done = unsafe { self.advice.discard(&ranges) };
        runs[done..].iter().try_for_each(|&run| self.discard(run))
    }

    fn page_out(&self, runs: &[Run]) -> io::Result<()> {
        runs.iter().try_for_each(|run| {
            let Some(address) = NonNull::new(self.address(run.first) as *mut c_void) else { return Ok(()) };
            // SAFETY: the range lies inside our own mapping of RAM; the pages keep their content.
            unsafe { madvise(address, run.bytes(), MmapAdvise::MADV_PAGEOUT) }.map_err(super::io_error)
        })
    }

    fn wake(&self, run: Run) {
        self.uffd.wake(self.address(run.first), run.bytes());
    }

    fn look(&self, run: Run, found: &mut dyn FnMut(Run, Mapped)) -> io::Result<()> {
        let start = self.address(run.first);
        let found = &mut |region| found(self.run_of(region), mapped(region.categories));
        self.pagemap.scan(start, start + run.bytes() as u64, found)
    }

    fn look_present(&self, run: Run, found: &mut dyn FnMut(Run)) -> io::Result<()> {
        let start = self.address(run.first);
        self.pagemap.scan_present(start, start + run.bytes() as u64, &mut |region| found(self.run_of(region)))
    }

    fn sample(&self, gfn: Gfn) -> u64 {
        let page = self.page(gfn).cast::<u64>();
        digest(|at| {
            // SAFETY: inside the page: `at` is below its length.
            let word = unsafe { page.byte_add(at) };
            // SAFETY: mapped for the life of `self`, and aligned; volatile, because the guest may be writing:
            // any of its values will do.
            unsafe { word.read_volatile() }
        })
    }

    fn prefetch(&self, gfn: Gfn) {
        #[cfg(target_arch = "x86_64")]
        for at in DIGEST_AT {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: inside the page: `at` is below its length.
            let word = unsafe { self.page(gfn).byte_add(at) };
            // SAFETY: a hint, which never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(word.cast()) };
        }
    }

    fn is_zero(&self, gfn: Gfn) -> bool {
        static ZEROS: PageBytes = [0; PAGE_BYTES];
        // SAFETY: both sides are mapped and `PAGE_BYTES` long. As for `read`, the guest may be writing unless
        // the page is protected.
        unsafe { libc::memcmp(self.page(gfn).cast(), ZEROS.as_ptr().cast(), PAGE_BYTES) == 0 }
    }

    fn alike(&self, gfn: Gfn, frame: Frame) -> bool {
        let frame = self.store.frame(frame).cast::<u64>();
        self.sample(gfn)
            == digest(|at| {
                // SAFETY: inside the frame: `at` is below its length.
                let word = unsafe { frame.byte_add(at) };
                // SAFETY: mapped and aligned; published and counted by the caller, so nobody writes to it or
                // punches it.
                unsafe { word.read_volatile() }
            })
    }

    fn read(&self, gfn: Gfn, into: &mut PageBytes) {
        // SAFETY: mapped for the life of `self`. The guest may be writing unless the page is protected; the
        // caller then gets a mixture of bytes, of which nothing but a hint is made. The copy is the kernel's
        // and compiler's `memcpy`, never a reference.
        unsafe { ptr::copy_nonoverlapping(self.page(gfn), into, 1) };
    }

    fn equal(&self, gfn: Gfn, frame: Frame) -> bool {
        // SAFETY: both sides are mapped and `PAGE_BYTES` long; the page is protected and locked, the frame
        // published and counted, so neither changes meanwhile.
        unsafe { libc::memcmp(self.page(gfn).cast(), self.store.frame(frame).cast(), PAGE_BYTES) == 0 }
    }

    fn read_frame(&self, frame: Frame, into: &mut PageBytes) {
        // SAFETY: mapped for the life of `self`; counted or published, as the caller sees to, so nobody
        // writes to it or punches it.
        unsafe { ptr::copy_nonoverlapping(self.store.frame(frame), into, 1) };
    }

    fn published(&self, frame: Frame) -> bool {
        self.store.published(frame)
    }

    fn forget_frames(&self) {
        self.store.drop_page_tables();
    }
}

impl Ram {
    /// Calls `action` with the longest parts of `run` that lie in one address-space area: COPY, ZEROPAGE and
    /// CONTINUE refuse ranges that do not.
    fn in_one_area(&self, run: Run, mut action: impl FnMut(Run) -> io::Result<()>) -> io::Result<()> {
        let mut first = 0;
        for i in 1..=run.count {
            if i == run.count || self.seam(run.first.0 + i) {
                action(Run { first: run.first.plus(first), count: i - first })?;
                first = i;
            }
        }
        Ok(())
    }
}
