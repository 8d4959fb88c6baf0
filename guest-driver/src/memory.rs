//! Guest RAM as plain bytes: the one module that turns addresses into accesses.
//!
//! RAM is never seen through references to data: it belongs to the guest's allocator, may be mapped anywhere
//! (address 0 in the bare image), and devices read and write it too. A [`Span`] is a bounds-checked stretch
//! of it whose accesses are relaxed atomic loads and stores, which on x86 are plain `mov`s. So a race between
//! two vCPUs or with a device would be a wrong value, which the page checks catch, and never undefined
//! behaviour.
//!
//! **Invariant:** no span begins at guest-physical address 0, which in the bare image would be a null
//! pointer. Only [`Ram::copy_page_out`] reads that page, in assembly.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use wire::PAGE_BYTES;

/// 64-bit words of a page.
pub const PAGE_WORDS: usize = PAGE_BYTES / 8;

/// The guest's RAM: where it is mapped, and how much there is.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    base: *mut u8,
    pages: u32,
}

// SAFETY: `Ram` is an address range; all accesses through it are atomic or in `copy_page_out`'s assembly.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// RAM mapped at `base`.
    ///
    /// # Safety
    /// `base..base + bytes` must stay readable and writable memory, aligned to 8 bytes, as long as the result
    /// or a span of it is used, and no Rust reference may be made to it.
    pub const unsafe fn new(base: *mut u8, bytes: u64) -> Ram {
        Ram { base, pages: (bytes / PAGE_BYTES as u64) as u32 }
    }

    /// Pages of RAM.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// `pages` whole pages from `gfn` on.
    pub fn span(&self, gfn: u32, pages: u32) -> Span {
        assert!(gfn > 0 && pages <= self.pages && gfn <= self.pages - pages, "pages outside RAM");
        let base = self.base.wrapping_add(gfn as usize * PAGE_BYTES);
        Span { base, bytes: pages as usize * PAGE_BYTES, gpa: u64::from(gfn) * PAGE_BYTES as u64 }
    }

    /// One page.
    #[inline]
    pub fn page(&self, gfn: u32) -> Span {
        self.span(gfn, 1)
    }

    /// Copies a page, which may be page 0, to `words`.
    pub fn copy_page_out(&self, gfn: u32, words: &mut [u64; PAGE_WORDS]) {
        assert!(gfn < self.pages, "page outside RAM");
        let source = self.base.wrapping_add(gfn as usize * PAGE_BYTES);
        // SAFETY: the source lies within RAM, which `new`'s caller vouched for; the target is 512 words of
        // ours; the direction flag is clear by the ABI.
        unsafe {
            core::arch::asm!(
                "rep movsq",
                inout("rcx") PAGE_WORDS => _,
                inout("rsi") source => _,
                inout("rdi") words.as_mut_ptr() => _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// A stretch of RAM. Indices count in units of the access; one out of bounds panics.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    base: *mut u8,
    bytes: usize,
    gpa: u64,
}

// SAFETY: as for `Ram`: an address range with atomic accesses only.
unsafe impl Send for Span {}

/// Accessors of one width.
macro_rules! access {
    ($get:ident, $set:ident, $atomic:ident, $int:ident, $cell:ident) => {
        #[doc = concat!("Reads the `", stringify!($int), "` with this index.")]
        #[inline(always)]
        pub fn $get(&self, index: usize) -> $int {
            self.$cell(index).load(Relaxed)
        }

        #[doc = concat!("Writes the `", stringify!($int), "` with this index.")]
        #[inline(always)]
        pub fn $set(&self, index: usize, value: $int) {
            self.$cell(index).store(value, Relaxed)
        }

        #[inline(always)]
        fn $cell(&self, index: usize) -> &$atomic {
            assert!(index < self.bytes / size_of::<$int>(), "access outside span");
            let at = self.base.wrapping_add(index * size_of::<$int>()).cast();
            // SAFETY: inside RAM by the assertion and `Ram::span`'s, aligned because spans are page-aligned
            // and split at multiples of eight bytes, valid by `Ram::new`'s contract, and only ever accessed
            // atomically.
            unsafe { $atomic::from_ptr(at) }
        }
    };
}

impl Span {
    access!(u16, set_u16, AtomicU16, u16, cell_u16);
    access!(u32, set_u32, AtomicU32, u32, cell_u32);
    access!(u64, set_u64, AtomicU64, u64, cell_u64);

    /// Guest-physical address of the first byte.
    pub fn gpa(&self) -> u64 {
        self.gpa
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The part from byte `from` on, `bytes` long; both multiples of eight.
    pub fn part(&self, from: usize, bytes: usize) -> Span {
        assert!(from.is_multiple_of(8) && bytes <= self.bytes && from <= self.bytes - bytes, "part outside span");
        Span { base: self.base.wrapping_add(from), bytes, gpa: self.gpa + from as u64 }
    }

    /// Writes zeros all over it.
    pub fn clear(&self) {
        for index in 0..self.bytes / 8 {
            self.set_u64(index, 0);
        }
    }

    /// Whether all of it is zero.
    pub fn is_clear(&self) -> bool {
        (0..self.bytes / 8).fold(0, |any, index| any | self.u64(index)) == 0
    }
}
