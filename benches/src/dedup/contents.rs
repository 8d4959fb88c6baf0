//! The memory that all sides get: which content each page of each guest has, and how much of it a perfect
//! sharer would save.
//!
//! Made-up memory: three quarters of every guest's pages are common to all guests, the rest are its own.
//! Pages that differ do so from their first word on, as most real ones do, or in their last word only: the
//! worst case of a byte comparison, of which ksmd's tree makes many a page.
//!
//! Real memory: images of guests, byte for byte, zero pages included. Each side has to find those too.

use std::{collections::HashSet, fs::File, os::unix::fs::FileExt, path::PathBuf};

use dedup::{content_hash, is_zero};
use pager::{PAGE_BYTES, PageBytes};

use crate::kit::{error::Error, random::Random};

/// Mean length of an extent, in pages, as real images show.
const EXTENT_PAGES: u64 = 4;

/// Where the common pages lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the same address in every guest.
    SameAddress,
    /// Elsewhere in every guest, in extents of mean length 4.
    Extents,
    /// Elsewhere in every guest, no two neighbours together.
    SinglePages,
}

/// What all guests' pages hold.
pub enum Contents {
    /// By guest and page; equal numbers are equal pages, others differ in their last word only (see
    /// [`page`]).
    Numbers(Vec<Vec<u64>>),
    /// The same, but others differ everywhere.
    Varied(Vec<Vec<u64>>),
    /// Raw memory images of one size.
    Images(Vec<File>, u32),
}

/// What a full count finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// Pages in all.
    pub pages: u64,
    /// All zero; a perfect sharer saves every one of them.
    pub zero_pages: u64,
    /// Pages that are not zero and equal to an earlier one.
    pub duplicate_pages: u64,
}

impl Count {
    /// Pages that a perfect sharer saves.
    pub fn limit_pages(&self) -> u64 {
        self.zero_pages + self.duplicate_pages
    }
}

impl Contents {
    /// `guests` guests of `pages` pages, three quarters common.
    pub fn made_up(placement: Placement, guests: u32, pages: u32) -> Contents {
        let common = common_pages(pages);
        let numbers = (0..u64::from(guests)).map(|guest| {
            let own = (common..u64::from(pages)).map(|page| own_number(guest, page));
            let linear: Vec<u64> = (0..common).chain(own).collect();
            match placement {
                Placement::SameAddress => linear,
                Placement::Extents => shuffled(&linear, guest, EXTENT_PAGES),
                Placement::SinglePages => shuffled(&linear, guest, 1),
            }
        });
        Contents::Numbers(numbers.collect())
    }

    /// The same memory, but pages that differ do so everywhere.
    pub fn varied(self) -> Contents {
        match self {
            Contents::Numbers(numbers) => Contents::Varied(numbers),
            other => other,
        }
    }

