//! `PAGEMAP_SCAN` (Linux 6.7, `Documentation/admin-guide/mm/pagemap.rst`): how ranges of this process are
//! mapped.

use std::{fs::File, io, ops::Range, os::fd::AsRawFd};

use crate::mapping::Mapped;

/// The page is not write-protected.
const PAGE_IS_WRITTEN: u64 = 1 << 1;
/// The page is mapped from a file, or absent and its address belongs to one.
const PAGE_IS_FILE: u64 = 1 << 2;
/// The page is present.
const PAGE_IS_PRESENT: u64 = 1 << 3;
/// The page is in the host's own swap, *or* absent with a mark that it was write-protected (a uffd-wp pte
/// marker); only the former can be `PAGE_IS_WRITTEN` as well.
const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// The page is the zero page.
const PAGE_IS_PFNZERO: u64 = 1 << 5;

#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Neighbouring pages of one category.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct PageRegion {
    pub start: u64,
    pub end: u64,
    pub categories: u64,
}

const _: () = assert!(size_of::<PmScanArg>() == 96 && size_of::<PageRegion>() == 24);

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);

/// Regions one call returns at most; more cost more calls, not more memory.
const REGIONS: usize = 256;

/// What a region is mapped to.
pub fn mapped(categories: u64) -> Mapped {
    let is = |category: u64| categories & category != 0;
    match () {
        () if is(PAGE_IS_PFNZERO) => Mapped::ZeroPage,
        // Also one that the kernel is moving from one place in memory to another.
        () if is(PAGE_IS_FILE) && (is(PAGE_IS_PRESENT) || is(PAGE_IS_SWAPPED)) => Mapped::Frame,
        () if is(PAGE_IS_PRESENT) => Mapped::Anonymous,
        () if is(PAGE_IS_SWAPPED) && is(PAGE_IS_WRITTEN) => Mapped::SwappedOut,
        () if is(PAGE_IS_SWAPPED) => Mapped::Doubtful,
        () => Mapped::Absent,
    }
}

/// `/proc/self/pagemap`.
pub struct Pagemap(File);

impl Pagemap {
    /// Opens it for this process.
    pub fn open() -> io::Result<Pagemap> {
        File::open("/proc/self/pagemap").map(Pagemap)
    }

    /// Calls `found` with every region in `start..end` that is present, swapped or marked, in ascending
    /// order.
    pub fn scan(&self, start: u64, end: u64, found: &mut dyn FnMut(PageRegion)) -> io::Result<()> {
        let told = PAGE_IS_WRITTEN | PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO;
        self.scan_for(PAGE_IS_PRESENT | PAGE_IS_SWAPPED, told, start..end, found)
    }

    /// Calls `found` with every region in `start..end` that is present, in ascending order. Unlike
    /// [`Pagemap::scan`] it reads page tables alone, not what the kernel keeps of each page: some 5 ns a page
    /// instead of 100 once that is in no cache.
    pub fn scan_present(&self, start: u64, end: u64, found: &mut dyn FnMut(PageRegion)) -> io::Result<()> {
        self.scan_for(PAGE_IS_PRESENT, PAGE_IS_PRESENT, start..end, found)
    }

    /// Calls `found` with regions that are any of `wanted`, and which of `told` they are.
    fn scan_for(
        &self,
        wanted: u64,
        told: u64,
        Range { start, end }: Range<u64>,
        found: &mut dyn FnMut(PageRegion),
    ) -> io::Result<()> {
        let mut regions = [PageRegion::default(); REGIONS];
        let mut at = start;
        while at < end {
            let mut arg = PmScanArg {
                size: size_of::<PmScanArg>() as u64,
                start: at,
                end,
                vec: regions.as_mut_ptr() as u64,
                vec_len: REGIONS as u64,
                category_anyof_mask: wanted,
                return_mask: told,
                ..PmScanArg::default()
            };
            // SAFETY: `arg` is the structure the ioctl takes, its `vec` holds `vec_len` regions for the
            // kernel to write.
            let count = unsafe { pagemap_scan(self.0.as_raw_fd(), &raw mut arg) }.map_err(super::io_error)?;
            regions[..count as usize].iter().copied().for_each(&mut *found);
            at = arg.walk_end.max(at + 1);
        }
        Ok(())
    }
}
