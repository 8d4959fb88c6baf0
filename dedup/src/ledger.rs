//! What the host knows of its VMMs and frames: the part of a domain that changes, under the domain's lock. The verbs here keep the
//! books and send nothing but messages to the outbox; the protocol itself is in `domain`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use control::merge::{Answer, BATCH_MAX, MergeAnswer};
use wire::{Frame, Gfn};

use crate::domain::Figures;
use crate::frames::{FrameTable, State};
use crate::retire::Round;
use crate::session::{ASKED_MAX, Asked, Session};
use crate::{ProtocolError, VmmId};

/// Candidates kept per guest page of the domain: a page changes its hash while the old one has not aged yet.
const CANDIDATES_PER_PAGE: usize = 2;

/// Messages to send, and to whom.
pub(crate) type Outbox = Vec<(VmmId, MergeAnswer)>;

/// What changes, under the lock.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) frames: FrameTable,
    pub(crate) sessions: BTreeMap<VmmId, Session>,
    /// Pages to tell when an awaited frame is published.
    pub(crate) waiters: HashMap<u32, Vec<(VmmId, u32)>>,
    /// Frames that lost their last holder, since when, in order; at most once each.
    pub(crate) idle: VecDeque<(u32, Option<Instant>)>,
    /// Frames to retire in the rounds to come.
    pub(crate) due: VecDeque<u32>,
    pub(crate) round: Option<Round>,
    pub(crate) budget_frames: u64,
    pub(crate) candidates_max: usize,
    /// Survives an error: what was done before it is told with the next messages.
    pub(crate) outbox: Outbox,
    pub(crate) totals: Figures,
}

impl Ledger {
    /// Books of a store with these frames: no VMM, no bounds but the store's.
    pub(crate) fn new(frames: FrameTable) -> Self {
        Self {
            frames,
            sessions: BTreeMap::new(),
            waiters: HashMap::new(),
            idle: VecDeque::new(),
            due: VecDeque::new(),
            round: None,
            budget_frames: u64::MAX,
            candidates_max: 0,
            outbox: Outbox::new(),
            totals: Figures::default(),
        }
    }

    /// The figures that the books give.
    pub(crate) fn figures(&self) -> Figures {
        let in_use = u64::from(self.frames.in_use());
        let awaited: u64 = self.sessions.values().map(|session| session.asked.len() as u64).sum();
        let retiring = self.round.as_ref().map_or(0, |round| round.frames().len() as u64);
        Figures {
            frames: u64::from(self.frames.count()),
            frames_in_use: in_use,
            frames_published: in_use - awaited - retiring,
            frames_retiring: retiring,
            ..self.totals
        }
    }

    pub(crate) fn session(&mut self, vmm: VmmId) -> Result<&mut Session, ProtocolError> {
        self.sessions.get_mut(&vmm).ok_or(ProtocolError::Unknown(vmm))
    }

    /// Reserves a frame that `vmm` is to send.
    pub(crate) fn reserve(
        &mut self,
        vmm: VmmId,
        gfn: u32,
        first_gfn: u32,
        behind: Option<u32>,
        hash: u64,
    ) -> Option<u32> {
        let session = self.sessions.get_mut(&vmm)?;
        if session.asked.len() >= ASKED_MAX {
            return None;
        }
        let within = u64::from(self.frames.in_use()) < self.budget_frames;
        let Some(frame) = within.then(|| self.frames.place(first_gfn, gfn, behind, hash)).flatten() else {
            self.totals.refused_total += 1;
            return None;
        };
        session.asked.insert(frame, Asked { gfn, since: None });
        Some(frame)
    }

    /// Whether `vmm` was asked for this `(gfn, frame)`; it is not any more.
    pub(crate) fn take_asked(&mut self, vmm: VmmId, (Gfn(gfn), Frame(frame)): (Gfn, Frame)) -> bool {
        let Some(session) = self.sessions.get_mut(&vmm) else { return false };
        if session.asked.get(&frame).is_none_or(|asked| asked.gfn != gfn) {
            return false;
        }
        session.asked.remove(&frame);
        give_back_if_empty(&mut session.asked);
        true
    }

    /// Who waits for a frame, from here on for nothing.
    pub(crate) fn take_waiters(&mut self, frame: u32) -> Vec<(VmmId, u32)> {
        let waiters = self.waiters.remove(&frame).unwrap_or_default();
        give_back_if_empty(&mut self.waiters);
        waiters
    }

    /// The frame is one of the store.
    pub(crate) fn set_held(&mut self, vmm: VmmId, frame: u32, held: bool) -> Result<(), ProtocolError> {
        if !self.session(vmm)?.set_held(frame, held) {
            return Ok(());
        }
        if !held {
            self.lose_holder(frame);
        } else if let Some(record) = self.frames.get(frame) {
            record.holders += 1;
            self.totals.holds += 1;
            self.totals.frames_held += u64::from(record.holders == 1);
        }
        Ok(())
    }

    pub(crate) fn lose_holder(&mut self, frame: u32) {
        if let Some(record) = self.frames.get(frame) {
            record.holders -= 1;
            self.totals.holds -= 1;
            self.totals.frames_held -= u64::from(record.holders == 0);
        }
        self.queue_if_idle(frame);
    }

    pub(crate) fn queue_if_idle(&mut self, frame: u32) {
        if let Some(record) = self.frames.get(frame)
            && record.holders == 0
            && record.state == State::Published
            && !record.queued
        {
            record.queued = true;
            self.idle.push_back((frame, None));
        }
    }

    pub(crate) fn count_candidates_max(&mut self) {
        let pages: usize = self.sessions.values().map(|session| session.pages as usize).sum();
        self.candidates_max = pages * CANDIDATES_PER_PAGE;
    }

    pub(crate) fn post(&mut self, vmm: VmmId, answers: Vec<(Gfn, Answer)>) {
        let batches = answers.chunks(BATCH_MAX).map(|batch| (vmm, MergeAnswer::Answers(batch.to_vec())));
        self.outbox.extend(batches);
    }

    pub(crate) fn post_all(&mut self, answers: BTreeMap<VmmId, Vec<(Gfn, Answer)>>) {
        for (vmm, answers) in answers {
            self.post(vmm, answers);
        }
    }

    /// What is to be sent, less what was meant for VMMs that are gone.
    pub(crate) fn take_outbox(&mut self) -> Outbox {
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.retain(|(vmm, _)| self.sessions.contains_key(vmm));
        outbox
    }
}

/// Between two bursts of publishing nothing is kept for the next.
fn give_back_if_empty<K, V>(map: &mut HashMap<K, V>) {
    if map.is_empty() {
        *map = HashMap::new();
    }
}
