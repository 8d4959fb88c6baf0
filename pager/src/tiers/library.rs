//! Frames that pages may be patches of, found by what they have in common (Difference Engine: Gupta et al.,
//! OSDI 2008).
//!
//! ```text
//!   page     128 blocks of 32 bytes --hash--> the smallest few: its *sketch*  (min-wise, Broder 1997)
//!   table    | frame: 24 | tag: 8 |  ...  one entry a guest page; the first with a hash keeps it
//!   similar  the frame that most hashes of the page's sketch lead to
//! ```
//!
//! Pages that share content share most of their sketch, wherever in the page it lies by whole blocks. An
//! entry is a hint: its frame may be another by now, or a tag may match by chance (once in 256), and the page
//! then compresses badly against it, which is found out by compressing it.
//!
//! The table is there only while pages are packed: it is made before the first is, made anew once it is
//! [`LIFE_MS`] old, and dropped where nothing is to be packed any more. If it did not bring as much as it
//! takes, pages are packed without for [`REST_MS`].

use wire::{Frame, PageBytes};
use xxhash_rust::xxh3::xxh3_64;

const BLOCK_BYTES: usize = 32;
/// Hashes of a frame in the table. More would find more, and push each other out.
const KEPT: usize = 4;
/// Hashes of a page that are looked up: a hash that the page lost pushes another among the smallest.
const LOOKED_UP: usize = 8;
const FRAME_BITS: u32 = 24;
/// Frames beyond this number (64 GiB of store) are not in the library.
const FRAMES_MAX: u32 = (1 << FRAME_BITS) - 1;
/// How long frames that were read are taken to be those there are, ms. Reading them again takes 2 µs each.
const LIFE_MS: u64 = 60_000;
/// The same for a guest that can win memory by nothing else any more, ms: a frame that was published
/// meanwhile may be what it needs.
const LIFE_SHORT_MS: u64 = 4_000;
/// How long nothing is read after a library that did not pay, ms: at most a sixteenth of the time is then
/// spent in vain.
const REST_MS: u64 = 16 * LIFE_MS;

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There are no entries, and none are wanted.
    Closed,
    /// Frames before this one have been read.
    Reading(u32),
    /// All frames had been read at this time.
    Read(u64),
    /// It did not pay; not before this time again.
    Resting(u64),
}

/// What is to be done about pages to be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Read frames first, from this one on.
    Read(Frame),
    /// Pack them.
    Pack,
}

/// Frames by sketch.
pub struct Library {
    table: Vec<u32>,
    entries: usize,
    phase: Phase,
    gained_bytes: u64,
}

impl Library {
    /// For a guest of `pages` pages. It takes no memory yet.
    pub fn new(pages: u32) -> Library {
        Library { table: Vec::new(), entries: pages as usize, phase: Phase::Closed, gained_bytes: 0 }
    }

    /// Memory of the table.
    pub fn bytes(&self) -> u64 {
        (self.table.len() * size_of::<u32>()) as u64
    }

    /// What is to be done now that there are pages to be packed.
    pub fn task(&mut self, now_ms: u64) -> Task {
        self.expire(now_ms);
        match self.phase {
            Phase::Closed => self.phase = Phase::Reading(0),
            Phase::Resting(until_ms) if now_ms >= until_ms => self.phase = Phase::Reading(0),
            _ => {}
        }
        match self.phase {
            Phase::Reading(next) => Task::Read(Frame(next)),
            _ => Task::Pack,
        }
    }

    /// Drops entries that are too old.
    pub fn expire(&mut self, now_ms: u64) {
        if let Phase::Read(since_ms) = self.phase
            && now_ms >= since_ms + LIFE_MS
        {
            self.phase =
                if self.gained_bytes < self.bytes() { Phase::Resting(now_ms + REST_MS) } else { Phase::Closed };
            (self.table, self.gained_bytes) = (Vec::new(), 0);
        }
    }

