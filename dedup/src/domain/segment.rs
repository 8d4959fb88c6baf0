//! A part of the index: buckets of entries, packed one behind the other with a little room in between.
//!
//! ```text
//!   starts    0           5         9            14
//!             |           |         |             |
//!   entries   a b c d .   e f . .   g h i j k     l m . ...      sorted by tag, room behind them
//! ```
//!
//! An entry that its bucket has no room for takes that of the next bucket that has some, and all in between
//! move up by one. When there is none, everything is laid out anew with a twelfth of room: whole buckets are
//! moved, twice.
//!
//! A hash table keeps a quarter of its places free, or half of them just after it grew; this one eight of a
//! hundred at most.

use std::ops::Range;

use crate::domain::entry::{Entry, TAG_BITS};

/// Room for one entry in so many, when a segment is laid out.
const ROOM_ONE_IN: usize = 12;
/// Room for so many entries more.
const ROOM_MIN: usize = 64;

#[derive(Debug)]
pub(crate) struct Segment {
    /// Where each bucket begins, and where the last one ends.
    starts: Vec<u32>,
    entries: Vec<Entry>,
    used: usize,
}

impl Segment {
    /// Empty buckets.
    pub(crate) fn new(buckets: usize) -> Self {
        Self { starts: vec![0; buckets + 1], entries: Vec::new(), used: 0 }
    }

    pub(crate) fn buckets(&self) -> usize {
        self.starts.len() - 1
    }

    /// Entries in it.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// A bucket's entries with this tag.
    pub(crate) fn alike(&mut self, bucket: usize, tag: u32) -> &mut [Entry] {
        let of_tag = self.of_tag(bucket, tag);
        &mut self.entries[of_tag]
    }

    /// Adds an entry.
    pub(crate) fn insert(&mut self, bucket: usize, entry: Entry) {
        let has_room = |at: &usize| self.has_room(*at);
        let Some(giver) = (bucket..self.buckets()).find(has_room) else {
            self.lay_out();
            return self.insert(bucket, entry);
        };
        let (at, free) = (self.of_tag(bucket, entry.tag()).start, self.filled(giver).end);
        self.entries.copy_within(at..free, at + 1);
        self.entries[at] = entry;
        self.starts[bucket + 1..=giver].iter_mut().for_each(|start| *start += 1);
        self.used += 1;
    }

    /// Takes out the entry that is equal to this one, if there is one.
    pub(crate) fn remove(&mut self, bucket: usize, entry: Entry) -> bool {
        let Some(at) = self.of_tag(bucket, entry.tag()).find(|&at| self.entries[at] == entry) else { return false };
        let end = self.filled(bucket).end;
        self.entries.copy_within(at + 1..end, at);
        self.entries[end - 1] = Entry::NONE;
        self.used -= 1;
        self.give_back();
        true
    }

    /// Changes entries as `change` does, but for their tags, and takes out those it makes none of.
    pub(crate) fn change_all(&mut self, mut change: impl FnMut(Entry) -> Entry) {
        self.used = 0;
        for bucket in 0..self.buckets() {
            let filled = self.filled(bucket);
            let mut end = filled.start;
            for at in filled.clone() {
                let changed = change(self.entries[at]);
                if !changed.is_none() {
                    self.entries[end] = changed;
                    end += 1;
                }
            }
            self.entries[end..filled.end].fill(Entry::NONE);
            self.used += end - filled.start;
        }
        self.give_back();
    }

    /// Takes the buckets from `first` on out of it.
    pub(crate) fn split_off(&mut self, first: usize) -> Segment {
        self.compact();
        let middle = self.starts[first];
        let starts = self.starts[first..].iter().map(|start| start - middle).collect();
        let entries = self.entries.split_off(middle as usize);
        self.starts.truncate(first + 1);
        self.used = middle as usize;
        let mut rest = Segment { starts, used: entries.len(), entries };
        self.spread();
        rest.spread();
        rest
    }

    /// Divides new room among the buckets. In place: what is copied elsewhere leaves a hole in the heap.
    fn lay_out(&mut self) {
        self.compact();
        self.spread();
    }

    /// Takes all room away.
    fn compact(&mut self) {
        let (mut end, buckets) = (0, self.buckets());
        for bucket in 0..buckets {
            let filled = self.filled(bucket);
            self.starts[bucket] = end as u32;
            self.entries.copy_within(filled.clone(), end);
            end += filled.len();
        }
        self.starts[buckets] = end as u32;
        self.entries.truncate(end);
    }

