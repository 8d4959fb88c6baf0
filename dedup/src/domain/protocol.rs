//! The host's part of the merge protocol, for one domain: what one message of one VMM changes, and whom it
//! has to be told.
//!
//! ```text
//!   Hashes ──► offer ──► known in a frame ──────────────────────────────────► Share
//!                 ├────► on its way to one ──► waits ───────────────────────► Share, once published
//!                 ├────► told of another page ──► frame reserved ──► Publish    ▲
//!                 └────► unknown ──► noted: a candidate      Pages ──► publish ─┘
//!                                                         Declined ──► decline: who waits starts over
//! ```
//!
//! What VMMs report about holding frames only says *which* frames are worth asking about. That a frame is
//! punched rests on the round of questions alone (see `retire`), so a report that comes late, or never, costs
//! memory and nothing else.

mod preload;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use control::merge::{Answer, BATCH_MAX, MergeAnswer, Pages};
use wire::{Frame, Gfn, PageBytes};

use crate::domain::figures::Figures;
use crate::domain::frames::{FrameState, FrameTable};
use crate::domain::index::{Found, Index};
use crate::domain::retire::{Round, Waiting};
use crate::domain::session::Sessions;
use crate::domain::store::Store;
use crate::domain::waiters::Waiters;
use crate::published::Published;
use crate::{Error, ProtocolError, VmmId};

/// Candidates kept per guest page of the domain: a page changes its hash while the old one has not aged yet.
const CANDIDATES_PER_PAGE: usize = 2;

/// Messages to send, and to whom.
pub(crate) type Outbox = Vec<(VmmId, MergeAnswer)>;

/// All that changes in a domain.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) store: Store,
    pub(crate) published: Published,
    frames: FrameTable,
    index: Index,
    sessions: Sessions,
    waiters: Waiters,
    waiting: Waiting,
    round: Option<Round>,
    budget_frames: u64,
    /// Survives an error: what was done before it is told with the next messages.
    outbox: Outbox,
    totals: Figures,
}

impl Protocol {
    /// Nobody, and nothing shared: `home_frames` is what the largest guest has.
    pub(crate) fn new(home_frames: u32, frames: FrameTable, store: Store, published: Published) -> Self {
        Self {
            store,
            published,
            index: Index::new(frames.count() / 2),
            sessions: Sessions::new(home_frames, frames.count()),
            frames,
            waiters: Waiters::default(),
            waiting: Waiting::default(),
            round: None,
            budget_frames: u64::MAX,
            outbox: Outbox::new(),
            totals: Figures::default(),
        }
    }

    /// Nothing is published when so many frames are in use.
    pub(crate) fn set_budget_frames(&mut self, frames: u64) {
        self.budget_frames = frames;
    }

    /// A VMM whose guest has so many pages comes in.
    pub(crate) fn join(&mut self, vmm: VmmId, pages: u32) -> Result<(), Error> {
        self.sessions.join(vmm, pages)?;
        self.limit_candidates();
        Ok(())
    }

    /// A VMM's process has ended.
    pub(crate) fn leave(&mut self, vmm: VmmId) {
        let Some(session) = self.sessions.leave(vmm) else { return };
        self.loaded(vmm);
        self.index.forget(self.sessions.page_numbers(&session));
        self.limit_candidates();
        for frame in session.held() {
            self.frames.lose(frame);
            self.queue_if_idle(frame);
        }
        for frame in session.asked() {
            self.decline(frame, vmm);
        }
        if let Some(round) = &mut self.round {
            round.gone(vmm);
        }
        self.finish_rounds();
    }