    /// Has the frames read anew unless that was just done: for a guest that is out of memory.
    pub fn refresh(&mut self, now_ms: u64) {
        let is_stale = match self.phase {
            Phase::Closed | Phase::Reading(_) => false,
            Phase::Read(since_ms) => now_ms >= since_ms + LIFE_SHORT_MS,
            Phase::Resting(_) => true,
        };
        if is_stale {
            (self.phase, self.table, self.gained_bytes) = (Phase::Closed, Vec::new(), 0);
        }
    }

    /// Frames before `next` have been read, which are all there are if it is `None`.
    pub fn read_up_to(&mut self, next: Option<Frame>, now_ms: u64) {
        self.phase = next.map_or(Phase::Read(now_ms), |next| Phase::Reading(next.0));
    }

    /// A patch takes so many bytes less than the page did without.
    pub fn gained(&mut self, bytes: usize) {
        self.gained_bytes += bytes as u64;
    }

    /// Takes a frame in.
    pub fn add(&mut self, frame: Frame, page: &PageBytes) {
        if frame.0 >= FRAMES_MAX {
            return;
        }
        if self.table.is_empty() {
            self.table = vec![0; self.entries];
        }
        for hash in sketch::<KEPT>(page) {
            let entry = &mut self.table[place(hash, self.entries)];
            if *entry == 0 {
                *entry = (frame.0 + 1) | tag(hash);
            }
        }
    }

    /// The frame that most likely has most in common with `page`.
    pub fn similar(&self, page: &PageBytes) -> Option<Frame> {
        if self.table.is_empty() {
            return None;
        }
        let mut found = [0; LOOKED_UP];
        for (found, hash) in found.iter_mut().zip(sketch::<LOOKED_UP>(page)) {
            let entry = self.table[place(hash, self.entries)];
            if entry != 0 && entry & !FRAMES_MAX == tag(hash) {
                *found = entry & FRAMES_MAX;
            }
        }
        let votes = |&frame: &u32| found.iter().filter(|&&other| other == frame).count();
        found.into_iter().filter(|&frame| frame > 0).max_by_key(votes).map(|frame| Frame(frame - 1))
    }
}

fn place(hash: u64, entries: usize) -> usize {
    // The middle of the hash: its top is small in all sketches, its bottom is the tag.
    let middle = (hash >> 8) & 0xffff_ffff;
    ((middle * entries as u64) >> 32) as usize
}

fn tag(hash: u64) -> u32 {
    (hash as u32) << FRAME_BITS
}

