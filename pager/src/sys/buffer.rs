//! Pages in memory as direct I/O wants them: beginning at a multiple of the page size. Those that are never
//! used cost nothing.

use std::io;

use wire::{PAGE_BYTES, PageBytes};

use crate::sys::{Arena, MmapArena};

/// A buffer for some pages.
pub struct PageBuffer(MmapArena);

impl PageBuffer {
    /// A buffer for `pages` pages, at least one.
    pub fn new(pages: usize) -> io::Result<PageBuffer> {
        let bytes = (pages * PAGE_BYTES).try_into().map_err(io::Error::other)?;
        MmapArena::new(bytes).map(PageBuffer).map_err(io::Error::from)
    }

    /// Pages it holds.
    pub fn pages(&self) -> usize {
        self.0.bytes() / PAGE_BYTES
    }

    /// The bytes of `count` pages from page `first` on.
    pub fn bytes(&self, first: usize, count: usize) -> &[u8] {
        self.0.slice(first * PAGE_BYTES, count * PAGE_BYTES)
    }

    /// The same, to write to.
    pub fn bytes_mut(&mut self, first: usize, count: usize) -> &mut [u8] {
        self.0.slice_mut(first * PAGE_BYTES, count * PAGE_BYTES)
    }

    /// One page.
    pub fn page(&self, index: usize) -> &PageBytes {
        self.bytes(index, 1).as_array().expect("a page has a page's length")
    }

    /// One page, to write to.
    pub fn page_mut(&mut self, index: usize) -> &mut PageBytes {
        self.bytes_mut(index, 1).as_mut_array().expect("a page has a page's length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_begins_at_a_page() {
        for pages in [1, 2, 32] {
            let mut buffer = PageBuffer::new(pages).unwrap();
            assert_eq!(buffer.pages(), pages);
            assert!((0..pages).all(|page| buffer.page(page).as_ptr().addr().is_multiple_of(PAGE_BYTES)));
            buffer.page_mut(pages - 1).fill(7);
            assert_eq!(buffer.bytes(0, pages).iter().filter(|&&byte| byte == 7).count(), PAGE_BYTES);
        }
    }
}