    /// Pages of `vmm` have contents with these hashes.
    pub(crate) fn hashes(&mut self, vmm: VmmId, hashes: &[(Gfn, u64)]) -> Result<(), ProtocolError> {
        let pages = self.sessions.get(vmm)?.pages;
        let mut previous = None;
        let mut answers = Vec::new();
        for &(gfn, hash) in hashes {
            if gfn.0 >= pages {
                return Err(ProtocolError::Gfn { gfn, pages });
            }
            let behind = previous.filter(|&(before, _): &(Gfn, _)| before.plus(1) == gfn).map(|(_, frame)| frame);
            if let Some(answer) = self.offer(vmm, gfn, hash, behind) {
                if let Answer::Share(frame) | Answer::Publish(frame) = answer {
                    previous = Some((gfn, frame));
                }
                answers.push((gfn, answer));
            }
        }
        self.post(vmm, &answers);
        Ok(())
    }

    /// `vmm` sends what it was asked for: a content for each place, which have these hashes.
    pub(crate) fn pages(&mut self, vmm: VmmId, pages: &Pages, hashes: &[u64]) -> Result<(), ProtocolError> {
        let (places, (contents, _)) = (&pages.places, pages.bytes.as_chunks());
        let session = self.sessions.get(vmm)?;
        let strange = places.iter().position(|&place| !session.take_asked(place));
        // What came before a page nobody asked for is published, and told with the next messages.
        let valid = strange.unwrap_or(places.len());
        let frame = |at: usize| places[at].1;
        let as_announced = |&at: &usize| self.frames.hash(frame(at)) == hashes[at];
        let (good, bad): (Vec<usize>, Vec<usize>) = (0..valid).partition(as_announced);
        let mut shares = BTreeMap::<VmmId, Vec<(Gfn, Answer)>>::new();
        for run in good.chunk_by(|&a, &b| a + 1 == b && frame(a).plus(1) == frame(b)) {
            let (first, last) = (run[0], run[run.len() - 1]);
            for (waiter, gfn, frame) in self.publish(frame(first), &contents[first..=last], vmm) {
                shares.entry(waiter).or_default().push((gfn, Answer::Share(frame)));
            }
        }
        bad.into_iter().for_each(|at| self.decline(frame(at), vmm));
        shares.iter().for_each(|(&waiter, answers)| self.post(waiter, answers));
        match strange.map(|at| places[at]) {
            Some((gfn, frame)) => Err(ProtocolError::NotAsked { gfn, frame }),
            None => Ok(()),
        }
    }

    /// `vmm` does not send what it was asked for.
    pub(crate) fn declined(&mut self, vmm: VmmId, places: &[(Gfn, Frame)]) -> Result<(), ProtocolError> {
        for &(gfn, frame) in places {
            if !self.sessions.get(vmm)?.take_asked((gfn, frame)) {
                return Err(ProtocolError::NotAsked { gfn, frame });
            }
            self.decline(frame, vmm);
        }
        Ok(())
    }

    /// `vmm` holds these frames from here on.
    pub(crate) fn adopted(&mut self, vmm: VmmId, frames: &[Frame]) -> Result<(), ProtocolError> {
        for &frame in frames {
            self.frames.check(frame)?;
            if !matches!(self.frames.state(frame), FrameState::Published | FrameState::Retiring) {
                return Err(ProtocolError::NotPublished(frame));
            }
            self.set_held(vmm, frame, true)?;
        }
        Ok(())
    }

    /// `vmm` holds these frames no more.
    pub(crate) fn dropped(&mut self, vmm: VmmId, frames: &[Frame]) -> Result<(), ProtocolError> {
        for &frame in frames {
            self.frames.check(frame)?;
            self.set_held(vmm, frame, false)?;
        }
        Ok(())
    }

    /// `vmm` answers whether it holds frames of the round.
    pub(crate) fn retired(&mut self, vmm: VmmId, answers: &[(Frame, bool)]) -> Result<(), ProtocolError> {
        self.sessions.get(vmm)?;
        for &(frame, held) in answers {
            if !self.round.as_mut().is_some_and(|round| round.answer(vmm, frame, held)) {
                return Err(ProtocolError::NotRetiring(frame));
            }
            self.set_held(vmm, frame, held)?;
        }
        self.finish_rounds();
        Ok(())
    }

