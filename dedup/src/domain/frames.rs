//! The frame table: what each place of the store is used for, how many VMMs hold it, and where new content
//! goes.
//!
//! ```text
//!            place()               publish()                  retire()
//!   Free ──────────────► Awaited ─────────────► Published ──────────────► Retiring
//!    ▲ ▲     release()      │                       ▲         publish()       │ │
//!    │ └────────────────────┘                       └─────────────────────────┘ │
//!    └──────────────────────────────── release() ──────────────────────────────┘
//! ```
//!
//! Ten bytes a frame, in tables of zeros: a part that no frame was ever used of costs nothing.

use wire::{Frame, Gfn};

use crate::ProtocolError;
use crate::domain::vmm_id::VMMS_MAX;

/// How far the overflow area is searched for one new frame. A full turn over it takes several requests, then.
const OVERFLOW_PROBES_MAX: u32 = 1024;

/// What a frame is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FrameState {
    /// Nothing.
    #[default]
    Free = 0,
    /// Its content was asked for.
    Awaited = 1,
    /// Its bytes are in place and its bit is set.
    Published = 2,
    /// Its bit is clear, the VMMs are being asked.
    Retiring = 3,
}

/// What is known of a frame besides its hash. In one word:
///
/// ```text
///   15   14   13 12          0
///   +-------+---+-------------+
///   | state | q |   holders   |       zeros: free
///   +-------+---+-------------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    state: FrameState,
    /// Waits in the queue of frames without holders.
    queued: bool,
    /// VMMs that hold it, at most [`VMMS_MAX`].
    holders: u16,
}

const STATE_SHIFT: u32 = 14;
const QUEUED_SHIFT: u32 = 13;
const _: () = assert!(VMMS_MAX < 1 << QUEUED_SHIFT, "as many can hold a frame as there can be");

impl From<u16> for Record {
    fn from(word: u16) -> Self {
        let state = match word >> STATE_SHIFT {
            0 => FrameState::Free,
            1 => FrameState::Awaited,
            2 => FrameState::Published,
            _ => FrameState::Retiring,
        };
        Self { state, queued: word >> QUEUED_SHIFT & 1 == 1, holders: word & ((1 << QUEUED_SHIFT) - 1) }
    }
}

impl From<Record> for u16 {
    fn from(record: Record) -> Self {
        (record.state as u16) << STATE_SHIFT | u16::from(record.queued) << QUEUED_SHIFT | record.holders
    }
}

/// All frames of a store.
#[derive(Debug)]
pub(crate) struct FrameTable {
    records: Vec<u16>,
    /// Of the frames' contents, expected or real.
    hashes: Vec<u64>,
    home_frames: u32,
    /// Where the search in the overflow area goes on.
    overflow_next: u32,
    in_use: u32,
    /// Frames that some VMM holds.
    held: u64,
    /// The sum of all holders.
    holds: u64,
}

impl FrameTable {
    /// A table of `2 × home_frames` free frames.
    pub(crate) fn new(home_frames: u32) -> Self {
        let count = home_frames as usize * 2;
        let (records, hashes) = (vec![0; count], vec![0; count]);
        Self { records, hashes, home_frames, overflow_next: home_frames, in_use: 0, held: 0, holds: 0 }
    }

    pub(crate) fn count(&self) -> u32 {
        self.home_frames * 2
    }

