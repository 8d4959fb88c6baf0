//! The index: from the hash of a page's content to where that content is.
//!
//! ```text
//!   (nothing) ── hash told once ──► candidate ── told of another page ──► frame (awaited, then published)
//!       ▲                              │ too old, or its VMM is gone        │ declined, or retired
//!       └──────────────────────────────┴────────────────────────────────────┘
//! ```
//!
//! Most contents are told once and never again, so what a candidate costs is what the index costs: at most
//! eight bytes, seven of them the [`Entry`]. Of its hash it has a *tag*; other bits say in which bucket it
//! is.
//!
//! ```text
//!   hash ── keyed mix ──►  +--------------+---------+----------+
//!                          |  (not kept)  |   tag   |  bucket  |
//!                          +--------------+---------+----------+
//! ```
//!
//! There are as many buckets as the largest guest has pages, by 64: with N such guests, one content of
//! 260 000/N is taken for another's. For a frame the frame table has the hash, and that is compared. For a
//! candidate a page is sent that has no equal, and its frame retires soon; whatever is shared is compared
//! first.
//!
//! Buckets lie in [`Segment`]s, one at first. One that becomes too large becomes two, so that nothing waits
//! for the whole table to be copied.
//!
//! Candidates, the only entries that cost the store no frame, are bounded: when young ones reach half the
//! limit, those that were not told again since the last time go.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::quality::RandomState;
use wire::Frame;

use crate::domain::entry::{Entry, Kind, TAG_BITS};
use crate::domain::segment::Segment;

/// Pages of the largest guest for each bucket.
const PAGES_PER_BUCKET: u32 = 64;
/// Entries of a segment before it becomes two: laying it out anew takes about a millisecond.
const SEGMENT_MAX: usize = 1 << 18;

/// A page of some VMM of the domain, by a number that no other page of the domain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageNumber(pub(crate) u32);

/// Where content with some hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Told once, of this page.
    Candidate(PageNumber),
    /// In this frame, or on its way there.
    Frame(Frame),
}

/// Hash to [`Found`].
#[derive(Debug)]
pub(crate) struct Index {
    /// Keys the mix: VMMs name hashes as they like, and are not to fill one bucket with them.
    mix: RandomState,
    bucket_bits: u32,
    /// In the order of their buckets, with the number of the first.
    segments: Vec<(usize, Segment)>,
    /// Candidates in all.
    candidates: usize,
    /// Candidates told since they were last thinned out.
    young: usize,
    /// Most candidates.
    limit: usize,
}

impl Index {
    /// An empty index, for guests of at most so many pages.
    pub(crate) fn new(guest_pages: u32) -> Self {
        let bucket_bits = (guest_pages / PAGES_PER_BUCKET).max(1).ilog2();
        let segments = vec![(0, Segment::new(1 << bucket_bits))];
        Self { mix: RandomState::default(), bucket_bits, segments, candidates: 0, young: 0, limit: 0 }
    }

    /// Keeps at most so many candidates.
    pub(crate) fn set_limit(&mut self, candidates: usize) {
        self.limit = candidates;
    }

    /// Candidates in all.
    pub(crate) fn candidates(&self) -> usize {
        self.candidates
    }

    /// Where content with this hash is. `is_hash_of` says whether it is that of a frame.
    pub(crate) fn find(&mut self, hash: u64, is_hash_of: impl Fn(Frame) -> bool) -> Option<Found> {
        let (bucket, tag) = self.locate(hash);
        let (segment, bucket) = self.segment(bucket);
        let mut found = None;
        for entry in self.segments[segment].1.alike(bucket, tag) {
            match Frame(entry.number()) {
                _ if entry.is_candidate() => found = Some(Found::Candidate(PageNumber(entry.number()))),
                frame if is_hash_of(frame) => return Some(Found::Frame(frame)),
                _ => {}
            }
        }
        found
    }

    /// Content with this hash was told of a page: the candidate is this one now.
    pub(crate) fn note(&mut self, hash: u64, page: PageNumber) {
        if self.young >= (self.limit / 2).max(1) {
            self.thin_out();
        }
        self.put(hash, Kind::Young, page.0);
    }

    /// Content with this hash is on its way to a frame: it is no candidate any more.
    pub(crate) fn put_frame(&mut self, hash: u64, frame: Frame) {
        self.put(hash, Kind::Frame, frame.0);
    }

    /// The frame with this hash is free.
    pub(crate) fn remove_frame(&mut self, hash: u64, frame: Frame) {
        let (bucket, tag) = self.locate(hash);
        let (segment, bucket) = self.segment(bucket);
        let was_there = self.segments[segment].1.remove(bucket, Entry::new(tag, Kind::Frame, frame.0));
        debug_assert!(was_there, "{frame:?} is in the index as long as it is in use");
    }

    /// Forgets the candidates with these numbers.
    pub(crate) fn forget(&mut self, numbers: Range<u32>) {
        self.change_all(|entry| {
            let is_gone = entry.is_candidate() && numbers.contains(&entry.number());
            if is_gone { Entry::NONE } else { entry }
        });
    }

    /// Candidates that were not told since the last time go.
    fn thin_out(&mut self) {
        self.change_all(|entry| match entry.kind() {
            Kind::Young => Entry::new(entry.tag(), Kind::Old, entry.number()),
            Kind::Frame => entry,
            Kind::Old | Kind::None => Entry::NONE,
        });
    }

    fn change_all(&mut self, mut change: impl FnMut(Entry) -> Entry) {
        (self.candidates, self.young) = (0, 0);
        for (_, segment) in &mut self.segments {
            segment.change_all(|entry| {
                let changed = change(entry);
                self.candidates += usize::from(changed.is_candidate());
                self.young += usize::from(changed.kind() == Kind::Young);
                changed
            });
        }
    }