/// The `N` smallest hashes of the page's blocks, without those that are all zero; fewer where there are
/// fewer.
fn sketch<const N: usize>(page: &PageBytes) -> impl Iterator<Item = u64> {
    let mut smallest = [u64::MAX; N];
    for block in page.chunks_exact(BLOCK_BYTES).filter(|block| **block != [0; BLOCK_BYTES]) {
        let hash = xxh3_64(block);
        if hash < smallest[N - 1] && !smallest.contains(&hash) {
            let at = smallest.partition_point(|&other| other < hash);
            smallest[at..].rotate_right(1);
            smallest[at] = hash;
        }
    }
    smallest.into_iter().filter(|&hash| hash != u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::PAGE_BYTES;

    fn noise(seed: u64) -> PageBytes {
        let mut state = seed;
        std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
    }

    #[test]
    fn a_page_is_led_to_the_frame_it_differs_from_least() {
        let mut library = Library::new(4096);
        (0..500).for_each(|frame| library.add(Frame(frame), &noise(u64::from(frame))));
        let mut found = 0;
        for frame in 0..500 {
            let mut page = noise(u64::from(frame));
            // One word in eight is another, and a quarter of the page is some other frame's.
            page.chunks_exact_mut(64).for_each(|words| words[..8].fill(7));
            page[..PAGE_BYTES / 4].copy_from_slice(&noise(u64::from(frame) + 1000)[..PAGE_BYTES / 4]);
            found += u32::from(library.similar(&page) == Some(Frame(frame)));
        }
        assert!(found > 250, "{found} of 500");
        let by_chance = (1000..2000).filter(|&seed| library.similar(&noise(seed)).is_some()).count();
        assert!(by_chance < 50, "{by_chance} of 1000");
    }

    #[test]
    fn zero_pages_and_frames_out_of_range_are_in_no_library() {
        let mut library = Library::new(64);
        library.add(Frame(FRAMES_MAX), &noise(1));
        assert_eq!((library.similar(&noise(1)), library.bytes()), (None, 0));
        library.add(Frame(FRAMES_MAX - 1), &noise(1));
        library.add(Frame(0), &[0; PAGE_BYTES]);
        assert_eq!(library.similar(&noise(1)), Some(Frame(FRAMES_MAX - 1)));
        assert_eq!((library.similar(&[0; PAGE_BYTES]), library.bytes()), (None, 256));
    }

    #[test]
    fn it_is_read_before_the_first_page_is_packed_and_again_when_it_is_old() {
        let mut library = Library::new(1);
        assert_eq!(library.task(0), Task::Read(Frame(0)));
        library.add(Frame(0), &noise(1));
        library.read_up_to(Some(Frame(100)), 1);
        assert_eq!(library.task(1), Task::Read(Frame(100)));
        library.read_up_to(None, 2);
        library.gained(4);
        assert_eq!((library.task(2), library.task(1 + LIFE_MS)), (Task::Pack, Task::Pack));
        assert_eq!(library.task(2 + LIFE_MS), Task::Read(Frame(0)));
        assert_eq!(library.bytes(), 0);
    }

    #[test]
    fn one_that_did_not_pay_rests_and_one_that_nobody_needs_is_dropped() {
        let mut library = Library::new(1);
        for gained in [3, 4] {
            assert_eq!(library.task(0), Task::Read(Frame(0)));
            library.add(Frame(0), &noise(1));
            library.read_up_to(None, 0);
            library.gained(gained);
            library.expire(LIFE_MS - 1);
            assert_eq!(library.bytes(), 4);
            library.expire(LIFE_MS);
            assert_eq!(library.bytes(), 0);
            if gained == 3 {
                assert_eq!(library.task(LIFE_MS + REST_MS - 1), Task::Pack);
                assert_eq!(library.task(LIFE_MS + REST_MS), Task::Read(Frame(0)));
                library = Library::new(1);
            }
        }
        assert_eq!(library.task(LIFE_MS), Task::Read(Frame(0)));
    }

    #[test]
    fn a_guest_out_of_memory_reads_frames_anew_every_few_seconds() {
        let mut library = Library::new(1);
        library.read_up_to(None, 1000);
        library.refresh(1000 + LIFE_SHORT_MS - 1);
        assert_eq!(library.task(5000), Task::Pack);
        library.refresh(1000 + LIFE_SHORT_MS);
        assert_eq!(library.task(5000), Task::Read(Frame(0)));
        library.read_up_to(Some(Frame(9)), 5000);
        library.refresh(50_000);
        assert_eq!(library.task(50_000), Task::Read(Frame(9)), "it is being read");
        library.add(Frame(0), &noise(1));
        library.read_up_to(None, 0);
        library.expire(LIFE_MS);
        assert_eq!(library.task(LIFE_MS), Task::Pack, "it rests");
        library.refresh(LIFE_MS);
        assert_eq!(library.task(LIFE_MS), Task::Read(Frame(0)));
    }

    proptest! {
        #[test]
        fn any_page_and_any_size_will_do(bytes in proptest::collection::vec(any::<u8>(), PAGE_BYTES), pages in 1u32..200) {
            let page: PageBytes = bytes.try_into().unwrap();
            let mut library = Library::new(pages);
            library.add(Frame(7), &page);
            prop_assert!(library.similar(&page).is_none_or(|frame| frame == Frame(7)));
        }
    }
}