    /// Gives room to buckets that have none.
    fn spread(&mut self) {
        let (buckets, room) = (self.buckets(), self.used / ROOM_ONE_IN + ROOM_MIN);
        self.entries.reserve_exact(room);
        self.entries.resize(self.used + room, Entry::NONE);
        self.entries.shrink_to_fit();
        let (mut end, mut next) = (self.used, self.used + room);
        self.starts[buckets] = next as u32;
        for bucket in (0..buckets).rev() {
            let start = self.starts[bucket] as usize;
            let moved = start + room * bucket / buckets;
            self.entries.copy_within(start..end, moved);
            self.entries[moved + (end - start)..next].fill(Entry::NONE);
            self.starts[bucket] = moved as u32;
            (end, next) = (start, moved);
        }
    }

    /// Where a bucket's entries with this tag are, or would be.
    fn of_tag(&self, bucket: usize, tag: u32) -> Range<usize> {
        let filled = self.filled(bucket);
        let entries = &self.entries[filled.clone()];
        // Tags are as good as random numbers: a few steps from where this one would be if they lay at equal
        // distances.
        let mut start = (tag as usize * entries.len()) >> TAG_BITS;
        start -= entries[..start].iter().rev().take_while(|entry| entry.tag() >= tag).count();
        start += entries[start..].iter().take_while(|entry| entry.tag() < tag).count();
        let count = entries[start..].iter().take_while(|entry| entry.tag() == tag).count();
        filled.start + start..filled.start + start + count
    }

    /// Where a bucket's entries are.
    fn filled(&self, bucket: usize) -> Range<usize> {
        let (start, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let room = self.entries[start..end].iter().rev().take_while(|entry| entry.is_none()).count();
        start..end - room
    }

    fn has_room(&self, bucket: usize) -> bool {
        let (start, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        start < end && self.entries[end - 1].is_none()
    }

    /// Lays itself out anew when a quarter is room.
    fn give_back(&mut self) {
        if self.entries.len() > self.used + self.used / 3 + 2 * ROOM_MIN {
            self.lay_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::entry::Kind;

    fn entry(tag: u32, number: u32) -> Entry {
        Entry::new(tag, Kind::Young, number)
    }

    fn all(segment: &Segment) -> Vec<(usize, u32, u32)> {
        let bucket = |bucket| {
            let entries = segment.entries[segment.filled(bucket)].iter();
            entries.map(move |entry| (bucket, entry.tag(), entry.number())).collect::<Vec<_>>()
        };
        (0..segment.buckets()).flat_map(bucket).collect()
    }

    #[test]
    fn entries_are_where_they_belong_whatever_comes_and_goes() {
        const BUCKETS: usize = 32;
        let (mut segment, mut model) = (Segment::new(BUCKETS), BTreeSet::new());
        let mut random = 1u64;
        for step in 0..20_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Some buckets get more than others.
            let bucket = (random >> 33) as usize % BUCKETS * ((random >> 40) as usize % 2);
            let (tag, number) = ((random >> 44) as u32 % 64, step % 16);
            let is_in = model.contains(&(bucket, tag, number));
            if !is_in && step < 15_000 {
                segment.insert(bucket, entry(tag, number));
                model.insert((bucket, tag, number));
            } else {
                assert_eq!(segment.remove(bucket, entry(tag, number)), is_in);
                model.remove(&(bucket, tag, number));
            }
            assert_eq!(segment.used(), model.len());
        }
        let found: BTreeSet<_> = all(&segment).into_iter().collect();
        assert!(found == model && model.len() > 1000, "{}", model.len());
        for bucket in 0..BUCKETS {
            assert!(segment.entries[segment.filled(bucket)].is_sorted_by_key(|entry| entry.tag()));
            assert!((0..64).all(|tag| segment.alike(bucket, tag).iter().all(|entry| entry.tag() == tag)));
        }
        let high = segment.split_off(10);
        let high = all(&high).into_iter().map(|(bucket, tag, number)| (bucket + 10, tag, number));
        let again: BTreeSet<_> = all(&segment).into_iter().chain(high).collect();
        assert!(again == model && segment.buckets() == 10);
    }

    #[test]
    fn room_is_given_back_when_entries_go() {
        let mut segment = Segment::new(4);
        (0..10_000).for_each(|number| segment.insert(number as usize % 4, entry(number, number)));
        assert!(segment.entries.len() < 11_000);
        segment.change_all(|entry| if entry.number() < 100 { entry } else { Entry::NONE });
        assert_eq!((segment.used(), all(&segment).len()), (100, 100));
        assert!(segment.entries.len() < 300 && segment.entries.capacity() < 300);
    }
}
