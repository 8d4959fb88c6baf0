//! The initial RAM disk: as high as it may be, so that the kernel has room behind itself.

use wire::PAGE_BYTES;

use crate::kernel::Kernel;
use crate::{Error, Write};

/// Its place below `low_end`, behind the kernel and where the kernel can reach it. Its first byte begins a
/// page.
pub(crate) fn write<'a>(initrd: &'a [u8], kernel: &Kernel<'_>, low_end: u64) -> Result<Write<'a>, Error> {
    let (low, high) = (kernel.end.next_multiple_of(PAGE_BYTES as u64), low_end.min(kernel.initrd_end_max));
    let bytes = initrd.len() as u64;
    let gpa = high.checked_sub(bytes).map(|start| start - start % PAGE_BYTES as u64).filter(|&start| start >= low);
    match gpa {
        Some(gpa) if bytes > 0 => Ok(Write { gpa, bytes: initrd.into() }),
        _ => Err(Error::Initrd { bytes, low, high }),
    }
}
