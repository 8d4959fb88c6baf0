//! The front end's memory: which part of which file is which frame, and holes in the place of pages that were
//! given up.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use balloon::{PageSink, RamLayout};
use nix::fcntl::{FallocateFlags, fallocate};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use wire::PAGE_BYTES;

/// Frames that lie one after the other in a file.
#[derive(Clone, Debug)]
struct Region {
    frames: Range<u32>,
    file: Arc<File>,
    file_offset: u64,
}

/// Memory shared by the front end; none until it says so.
#[derive(Debug, Default)]
pub(crate) struct SharedMemory {
    regions: RwLock<Vec<Region>>,
    /// Bytes that were released, in all.
    pub(crate) released_bytes: AtomicU64,
    /// Ranges that the kernel would not release.
    pub(crate) failures: AtomicU64,
}

impl SharedMemory {
    /// Takes over the regions of `memory`. Parts of pages at their borders are not RAM to the balloon.
    pub(crate) fn replace(&self, memory: &GuestMemoryMmap<()>) -> RamLayout {
        let regions: Vec<Region> = memory
            .iter()
            .filter_map(|region| {
                let (start, bytes) = (region.start_addr().0, region.len());
                let place = region.file_offset()?;
                region_of(start, bytes, place.arc().clone(), place.start())
            })
            .collect();
        let layout = RamLayout::new(regions.iter().map(|region| region.frames.clone()));
        *self.regions.write().unwrap_or_else(PoisonError::into_inner) = regions;
        layout
    }

    fn release(&self, frames: Range<u32>) {
        for region in &*self.regions.read().unwrap_or_else(PoisonError::into_inner) {
            let part = frames.start.max(region.frames.start)..frames.end.min(region.frames.end);
            if part.is_empty() {
                continue;
            }
            let bytes = |frames: u32| u64::from(frames) * PAGE_BYTES as u64;
            let offset = region.file_offset + bytes(part.start - region.frames.start);
            match punch(&region.file, offset, bytes(part.end - part.start)) {
                // Relaxed: figures.
                Ok(()) => _ = self.released_bytes.fetch_add(bytes(part.end - part.start), Ordering::Relaxed),
                Err(error) => {
                    let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                    if failures.is_power_of_two() {
                        tracing::warn!(failures, %error, "memory of the front end cannot be released");
                    }
                }
            }
        }
    }
}

/// The whole pages of a region; none where file and guest disagree on what a page is.
fn region_of(start: u64, bytes: u64, file: Arc<File>, file_offset: u64) -> Option<Region> {
    let page = PAGE_BYTES as u64;
    let skipped = start.next_multiple_of(page) - start;
    let first = u32::try_from((start + skipped) / page).ok()?;
    let behind = u32::try_from(start.checked_add(bytes)? / page).ok()?;
    let file_offset = file_offset.checked_add(skipped)?;
    (first < behind && file_offset.is_multiple_of(page)).then_some(Region { frames: first..behind, file, file_offset })
}

fn punch(file: &File, offset: u64, bytes: u64) -> nix::Result<()> {
    let (Ok(offset), Ok(bytes)) = (i64::try_from(offset), i64::try_from(bytes)) else {
        return Err(nix::errno::Errno::EOVERFLOW);
    };
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file.as_fd(), flags, offset, bytes)
}

impl PageSink for SharedMemory {
    fn inflate(&self, range: Range<u32>) {
        self.release(range);
    }

    /// The file gives a page back when it is touched.
    fn deflate(&self, _: Range<u32>) {}

    /// A hole reads as zeros. Pages that are to be filled with anything else are kept, which 5.5.6.7.2
    /// allows.
    fn report_free(&self, range: Range<u32>, fill: u32) {
        if fill == 0 {
            self.release(range);
        }
    }

    /// Nobody here learns of the guest's writes.
    fn watch(&self) {}

    fn drop_hinted(&self, _: Range<u32>, _: u32) -> u32 {
        0
    }

    fn unwatch(&self) {}
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use vm_memory::{FileOffset, GuestAddress};

    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    /// A file of 64 pages, all 0xa5; its pages from 16 on are the guest's frames 0x100 to 0x120.
    fn shared() -> (File, SharedMemory, RamLayout) {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
        file.write_all_at(&[0xa5; 64 * PAGE_BYTES], 0).unwrap();
        let range = (
            GuestAddress(0x100 * PAGE),
            0x20 * PAGE_BYTES,
            Some(FileOffset::new(file.try_clone().unwrap(), 16 * PAGE)),
        );
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let shared = SharedMemory::default();
        let layout = shared.replace(&memory);
        (file, shared, layout)
    }

    fn is_kept(file: &File, page: u64) -> bool {
        let mut bytes = [0; PAGE_BYTES];
        file.read_exact_at(&mut bytes, page * PAGE).unwrap();
        assert!(bytes == [0; PAGE_BYTES] || bytes == [0xa5; PAGE_BYTES]);
        bytes[0] != 0
    }

    #[test]
    fn a_page_given_up_is_a_hole_in_its_file_and_no_other_page_is() {
        let (file, shared, layout) = shared();
        assert_eq!(layout, RamLayout::new(std::iter::once(0x100..0x120)));
        let before = file.metadata().unwrap().blocks();
        shared.inflate(0x104..0x108);
        assert!((0..64).all(|page| is_kept(&file, page) != (20..24).contains(&page)));
        assert_eq!(before - file.metadata().unwrap().blocks(), 4 * PAGE / 512);
        // Frames that nobody shared are nobody's.
        shared.inflate(0..0x100);
        shared.inflate(0x11f..0x200);
        assert!((0..64).all(|page| is_kept(&file, page) != ((20..24).contains(&page) || page == 47)));
        assert_eq!(shared.released_bytes.load(Ordering::Relaxed), 5 * PAGE);
    }

    #[test]
    fn reported_pages_stay_where_zeros_would_be_wrong_and_hinted_ones_always() {
        let (file, shared, _) = shared();
        shared.report_free(0x100..0x104, 0xaaaa_aaaa);
        shared.watch();
        assert_eq!(shared.drop_hinted(0x104..0x108, 0), 0);
        assert!((0..64).all(|page| is_kept(&file, page)));
        shared.report_free(0x100..0x104, 0);
        assert!((16..20).all(|page| !is_kept(&file, page)));
    }

    #[test]
    fn regions_are_cut_to_whole_pages() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let region = |start, bytes, offset| {
            region_of(start, bytes, file.clone(), offset).map(|region| (region.frames, region.file_offset))
        };
        assert_eq!(region(0x1000, 0x2000, 0), Some((1..3, 0)));
        assert_eq!(region(0x1800, 0x2000, 0x800), Some((2..3, 0x1000)));
        assert_eq!(region(0x1800, 0x2000, 0), None, "pages of the guest are not pages of the file");
        assert_eq!(region(0x1800, 0x400, 0x800), None);
        assert_eq!(region(!0xfff, 0x2000, 0), None);
    }
}