    /// An entry, in the place of the candidate with its tag if there is one.
    fn put(&mut self, hash: u64, kind: Kind, number: u32) {
        let (bucket, tag) = self.locate(hash);
        let (at, bucket) = self.segment(bucket);
        let segment = &mut self.segments[at].1;
        let entry = Entry::new(tag, kind, number);
        if let Some(candidate) = segment.alike(bucket, tag).iter_mut().find(|entry| entry.is_candidate()) {
            self.candidates -= 1;
            self.young -= usize::from(candidate.kind() == Kind::Young);
            *candidate = entry;
        } else {
            segment.insert(bucket, entry);
            if segment.used() > SEGMENT_MAX {
                self.divide(at);
            }
        }
        self.candidates += usize::from(entry.is_candidate());
        self.young += usize::from(kind == Kind::Young);
    }

    /// Makes two segments of one, if it has more than one bucket.
    fn divide(&mut self, at: usize) {
        let (first, segment) = &mut self.segments[at];
        let (first, half) = (*first, segment.buckets() / 2);
        if half > 0 {
            let high = segment.split_off(half);
            self.segments.insert(at + 1, (first + half, high));
        }
    }

    /// The bucket of a hash, and its tag there.
    fn locate(&self, hash: u64) -> (usize, u32) {
        let key = self.mix.hash_one(hash);
        let low = |key: u64, bits: u32| key & ((1 << bits) - 1);
        (low(key, self.bucket_bits) as usize, low(key >> self.bucket_bits, TAG_BITS) as u32)
    }

    /// The segment that a bucket is in, and its number there.
    fn segment(&self, bucket: usize) -> (usize, usize) {
        let at = self.segments.partition_point(|&(first, _)| first <= bucket) - 1;
        (at, bucket - self.segments[at].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(limit: usize) -> Index {
        let mut index = Index::new(1);
        index.set_limit(limit);
        index
    }

    fn entries(index: &Index) -> usize {
        index.segments.iter().map(|(_, segment)| segment.used()).sum()
    }

    fn candidate(number: u32) -> Option<Found> {
        Some(Found::Candidate(PageNumber(number)))
    }

    #[test]
    fn everything_is_found_again_while_the_table_grows() {
        const COUNT: u32 = 4 * SEGMENT_MAX as u32;
        let mut index = Index::new(COUNT / 8);
        index.set_limit(usize::MAX);
        for number in 0..COUNT {
            let hash = u64::from(number) << 40;
            if number % 3 == 0 { index.put_frame(hash, Frame(number)) } else { index.note(hash, PageNumber(number)) }
        }
        let mut wrong = 0;
        for number in 0..COUNT {
            let found = index.find(u64::from(number) << 40, |frame| frame == Frame(number));
            let expected = if number % 3 == 0 { Some(Found::Frame(Frame(number))) } else { candidate(number) };
            wrong += usize::from(found != expected);
        }
        // Candidates of one tag replace each other: one in some ten thousand.
        let missing = COUNT as usize * 2 / 3 - index.candidates();
        assert!(wrong < 200 && missing < 200, "{wrong} wrong, {missing} missing");
        assert!(index.segments.len() >= 4 && index.segments.iter().all(|(_, segment)| segment.used() <= SEGMENT_MAX));
        for number in (0..COUNT).step_by(3) {
            index.remove_frame(u64::from(number) << 40, Frame(number));
        }
        assert_eq!(entries(&index), index.candidates());
    }

    #[test]
    fn candidates_stay_within_their_limit_and_the_oldest_go_first() {
        let mut index = index(100);
        index.put_frame(1 << 32, Frame(9));
        for hash in 0..1000 {
            index.note(hash, PageNumber(hash as u32));
            assert!(index.candidates() <= 100);
            assert_eq!(index.candidates(), entries(&index) - 1);
        }
        assert_eq!(index.find(0, |_| true), None);
        assert_eq!(index.find(999, |_| true), candidate(999));
        assert_eq!(index.find(1 << 32, |_| true), Some(Found::Frame(Frame(9))), "frames do not age");
    }

    #[test]
    fn a_candidate_told_again_is_young_again() {
        let mut index = index(20);
        for hash in 1..1000 {
            index.note(0, PageNumber(0));
            index.note(hash, PageNumber(1));
        }
        assert_eq!(index.find(0, |_| true), candidate(0));
    }

    #[test]
    fn a_frame_takes_the_place_of_its_candidate() {
        let mut index = index(20);
        index.note(7, PageNumber(3));
        index.put_frame(7, Frame(1));
        assert_eq!((index.candidates(), entries(&index)), (0, 1));
        assert_eq!(index.find(7, |_| false), None, "a frame with another hash");
        assert_eq!(index.find(7, |frame| frame == Frame(1)), Some(Found::Frame(Frame(1))));
        index.remove_frame(7, Frame(1));
        assert_eq!((index.find(7, |_| true), entries(&index)), (None, 0));
    }

    #[test]
    fn a_guest_that_is_gone_leaves_no_candidate() {
        let mut index = index(1000);
        (0..100).for_each(|hash| index.note(hash, PageNumber(hash as u32)));
        index.put_frame(1 << 32, Frame(15));
        index.forget(10..20);
        let left: Vec<u64> = (0..100).filter(|&hash| index.find(hash, |_| true).is_some()).collect();
        assert!(left.len() == 90 && !left.iter().any(|hash| (10..20).contains(hash)));
        assert_eq!((index.candidates(), entries(&index)), (90, 91));
    }
}
