//! What an address-space area costs the kernel, measured: a `vm_area_struct`, its share of the tree of areas,
//! and the chains that find its anonymous pages.
//!
//! ```text
//!   anonymous pages of a private file mapping    | 0 | 1 | 2 | 3 | 4 | ...        one area
//!   every other one mapped to another offset     | 0 | 9'| 2 |11'| 4 | ...        an area a page
//! ```
//!
//! Measured once a run, by how much the kernel's slab caches grow. Others on the machine use the same caches,
//! so the median of a few tries counts.

use std::{num::NonZeroUsize, os::fd::OwnedFd, thread, time::Duration};

use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, munmap},
    },
    unistd::ftruncate,
};
use pager::PAGE_BYTES;

use crate::kit::{
    books::{self, Slab},
    error::Error,
};

/// Caches that grow with areas.
const CACHES: [Slab; 4] = [Slab("vm_area_struct"), Slab("maple_node"), Slab("anon_vma"), Slab("anon_vma_chain")];
/// Pages of the mapping; half of them become areas: below the usual limit of 65530.
const PAGES: usize = 32 << 10;
/// Tries, an odd number.
const TRIES: usize = 5;
/// What the kernel frees late (after an RCU grace period) is gone by then.
const SETTLE: Duration = Duration::from_millis(200);

/// Bytes of kernel memory for an area, the median of a few tries.
pub fn measure() -> Result<f64, Error> {
    let settled = |_| {
        thread::sleep(SETTLE);
        one()
    };
    let mut tries = (0..TRIES).map(settled).collect::<Result<Vec<_>, _>>()?;
    tries.sort_by(f64::total_cmp);
    Ok(tries[TRIES / 2])
}

fn one() -> Result<f64, Error> {
    let failed = Error::system::<nix::errno::Errno>;
    let file = memfd_create(c"area-cost", MFdFlags::MFD_CLOEXEC).map_err(failed("making a memfd"))?;
    ftruncate(&file, (2 * PAGES * PAGE_BYTES) as i64).map_err(failed("making a memfd"))?;
    let bytes = NonZeroUsize::MIN.saturating_add(PAGES * PAGE_BYTES - 1);
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let base = unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, &file, 0) };
    let base = base.map_err(failed("mapping a memfd"))?;
    for page in 0..PAGES {
        // SAFETY: inside the mapping just made.
        let byte = unsafe { base.cast::<u8>().add(page * PAGE_BYTES) };
        // SAFETY: mapped writable, and nobody else knows of it.
        unsafe { byte.write_volatile(1) };
    }
    let before = (slab_bytes()?, books::areas()?);
    let result = scatter(base.as_ptr() as usize, &file);
    let after = (slab_bytes()?, books::areas()?);
    // SAFETY: exactly what was mapped above, whatever it was cut into.
    unsafe { munmap(base, bytes.get()) }.map_err(failed("unmapping a memfd"))?;
    result?;
    Ok(after.0.saturating_sub(before.0) as f64 / after.1.saturating_sub(before.1).max(1) as f64)
}

/// Maps every other page to where another is.
fn scatter(base: usize, file: &OwnedFd) -> Result<(), Error> {
    let page_bytes = NonZeroUsize::MIN.saturating_add(PAGE_BYTES - 1);
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
    for page in (1..PAGES).step_by(2) {
        let (at, offset) = (NonZeroUsize::new(base + page * PAGE_BYTES), (PAGES + page) * PAGE_BYTES);
        // SAFETY: inside our own mapping, into which nobody holds a reference.
        unsafe { mmap(at, page_bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, file, offset as i64) }
            .map_err(Error::system("mapping a page of a memfd"))?;
    }
    Ok(())
}

fn slab_bytes() -> Result<u64, Error> {
    CACHES.iter().map(|cache| cache.bytes()).sum()
}
