//! Pages that have the content of an awaited frame, and are told once it is published.

use std::collections::HashMap;

use wire::{Frame, Gfn};

use crate::VmmId;

/// Most pages that wait for one frame; the others are told to ask again.
const WAITERS_MAX: usize = 64;

/// Who waits for which frame. As many frames as VMMs are asked for at a time, at most.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_frame: HashMap<Frame, Vec<(VmmId, Gfn)>>,
}

impl Waiters {
    /// One page more waits for a frame, unless too many do: whether it does.
    pub(crate) fn add(&mut self, frame: Frame, page: (VmmId, Gfn)) -> bool {
        let waiters = self.by_frame.entry(frame).or_default();
        let waits = waiters.contains(&page);
        let has_room = waiters.len() < WAITERS_MAX;
        if has_room && !waits {
            waiters.push(page);
        }
        has_room
    }

    /// Who waits for a frame, from here on for nothing.
    pub(crate) fn take(&mut self, frame: Frame) -> Vec<(VmmId, Gfn)> {
        let waiters = self.by_frame.remove(&frame).unwrap_or_default();
        if self.by_frame.is_empty() {
            // Between two bursts of publishing nothing is kept for the next.
            self.by_frame = HashMap::new();
        }
        waiters
    }
}