    /// Frames that are not free.
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Frames that some VMM holds, and the sum of all holders.
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.held, self.holds)
    }

    /// What a frame is used for; nothing, if its number is beyond the store.
    pub(crate) fn state(&self, frame: Frame) -> FrameState {
        self.record(frame).state
    }

    /// Of its content. Of a frame of the store that is not free.
    pub(crate) fn hash(&self, frame: Frame) -> u64 {
        self.hashes[frame.index()]
    }

    /// Whether a number is that of a frame.
    pub(crate) fn check(&self, frame: Frame) -> Result<(), ProtocolError> {
        if frame.0 < self.count() { Ok(()) } else { Err(ProtocolError::Frame(frame)) }
    }

    /// Reserves a frame for content: where it was first seen, else where it is seen now, else behind the
    /// frame of the page before, else anywhere in the overflow area. The first two spare an alias, the third
    /// lengthens one.
    pub(crate) fn place(&mut self, first: Gfn, now: Gfn, behind: Option<Frame>, hash: u64) -> Option<Frame> {
        let behind = behind.and_then(|frame| frame.0.checked_add(1)).map(Frame);
        let wishes = [Some(first.home()), Some(now.home()), behind];
        let wish = wishes.into_iter().flatten().find(|&frame| self.is_free(frame));
        let frame = wish.or_else(|| self.overflow())?;
        self.change(frame, |record| record.state = FrameState::Awaited);
        self.hashes[frame.index()] = hash;
        self.in_use += 1;
        Some(frame)
    }

    /// The frame's bit is set, for the first time or again.
    pub(crate) fn publish(&mut self, frame: Frame) {
        self.change(frame, |record| record.state = FrameState::Published);
    }

    /// The VMMs are going to be asked, if nobody is known to hold the frame: whether that is so. It waits no
    /// more.
    pub(crate) fn retire(&mut self, frame: Frame) -> bool {
        let unused = self.is_unused(frame);
        self.change(frame, |record| {
            record.queued = false;
            if unused {
                record.state = FrameState::Retiring;
            }
        });
        unused
    }

    /// Makes a frame free.
    pub(crate) fn release(&mut self, frame: Frame) {
        debug_assert!(matches!(self.state(frame), FrameState::Awaited | FrameState::Retiring) && !self.is_held(frame));
        // It stays queued if it is: the queue drops frames that are not published when their turn comes.
        self.change(frame, |record| record.state = FrameState::Free);
        self.in_use -= 1;
    }

    /// One more VMM holds the frame.
    pub(crate) fn hold(&mut self, frame: Frame) {
        self.change(frame, |record| record.holders += 1);
        self.holds += 1;
        self.held += u64::from(self.record(frame).holders == 1);
    }

    /// One VMM less holds it.
    pub(crate) fn lose(&mut self, frame: Frame) {
        self.change(frame, |record| record.holders -= 1);
        self.holds -= 1;
        self.held -= u64::from(!self.is_held(frame));
    }

    /// Whether some VMM holds the frame.
    pub(crate) fn is_held(&self, frame: Frame) -> bool {
        self.record(frame).holders > 0
    }

    /// Whether the frame is to wait in the queue of those without holders, and does not yet; it does from
    /// here on.
    pub(crate) fn queue(&mut self, frame: Frame) -> bool {
        let is_new = self.is_unused(frame) && !self.record(frame).queued;
        if is_new {
            self.change(frame, |record| record.queued = true);
        }
        is_new
    }

    fn is_unused(&self, frame: Frame) -> bool {
        self.state(frame) == FrameState::Published && !self.is_held(frame)
    }

    fn record(&self, frame: Frame) -> Record {
        self.records.get(frame.index()).copied().unwrap_or_default().into()
    }

    fn change(&mut self, frame: Frame, change: impl FnOnce(&mut Record)) {
        let mut record = self.record(frame);
        change(&mut record);
        self.records[frame.index()] = record.into();
    }

    fn is_free(&self, frame: Frame) -> bool {
        frame.0 < self.count() && self.state(frame) == FrameState::Free
    }

    /// The next free frame of the overflow area, in ascending order so that runs come out contiguous.
    fn overflow(&mut self) -> Option<Frame> {
        for _ in 0..OVERFLOW_PROBES_MAX.min(self.home_frames) {
            let frame = self.overflow_next;
            self.overflow_next = if frame + 1 < self.count() { frame + 1 } else { self.home_frames };
            if self.is_free(Frame(frame)) {
                return Some(Frame(frame));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(table: &mut FrameTable, first: u32, now: u32, behind: Option<u32>) -> Option<u32> {
        table.place(Gfn(first), Gfn(now), behind.map(Frame), 0).map(|frame| frame.0)
    }

    #[test]
    fn a_record_comes_out_of_its_word_as_it_went_in() {
        for state in [FrameState::Free, FrameState::Awaited, FrameState::Published, FrameState::Retiring] {
            for record in
                [Record { state, queued: true, holders: 0 }, Record { state, queued: false, holders: VMMS_MAX }]
            {
                assert_eq!(Record::from(u16::from(record)), record);
            }
        }
        assert_eq!(u16::from(Record::default()), 0);
    }

    #[test]
    fn content_goes_home_if_it_can() {
        let mut table = FrameTable::new(100);
        assert_eq!(place(&mut table, 10, 20, Some(30)), Some(10), "where it was first seen");
        assert_eq!(place(&mut table, 10, 20, Some(30)), Some(20), "where it is seen now");
        assert_eq!(place(&mut table, 10, 20, Some(30)), Some(31), "behind the page before");
        assert_eq!(place(&mut table, 10, 20, Some(30)), Some(100), "in the overflow area");
        assert_eq!(place(&mut table, 10, 20, None), Some(101), "behind that");
        assert_eq!(table.in_use(), 5);
    }

    #[test]
    fn a_full_store_places_nothing_until_a_frame_is_released() {
        let mut table = FrameTable::new(4);
        let placed: Vec<_> = (0..6).map(|_| place(&mut table, 0, 0, None)).collect();
        assert_eq!(placed, [Some(0), Some(4), Some(5), Some(6), Some(7), None]);
        assert!((1..4).all(|gfn| place(&mut table, gfn, 0, None) == Some(gfn)));
        assert_eq!(place(&mut table, 0, 1, Some(u32::MAX)), None);
        table.release(Frame(6));
        assert_eq!(place(&mut table, 0, 1, None), Some(6));
    }

    #[test]
    fn a_frame_waits_once_and_retires_only_while_nobody_holds_it() {
        let mut table = FrameTable::new(4);
        place(&mut table, 1, 1, None);
        assert!(!table.queue(Frame(1)), "it has no content yet");
        table.publish(Frame(1));
        assert!(table.queue(Frame(1)) && !table.queue(Frame(1)));
        table.hold(Frame(1));
        assert!(!table.retire(Frame(1)));
        table.lose(Frame(1));
        assert!(table.queue(Frame(1)) && table.retire(Frame(1)));
        assert_eq!((table.state(Frame(1)), table.held()), (FrameState::Retiring, (0, 0)));
    }
}
