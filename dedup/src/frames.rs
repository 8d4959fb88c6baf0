//! The frame table: what each place of the store is used for, and where new content goes.
//!
//! ```text
//!            place()               publish()                  retire()
//!   Free ──────────────► Awaited ─────────────► Published ──────────────► Retiring
//!    ▲ ▲     release()      │                       ▲         restore()       │ │
//!    │ └────────────────────┘                       └─────────────────────────┘ │
//!    └──────────────────────────────── release() ──────────────────────────────┘
//! ```

use crate::ProtocolError;

/// How far the overflow area is searched for one new frame. A full turn over it takes several requests, then.
const OVERFLOW_PROBES_MAX: u32 = 1024;

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing.
    Free,
    /// Its content was asked for.
    Awaited,
    /// Its bytes are in place and its bit is set.
    Published,
    /// Its bit is clear, the VMMs are being asked.
    Retiring,
}

/// One frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) state: State,
    /// Waits in the queue of frames without holders.
    pub(crate) queued: bool,
    /// VMMs that hold it.
    pub(crate) holders: u32,
    /// Of its content, expected or real.
    pub(crate) hash: u64,
}

impl Frame {
    const FREE: Frame = Frame { state: State::Free, queued: false, holders: 0, hash: 0 };
}

/// All frames of a store.
#[derive(Debug)]
pub(crate) struct FrameTable {
    /// Records; the overflow area's last ones come when they are needed.
    frames: Vec<Frame>,
    home_frames: u32,
    /// Where the search in the overflow area goes on.
    overflow_next: u32,
    in_use: u32,
}

impl FrameTable {
    /// A table of `2 × home_frames` free frames.
    pub(crate) fn new(home_frames: u32) -> Self {
        let frames = vec![Frame::FREE; home_frames as usize];
        Self { frames, home_frames, overflow_next: home_frames, in_use: 0 }
    }

    pub(crate) fn count(&self) -> u32 {
        self.home_frames * 2
    }

    /// Frames that are not free.
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Whether a number is that of a frame.
    pub(crate) fn check(&self, frame: u32) -> Result<(), ProtocolError> {
        if frame < self.count() { Ok(()) } else { Err(ProtocolError::Frame(frame)) }
    }

    /// A frame, unless the number is beyond the store, or of a part of it that was never used.
    pub(crate) fn get(&mut self, frame: u32) -> Option<&mut Frame> {
        self.frames.get_mut(frame as usize)
    }

    /// Reserves a frame for content: where it was first seen, else where it is seen now, else behind the frame of the page
    /// before, else anywhere in the overflow area. The first two spare an alias, the third lengthens one.
    pub(crate) fn place(&mut self, first_gfn: u32, gfn: u32, behind: Option<u32>, hash: u64) -> Option<u32> {
        let wishes = [Some(first_gfn), Some(gfn), behind.and_then(|frame| frame.checked_add(1))];
        let wish = wishes.into_iter().flatten().find(|&frame| self.is_free(frame));
        let frame = wish.or_else(|| self.overflow())?;
        if frame as usize >= self.frames.len() {
            self.frames.resize(frame as usize + 1, Frame::FREE);
        }
        self.frames[frame as usize] = Frame { state: State::Awaited, hash, ..self.frames[frame as usize] };
        self.in_use += 1;
        Some(frame)
    }

    /// Makes a frame free.
    pub(crate) fn release(&mut self, frame: u32) {
        let record = &mut self.frames[frame as usize];
        debug_assert!(matches!(record.state, State::Awaited | State::Retiring) && record.holders == 0);
        // It stays queued if it is: the queue drops frames that are not published when their turn comes.
        *record = Frame { queued: record.queued, ..Frame::FREE };
        self.in_use -= 1;
    }

    fn is_free(&self, frame: u32) -> bool {
        frame < self.count() && self.frames.get(frame as usize).is_none_or(|frame| frame.state == State::Free)
    }

    /// The next free frame of the overflow area, in ascending order so that runs come out contiguous.
    fn overflow(&mut self) -> Option<u32> {
        for _ in 0..OVERFLOW_PROBES_MAX.min(self.home_frames) {
            let frame = self.overflow_next;
            self.overflow_next = if frame + 1 < self.count() { frame + 1 } else { self.home_frames };
            if self.is_free(frame) {
                return Some(frame);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_goes_home_if_it_can() {
        let mut table = FrameTable::new(100);
        assert_eq!(table.place(10, 20, Some(30), 0), Some(10), "where it was first seen");
        assert_eq!(table.place(10, 20, Some(30), 0), Some(20), "where it is seen now");
        assert_eq!(table.place(10, 20, Some(30), 0), Some(31), "behind the page before");
        assert_eq!(table.place(10, 20, Some(30), 0), Some(100), "in the overflow area");
        assert_eq!(table.place(10, 20, None, 0), Some(101), "behind that");
        assert_eq!(table.in_use(), 5);
    }

    #[test]
    fn a_full_store_places_nothing_until_a_frame_is_released() {
        let mut table = FrameTable::new(4);
        let placed: Vec<_> = (0..6).map(|_| table.place(0, 0, None, 0)).collect();
        assert_eq!(placed, [Some(0), Some(4), Some(5), Some(6), Some(7), None]);
        assert!((1..4).all(|gfn| table.place(gfn, 0, None, 0) == Some(gfn)));
        assert_eq!(table.place(0, 1, Some(u32::MAX), 0), None);
        table.release(6);
        assert_eq!(table.place(0, 1, None, 0), Some(6));
    }
}
