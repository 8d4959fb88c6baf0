//! How frames are retired: they wait a while without a holder, then all VMMs are asked, one batch in a
//! *round*.
//!
//! ```text
//!   last holder gone ──► idle ── RETIRE_GRACE ──► due ──► round: bits cleared, all VMMs asked
//!                                                             └──► free, or published again
//! ```
//!
//! A round ends when every VMM that was asked has answered for every frame, or is gone; not earlier, even if
//! a frame is known to be held: an answer that came after its frame was published again would be taken for
//! the answer to a later question.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use control::merge::BATCH_MAX;
use wire::Frame;

use crate::VmmId;

/// How long a frame without holders is kept: several passes of a busy scanner, so that content that is only
/// on its way from one page to another is not published again each time.
const RETIRE_GRACE: Duration = Duration::from_secs(2);

/// Frames that wait to be retired.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Frames that lost their last holder, since when, in order; at most once each.
    idle: VecDeque<(Frame, Option<Instant>)>,
    /// Frames to retire in the rounds to come.
    due: VecDeque<Frame>,
    /// VMMs that may be about to adopt what was published for them: while there are any, no frame ages.
    pub(crate) loading: BTreeSet<VmmId>,
}

impl Waiting {
    /// The frame has no holder from here on.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.idle.push_back((frame, None));
    }

    /// Time goes by.
    pub(crate) fn age(&mut self, now: Instant) {
        if !self.loading.is_empty() {
            return;
        }
        for (_, since) in self.idle.iter_mut().rev().take_while(|(_, since)| since.is_none()) {
            *since = Some(now);
        }
        while let Some(&(frame, Some(since))) = self.idle.front()
            && since + RETIRE_GRACE <= now
        {
            self.idle.pop_front();
            self.due.push_back(frame);
        }
    }

    /// What the next round is to ask about: due frames that are to be retired still, ascending.
    pub(crate) fn next_batch(&mut self, mut is_to_retire: impl FnMut(Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < BATCH_MAX
            && let Some(frame) = self.due.pop_front()
        {
            if is_to_retire(frame) {
                frames.push(frame);
            }
        }
        frames.sort_unstable();
        frames
    }
}

/// Frames whose bits were cleared, and the VMMs that have yet to say whether they hold them.
#[derive(Debug)]
pub(crate) struct Round {
    frames: Vec<Frame>,
    unanswered: BTreeMap<VmmId, BTreeSet<Frame>>,
    held: BTreeSet<Frame>,
    since: Option<Instant>,
}

impl Round {
    /// Asks `vmms` about `frames`.
    pub(crate) fn new(frames: Vec<Frame>, vmms: impl Iterator<Item = VmmId>) -> Self {
        let all: BTreeSet<Frame> = frames.iter().copied().collect();
        Self { frames, unanswered: vmms.map(|vmm| (vmm, all.clone())).collect(), held: BTreeSet::new(), since: None }
    }

    /// What it asks about.
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Takes an answer; false if this VMM had none to give.
    pub(crate) fn answer(&mut self, vmm: VmmId, frame: Frame, held: bool) -> bool {
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

    /// Each frame, and whether somebody said to hold it. A holder that died since is found out in a later
    /// round.
    pub(crate) fn outcome(&self) -> impl Iterator<Item = (Frame, bool)> {
        self.frames.iter().map(|&frame| (frame, self.held.contains(&frame)))
    }
}
