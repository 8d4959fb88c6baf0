//! The image a guest started from: where a page that the guest has not changed since need not be kept.
//!
//! ```text
//!   loading    file --page--> RAM                 note: 64 bits of keyed hash a page
//!   eviction   page, protected --hash equal?----> Clean: dropped, nothing is kept of it
//!   fault      file --page--> hash equal? ------> Private     else the guest ends, and has seen none of it
//! ```
//!
//! Nothing tracks writes: a page is clean if it equals what was loaded, even if it was something else in
//! between. The hash is xxh3 with a secret of this guest's and the page number as its seed, as for slots of
//! the swap file: of 2^64 changed pages one is taken for clean, and without the secret nobody can make one.
//! It takes 8 bytes a page of the image, and nothing for pages of zeros, which are not loaded.
//!
//! The file belongs to somebody else. It may be changed, cut short or unreadable at any moment, so a page
//! read from it is believed only if its hash is what was noted.

use std::io;

use wire::{Gfn, PAGE_BYTES, PageBytes};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    sync::{AtomicU64, Ordering, zeroed_u64s},
    sys::PageBuffer,
};

/// Times a page is read before its guest is given up, as for slots of the swap file.
const READ_TRIES: u32 = 3;

/// A file that a guest's RAM was loaded from: page 0 of RAM is at its beginning. As `pread`: a call may be
/// short.
pub trait ImageFile: Send + Sync {
    /// Reads from `offset` on; gives how many bytes, 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// What people call it.
    fn name(&self) -> String;
}

/// Why a page cannot be had from the image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// the file cannot be read
    #[error("{0}")]
    Io(#[from] io::Error),
    /// the file has changed
    #[error("it does not hold any more what was loaded from it: it was changed while the guest ran")]
    Changed,
}

/// A guest's image.
pub struct Image {
    file: Box<dyn ImageFile>,
    secret: u64,
    /// By page; 0 for one that was not loaded.
    hashes: Box<[AtomicU64]>,
}

impl Image {
    /// The image in `file`, of a guest of `pages` pages; nothing is loaded from it yet.
    pub fn new(file: Box<dyn ImageFile>, pages: u32, secret: u64) -> Image {
        Image { file, secret, hashes: zeroed_u64s(pages) }
    }

    /// What its file is called.
    pub fn name(&self) -> String {
        self.file.name()
    }

    /// This page was loaded with this content. The caller holds its lock.
    pub fn note(&self, gfn: Gfn, page: &PageBytes) {
        // Relaxed: the page's lock orders it before whoever evicts the page.
        self.hashes[gfn.index()].store(self.hash(gfn, page), Ordering::Relaxed);
    }

    /// Whether the page is what was loaded. The caller holds its lock, and the page is protected.
    pub fn holds(&self, gfn: Gfn, page: &PageBytes) -> bool {
        let noted = self.hashes[gfn.index()].load(Ordering::Relaxed);
        noted != 0 && noted == self.hash(gfn, page)
    }

    /// Reads `count` pages (at most `buffer`'s) from `gfn` on, which were loaded. How many are right, from
    /// the first on, which must be.
    pub fn read(&self, gfn: Gfn, count: u32, buffer: &mut PageBuffer) -> Result<u32, ImageError> {
        let mut tries = 1;
        loop {
            // What cannot be read together may be read alone.
            let together = if tries == 1 { count } else { 1 };
            let read = self.fill(gfn, buffer.bytes_mut(0, together as usize));
            let error = match read {
                Ok(()) => {
                    let is_right = |&number: &u32| self.holds(gfn.plus(number), buffer.page(number as usize));
                    let right = (0..together).take_while(is_right).count() as u32;
                    if right > 0 {
                        return Ok(right);
                    }
                    ImageError::Changed
                }
                Err(error) => ImageError::Io(error),
            };
            if tries == READ_TRIES {
                return Err(error);
            }
            tries += 1;
        }
    }

    fn fill(&self, gfn: Gfn, bytes: &mut [u8]) -> io::Result<()> {
        let (offset, mut done) = (u64::from(gfn.0) * PAGE_BYTES as u64, 0);
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file ends before it: it was cut short while the guest ran",
                    ));
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hash(&self, gfn: Gfn, page: &PageBytes) -> u64 {
        // 0 says that there is none.
        xxh3_64_with_seed(page, self.secret ^ u64::from(gfn.0)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sync::run_once;

    /// A file in memory that transfers little at a time, and fails so many times first.
    #[derive(Clone)]
    struct Small(Arc<Mutex<(Vec<u8>, u32)>>);

    impl ImageFile for Small {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            if state.1 > 0 {
                state.1 -= 1;
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let rest = state.0.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(into.len()).min(1000);
            into[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn name(&self) -> String {
            "small".into()
        }
    }

    fn loaded(pages: u32) -> (Small, Image) {
        let content = (0..pages).flat_map(|page| [page as u8 + 1; PAGE_BYTES]).collect();
        let file = Small(Arc::new(Mutex::new((content, 0))));
        let image = Image::new(Box::new(file.clone()), pages, 42);
        (0..pages).for_each(|page| image.note(Gfn(page), &[page as u8 + 1; PAGE_BYTES]));
        (file, image)
    }

    #[test]
    fn a_page_is_clean_only_at_its_own_place() {
        run_once(|| {
            let (_, image) = loaded(4);
            assert!(image.holds(Gfn(2), &[3; PAGE_BYTES]));
            assert!(!image.holds(Gfn(2), &[4; PAGE_BYTES]));
            let unloaded = Image::new(Box::new(loaded(1).0), 4, 42);
            assert!(!unloaded.holds(Gfn(0), &[1; PAGE_BYTES]));
        });
    }

    #[test]
    fn transfers_that_are_short_or_fail_twice_are_completed() {
        run_once(|| {
            let (file, image) = loaded(4);
            let mut buffer = PageBuffer::new(4).unwrap();
            assert_eq!(image.read(Gfn(1), 3, &mut buffer).unwrap(), 3);
            assert!((0..3).all(|page| *buffer.page(page) == [page as u8 + 2; PAGE_BYTES]));
            file.0.lock().unwrap().1 = 2;
            assert_eq!(image.read(Gfn(1), 3, &mut buffer).unwrap(), 1, "alone, after the first failure");
            file.0.lock().unwrap().1 = 3;
            assert!(matches!(image.read(Gfn(1), 3, &mut buffer), Err(ImageError::Io(_))));
        });
    }

    #[test]
    fn what_changed_in_the_file_is_never_taken_for_the_page() {
        run_once(|| {
            let (file, image) = loaded(4);
            let mut buffer = PageBuffer::new(4).unwrap();
            file.0.lock().unwrap().0[2 * PAGE_BYTES + 17] ^= 1;
            assert_eq!(image.read(Gfn(0), 4, &mut buffer).unwrap(), 2, "those before it are right");
            assert!(matches!(image.read(Gfn(2), 2, &mut buffer), Err(ImageError::Changed)));
            file.0.lock().unwrap().0.truncate(PAGE_BYTES + 5);
            let error = image.read(Gfn(1), 1, &mut buffer).unwrap_err().to_string();
            assert!(error.contains("cut short"), "{error}");
        });
    }
}