    /// Time goes by: what nobody has held for a while is retired.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.waiting.age(now);
        self.finish_rounds();
    }

    /// VMMs that have owed an answer, or a page, for so long.
    pub(crate) fn overdue(&mut self, now: Instant, patience: Duration) -> BTreeSet<VmmId> {
        let mut overdue = BTreeSet::new();
        for (vmm, session) in self.sessions.iter_mut() {
            if session.owes_since(now).is_some_and(|since| since + patience <= now) {
                overdue.insert(vmm);
            }
        }
        if let Some(round) = &mut self.round
            && round.since(now) + patience <= now
        {
            overdue.extend(round.unanswered());
        }
        overdue
    }

    /// How the domain is.
    pub(crate) fn figures(&self) -> Figures {
        let in_use = u64::from(self.frames.in_use());
        let retiring = self.round.as_ref().map_or(0, |round| round.frames().len() as u64);
        let (frames_held, holds) = self.frames.held();
        Figures {
            frames: u64::from(self.frames.count()),
            frames_in_use: in_use,
            frames_published: in_use - self.sessions.asked() - retiring,
            frames_retiring: retiring,
            allocated_bytes: self.store.allocated_bytes().unwrap_or_default(),
            candidates: self.index.candidates() as u64,
            frames_held,
            holds,
            ..self.totals
        }
    }

    /// What is to be sent, less what was meant for VMMs that are gone.
    pub(crate) fn take_outbox(&mut self) -> Outbox {
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.retain(|&(vmm, _)| self.sessions.has(vmm));
        outbox
    }

    fn limit_candidates(&mut self) {
        self.index.set_limit(self.sessions.pages() * CANDIDATES_PER_PAGE);
    }

    /// A page of `vmm` has content with this hash: what to do with it?
    fn offer(&mut self, vmm: VmmId, gfn: Gfn, hash: u64, behind: Option<Frame>) -> Option<Answer> {
        let first = match self.index.find(hash, |frame| self.frames.hash(frame) == hash) {
            Some(Found::Frame(frame)) if self.frames.state(frame) == FrameState::Awaited => {
                return (!self.waiters.add(frame, (vmm, gfn))).then_some(Answer::NoRoom);
            }
            Some(Found::Frame(frame)) => return Some(Answer::Share(frame)),
            Some(Found::Candidate(number)) => self.sessions.page(number).filter(|&first| first != (vmm, gfn)),
            None => None,
        };
        let Some(first) = first else {
            self.note(vmm, gfn, hash);
            return None;
        };
        let Some(frame) = self.reserve(vmm, gfn, first.1, behind, hash) else {
            // The candidate is this page now, so that the one before hears of it, too, when it asks again.
            self.note(vmm, gfn, hash);
            return Some(Answer::NoRoom);
        };
        for page in [first, (vmm, gfn)] {
            self.waiters.add(frame, page);
        }
        self.index.put_frame(hash, frame);
        Some(Answer::Publish(frame))
    }

    /// This page is the candidate for its content from here on.
    fn note(&mut self, vmm: VmmId, gfn: Gfn, hash: u64) {
        if let Some(number) = self.sessions.page_number(vmm, gfn) {
            self.index.note(hash, number);
        }
    }

    /// Reserves a frame for a page that `vmm` is to send.
    fn reserve(&mut self, vmm: VmmId, gfn: Gfn, first: Gfn, behind: Option<Frame>, hash: u64) -> Option<Frame> {
        let session = self.sessions.get(vmm).ok().filter(|session| session.may_be_asked())?;
        let within = u64::from(self.frames.in_use()) < self.budget_frames;
        let Some(frame) = within.then(|| self.frames.place(first, gfn, behind, hash)).flatten() else {
            self.totals.refused_total += 1;
            return None;
        };
        session.ask(gfn, frame);
        Some(frame)
    }

    /// Puts content in neighbouring frames and announces them; returns who waits for which.
    fn publish(&mut self, first: Frame, contents: &[PageBytes], vmm: VmmId) -> Vec<(VmmId, Gfn, Frame)> {
        let frames = (0..contents.len() as u32).map(|at| first.plus(at));
        if self.store.write(first, contents).is_err() {
            // What was written of it before it failed.
            _ = self.store.punch(first, contents.len() as u32);
            for frame in frames {
                self.totals.store_errors_total += 1;
                self.decline(frame, vmm);
            }
            return Vec::new();
        }
        let mut waiting = Vec::new();
        for frame in frames {
            self.frames.publish(frame);
            self.published.set(frame);
            self.totals.published_total += 1;
            self.queue_if_idle(frame);
            waiting.extend(self.waiters.take(frame).into_iter().map(|(vmm, gfn)| (vmm, gfn, frame)));
        }
        waiting
    }

    /// The content of an awaited frame will not come from `vmm`: the others that wait for it start over.
    fn decline(&mut self, frame: Frame, vmm: VmmId) {
        let hash = self.frames.hash(frame);
        self.frames.release(frame);
        self.totals.declined_total += 1;
        self.index.remove_frame(hash, frame);
        for (waiter, gfn) in self.waiters.take(frame) {
            if waiter != vmm
                && self.sessions.has(waiter)
                && let Some(answer) = self.offer(waiter, gfn, hash, None)
            {
                self.post(waiter, &[(gfn, answer)]);
            }
        }
    }

    /// Sets whether `vmm` holds a frame of the store.
    fn set_held(&mut self, vmm: VmmId, frame: Frame, held: bool) -> Result<(), ProtocolError> {
        if self.sessions.get(vmm)?.set_held(frame, held) {
            if held {
                self.frames.hold(frame);
            } else {
                self.frames.lose(frame);
                self.queue_if_idle(frame);
            }
        }
        Ok(())
    }

    fn queue_if_idle(&mut self, frame: Frame) {
        if self.frames.queue(frame) {
            self.waiting.push(frame);
        }
    }

    fn post(&mut self, vmm: VmmId, answers: &[(Gfn, Answer)]) {
        let batches = answers.chunks(BATCH_MAX).map(|batch| (vmm, MergeAnswer::Answers(batch.to_vec())));
        self.outbox.extend(batches);
    }

    /// Ends the round if everybody has answered, starts the next, and so on until one has to wait.
    fn finish_rounds(&mut self) {
        while self.round.as_ref().is_none_or(Round::is_over) {
            if let Some(round) = self.round.take() {
                self.end_round(&round);
            }
            let frames = self.waiting.next_batch(|frame| self.frames.retire(frame));
            if frames.is_empty() {
                return;
            }
            // First the bits, then the questions: see `published`.
            self.published.clear(&frames);
            self.outbox.extend(self.sessions.ids().map(|vmm| (vmm, MergeAnswer::Retire(frames.clone()))));
            self.round = Some(Round::new(frames, self.sessions.ids()));
        }
    }

    fn end_round(&mut self, round: &Round) {
        let mut free = Vec::new();
        for (frame, held) in round.outcome() {
            if held || self.frames.is_held(frame) {
                self.frames.publish(frame);
                self.published.set(frame);
                // Its holder may have let go, or died, before the others had answered.
                self.queue_if_idle(frame);
            } else {
                self.index.remove_frame(self.frames.hash(frame), frame);
                self.frames.release(frame);
                free.push(frame);
            }
        }
        for run in free.chunk_by(|a, b| a.plus(1) == *b) {
            match self.store.punch(run[0], run.len() as u32) {
                Ok(()) => self.totals.retired_total += run.len() as u64,
                Err(_) => self.totals.store_errors_total += 1,
            }
        }
    }
}