    /// Memory images, which must have one size, a whole number of pages.
    pub fn images(paths: &[PathBuf]) -> Result<Contents, Error> {
        let (mut files, mut sizes) = (Vec::new(), Vec::new());
        for path in paths {
            let failed = |source| Error::File { path: path.clone(), source };
            let file = File::open(path).map_err(failed)?;
            let bytes = file.metadata().map_err(failed)?.len();
            if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES as u64) || bytes / PAGE_BYTES as u64 > 1 << 24 {
                return Err(Error::ImageSize { path: path.clone(), bytes });
            }
            files.push(file);
            sizes.push((bytes / PAGE_BYTES as u64) as u32);
        }
        match sizes.iter().position(|&pages| pages != sizes[0]) {
            Some(other) => Err(Error::ImagesDiffer { first: paths[0].clone(), other: paths[other].clone() }),
            None => Ok(Contents::Images(files, sizes.first().copied().unwrap_or(0))),
        }
    }

    /// Guests there are.
    pub fn guests(&self) -> usize {
        match self {
            Contents::Numbers(numbers) | Contents::Varied(numbers) => numbers.len(),
            Contents::Images(files, _) => files.len(),
        }
    }

    /// Pages of each guest.
    pub fn pages(&self) -> u32 {
        match self {
            Contents::Numbers(numbers) | Contents::Varied(numbers) => {
                numbers.first().map_or(0, |numbers| numbers.len() as u32)
            }
            Contents::Images(_, pages) => *pages,
        }
    }

    /// Bytes of all guests.
    pub fn bytes(&self) -> u64 {
        self.guests() as u64 * u64::from(self.pages()) * PAGE_BYTES as u64
    }

    /// Hands all pages of one guest to `visit`, in order.
    pub fn each_page(
        &self,
        guest: usize,
        mut visit: impl FnMut(u32, &PageBytes) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Contents::Numbers(numbers) => {
                let mut bytes = page(0);
                for (gfn, &number) in (0..).zip(&numbers[guest]) {
                    set_number(&mut bytes, number);
                    visit(gfn, &bytes)?;
                }
            }
            Contents::Varied(numbers) => {
                for (gfn, &number) in (0..).zip(&numbers[guest]) {
                    visit(gfn, &varied_page(number))?;
                }
            }
            Contents::Images(files, pages) => {
                let mut bytes = [0; PAGE_BYTES];
                for gfn in 0..*pages {
                    let read = files[guest].read_exact_at(&mut bytes, u64::from(gfn) * PAGE_BYTES as u64);
                    read.map_err(Error::system("reading a memory image"))?;
                    visit(gfn, &bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Counts everything. Real pages are told apart by 64 bits of hash: that two of a million collide has
    /// odds of 1 in 30 million.
    pub fn count(&self) -> Result<Count, Error> {
        let (mut count, mut seen) = (Count::default(), HashSet::new());
        for guest in 0..self.guests() {
            self.each_page(guest, |_, bytes| {
                count.pages += 1;
                if is_zero(bytes) {
                    count.zero_pages += 1;
                } else if !seen.insert(content_hash(0, bytes)) {
                    count.duplicate_pages += 1;
                }
                Ok(())
            })?;
        }
        Ok(count)
    }
}

/// How many of a made-up guest's pages are common to all guests.
pub fn common_pages(pages: u32) -> u64 {
    u64::from(pages) * 3 / 4
}

/// The content number of a page that only one guest has.
pub fn own_number(guest: u64, page: u64) -> u64 {
    (guest + 1) << 40 | page
}

/// The page with content number `number`. Pages differ in their last word only, which is the number plus one.
pub fn page(number: u64) -> PageBytes {
    filled(0x9e37_79b9_7f4a_7c15, number)
}

/// The same, but other pages differ everywhere.
fn varied_page(number: u64) -> PageBytes {
    filled((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, number)
}

fn filled(mut word: u64, number: u64) -> PageBytes {
    let mut page = [0; PAGE_BYTES];
    for chunk in page.chunks_exact_mut(8) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    set_number(&mut page, number);
    page
}

fn set_number(page: &mut PageBytes, number: u64) {
    page[PAGE_BYTES - 8..].copy_from_slice(&(number + 1).to_le_bytes());
}

fn shuffled(linear: &[u64], guest: u64, mean_pages: u64) -> Vec<u64> {
    let mut random = Random::new(guest);
    let mut extents = Vec::new();
    let mut rest = linear;
    while !rest.is_empty() {
        // 1 to 2 × mean − 1: uniform, and `mean_pages` on average.
        let length = (1 + random.below(2 * mean_pages - 1)).min(rest.len() as u64);
        let (extent, tail) = rest.split_at(length as usize);
        extents.push(extent);
        rest = tail;
    }
    for last in (1..extents.len()).rev() {
        extents.swap(last, random.below(last as u64 + 1) as usize);
    }
    extents.concat()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn three_quarters_of_all_but_one_guest_can_be_saved_however_they_lie() {
        for placement in [Placement::SameAddress, Placement::Extents, Placement::SinglePages] {
            let count = Contents::made_up(placement, 4, 1024).count().unwrap();
            assert_eq!(count, Count { pages: 4096, zero_pages: 0, duplicate_pages: 3 * 768 });
        }
    }

    #[test]
    fn contents_differ_only_where_their_numbers_do() {
        assert_eq!(page(7), page(7));
        assert_ne!(page(7), page(8));
        assert_eq!(page(7)[..PAGE_BYTES - 8], page(8)[..PAGE_BYTES - 8]);
    }

    #[test]
    fn varied_contents_differ_from_their_first_word_on() {
        let words = |number| varied_page(number).as_chunks::<8>().0.to_vec();
        for other in 1..100 {
            assert!(words(0).iter().zip(words(other)).all(|(a, b)| *a != b), "page {other}");
        }
        let count = |contents: Contents| contents.count().unwrap().limit_pages();
        let made_up = || Contents::made_up(Placement::SameAddress, 4, 1024);
        assert_eq!(count(made_up().varied()), count(made_up()));
    }

    #[test]
    fn zero_pages_of_images_count_for_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let image = |name: &str, pages: &[PageBytes]| {
            let path = folder.path().join(name);
            File::create(&path).unwrap().write_all(&pages.concat()).unwrap();
            path
        };
        let zero = [0; PAGE_BYTES];
        let paths = [image("a", &[zero, page(1), page(2)]), image("b", &[page(2), zero, zero])];
        let count = Contents::images(&paths).unwrap().count().unwrap();
        assert_eq!((count.zero_pages, count.duplicate_pages, count.limit_pages()), (3, 1, 4));
        let odd = image("c", &[zero]);
        assert!(matches!(Contents::images(&[paths[0].clone(), odd]), Err(Error::ImagesDiffer { .. })));
        std::fs::write(folder.path().join("d"), [0; 100]).unwrap();
        assert!(matches!(Contents::images(&[folder.path().join("d")]), Err(Error::ImageSize { bytes: 100, .. })));
    }
}
