//! One round of retirement: frames whose bits were cleared, and the VMMs that have yet to say whether they hold them.
//!
//! The round ends when every VMM that was asked has answered for every frame, or is gone; not earlier, even if a frame is known to
//! be held: an answer that came after its frame was published again would be taken for the answer to a later question.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::VmmId;

#[derive(Debug)]
pub(crate) struct Round {
    frames: Vec<u32>,
    unanswered: BTreeMap<VmmId, BTreeSet<u32>>,
    held: BTreeSet<u32>,
    since: Option<Instant>,
}

impl Round {
    /// Asks `vmms` about `frames`.
    pub(crate) fn new(frames: Vec<u32>, vmms: impl Iterator<Item = VmmId>) -> Self {
        let all: BTreeSet<u32> = frames.iter().copied().collect();
        Self { frames, unanswered: vmms.map(|vmm| (vmm, all.clone())).collect(), held: BTreeSet::new(), since: None }
    }

    /// What it asks about.
    pub(crate) fn frames(&self) -> &[u32] {
        &self.frames
    }

    /// Takes an answer; false if this VMM had none to give.
    pub(crate) fn answer(&mut self, vmm: VmmId, frame: u32, held: bool) -> bool {
        let Some(left) = self.unanswered.get_mut(&vmm) else { return false };
        if !left.remove(&frame) {
            return false;
        }
        if left.is_empty() {
            self.unanswered.remove(&vmm);
        }
        if held {
            self.held.insert(frame);
        }
        true
    }

    /// When the time was first asked for: about when the round began.
    pub(crate) fn since(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now)
    }

    /// VMMs that owe an answer.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = VmmId> {
        self.unanswered.keys().copied()
    }

    /// A VMM that died holds nothing and need not be waited for.
    pub(crate) fn gone(&mut self, vmm: VmmId) {
        self.unanswered.remove(&vmm);
    }

    /// Everybody has answered.
    pub(crate) fn is_over(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Each frame, and whether somebody said to hold it. A holder that died since is found out in a later round.
    pub(crate) fn outcome(&self) -> impl Iterator<Item = (u32, bool)> {
        self.frames.iter().map(|&frame| (frame, self.held.contains(&frame)))
    }
}
