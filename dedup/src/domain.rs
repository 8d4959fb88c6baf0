//! A sharing domain: the guests of one tenant, the frames they share, and the host's part of the merge protocol.
//!
//! [`Domain::handle`] is the protocol: one message of one VMM in, any number of messages to any VMMs out. It never blocks on a
//! VMM and needs no clock; [`Domain::sweep`] is told the time, and starts the release of frames that nobody has held for a while.
//!
//! What VMMs report about holding frames only says *which* frames are worth asking about. That a frame is punched rests on the
//! round of questions alone (see `retire`), so a report that comes late, or never, costs memory and nothing else.
//!
//! Pages are hashed before any lock is taken. Everything else happens under one lock, the `Ledger`'s, whose longest step is writing
//! one batch of pages to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::merge::{Answer, BATCH_MAX, MergeAnswer, MergeRequest, PAGES_MAX, Pages};
use wire::{Frame, Gfn, PageBytes};

use crate::frames::{FrameTable, State};
use crate::index::{Entry, Index};
use crate::ledger::{Ledger, Outbox};
use crate::published::Published;
use crate::retire::Round;
use crate::session::Session;
use crate::store::{Store, reopen_read_only};
use crate::{Error, ProtocolError, VmmId, content_hash};

/// How long a frame without holders is kept: several passes of a busy scanner, so that content that is only on its way from one
/// page to another is not published again each time.
const RETIRE_GRACE: Duration = Duration::from_secs(2);
/// Most pages that wait for one awaited frame; the others are told to ask again.
const WAITERS_MAX: usize = 64;
/// What a VMM process gets: both read-only.
#[derive(Debug)]
pub struct Descriptors {
    /// The frames.
    pub store: OwnedFd,
    /// The published bitmap, one bit a frame.
    pub published: OwnedFd,
}

/// How the domain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Frames of the store.
    pub frames: u64,
    /// Frames that are awaited, published or being retired.
    pub frames_in_use: u64,
    /// Frames published now.
    pub frames_published: u64,
    /// Frames the VMMs are being asked about.
    pub frames_retiring: u64,
    /// Memory of the store, as the kernel counts it.
    pub allocated_bytes: u64,
    /// Hashes seen once.
    pub candidates: u64,
    /// Frames published so far.
    pub published_total: u64,
    /// Frames punched so far.
    pub retired_total: u64,
    /// Pages asked for that did not come, or came with other content.
    pub declined_total: u64,
    /// Frames not placed because the budget or the store was full.
    pub refused_total: u64,
    /// Frames that some VMM holds.
    pub frames_held: u64,
    /// The same, each counted as often as there are VMMs that hold it.
    pub holds: u64,
    /// Frames that could not be written or punched.
    pub store_errors_total: u64,
}

/// One sharing domain.
#[derive(Debug)]
pub struct Domain {
    secret: u64,
    home_frames: u32,
    store_frames: u32,
    store: Store,
    published: Published,
    index: Index,
    ledger: Mutex<Ledger>,
}

impl Domain {
    /// A domain for guests of at most `home_frames` pages, with its secret. The store has twice as many frames.
    pub fn new(home_frames: u32, secret: u64) -> Result<Self, Error> {
        let home_frames = home_frames.clamp(1, u32::MAX / 2);
        Self::with_frames(home_frames, secret, FrameTable::new(home_frames))
    }

    /// A domain that shares nothing, for guests of which only the zero pages are dropped. Its store is what their RAM is a mapping
    /// of, and stays empty: every merge request is a protocol error.
    pub fn zero_pages_only(home_frames: u32) -> Result<Self, Error> {
        Self::with_frames(home_frames.clamp(1, u32::MAX / 2), 0, FrameTable::new(0))
    }

    fn with_frames(home_frames: u32, secret: u64, frames: FrameTable) -> Result<Self, Error> {
        let store_frames = frames.count().max(home_frames);
        Ok(Self {
            secret,
            home_frames,
            store_frames,
            store: Store::new(store_frames)?,
            published: Published::new(store_frames)?,
            index: Index::default(),
            ledger: Mutex::new(Ledger::new(frames)),
        })
    }

    /// Frames of the store: what `GuestConfig::store_frames` says.
    pub fn store_frames(&self) -> u32 {
        self.store_frames
    }

    /// The secret that keys this domain's hashes: what `GuestConfig::hash_secret` says.
    pub fn hash_secret(&self) -> u64 {
        self.secret
    }

    /// Read-only descriptors for one VMM.
    pub fn descriptors(&self) -> Result<Descriptors, Error> {
        let store = reopen_read_only(self.store.memfd())?;
        Ok(Descriptors { store, published: reopen_read_only(self.published.memfd())? })
    }

    /// Memory of all frames, as the kernel counts it.
    pub fn allocated_bytes(&self) -> Result<u64, Error> {
        self.store.allocated_bytes()
    }

    /// Publishing stops when frames in use reach this. Frames that exist stay.
    pub fn set_store_budget_bytes(&self, budget_bytes: u64) {
        self.ledger().budget_frames = budget_bytes / wire::PAGE_BYTES as u64;
    }

    /// A VMM whose guest has so many pages comes in. It must hold nothing yet.
    pub fn vmm_joined(&self, vmm: VmmId, pages: u32) -> Result<(), Error> {
        if pages > self.home_frames {
            return Err(Error::GuestTooLarge { pages, home_frames: self.home_frames });
        }
        let ledger = &mut *self.ledger();
        if ledger.sessions.contains_key(&vmm) {
            return Err(Error::Duplicate(vmm));
        }
        ledger.sessions.insert(vmm, Session::new(pages, ledger.frames.count()));
        ledger.count_candidates_max();
        Ok(())
    }

    /// A VMM is gone: it holds nothing, owes nothing and is asked no more. To be called when its process has ended, not before:
    /// until then its guest may read frames that would now be reused.
    pub fn vmm_gone(&self, vmm: VmmId) -> Vec<(VmmId, MergeAnswer)> {
        let ledger = &mut *self.ledger();
        let Some(session) = ledger.sessions.remove(&vmm) else { return Outbox::new() };
        ledger.count_candidates_max();
        for frame in session.held() {
            ledger.lose_holder(frame);
        }
        for &frame in session.asked.keys() {
            self.decline(ledger, frame, vmm);
        }
        if let Some(round) = &mut ledger.round {
            round.gone(vmm);
        }
        self.finish_rounds(ledger);
        ledger.take_outbox()
    }

    /// One message of one VMM. After an error the VMM is to be killed, and reported with [`Domain::vmm_gone`] once it has ended.
    pub fn handle(&self, vmm: VmmId, request: MergeRequest) -> Result<Vec<(VmmId, MergeAnswer)>, ProtocolError> {
        let (entries, most) = match &request {
            MergeRequest::Hashes(hashes) => (hashes.len(), BATCH_MAX),
            MergeRequest::Pages(pages) => (pages.places.len(), PAGES_MAX),
            MergeRequest::Declined(places) => (places.len(), BATCH_MAX),
            MergeRequest::Adopted(frames) | MergeRequest::Dropped(frames) => (frames.len(), BATCH_MAX),
            MergeRequest::Retired(answers) => (answers.len(), BATCH_MAX),
        };
        if entries > most {
            return Err(ProtocolError::BatchTooLong(entries));
        }
        if self.store_frames == self.home_frames {
            return Err(ProtocolError::NothingShared);
        }
        match request {
            MergeRequest::Hashes(hashes) => self.hashes(vmm, &hashes),
            MergeRequest::Pages(pages) => self.pages(vmm, &pages),
            MergeRequest::Declined(places) => self.declined(vmm, &places),
            MergeRequest::Adopted(frames) => self.adopted(vmm, &frames),
            MergeRequest::Dropped(frames) => self.dropped(vmm, &frames),
            MergeRequest::Retired(answers) => self.retired(vmm, &answers),
        }
    }

    /// Retires frames that nobody has held for a while (`RETIRE_GRACE`). To be called every few hundred milliseconds, with a clock
    /// that never goes back.
    pub fn sweep(&self, now: Instant) -> Vec<(VmmId, MergeAnswer)> {
        let ledger = &mut *self.ledger();
        for (_, since) in ledger.idle.iter_mut().rev().take_while(|(_, since)| since.is_none()) {
            *since = Some(now);
        }
        while let Some(&(frame, Some(since))) = ledger.idle.front()
            && since + RETIRE_GRACE <= now
        {
            ledger.idle.pop_front();
            ledger.due.push_back(frame);
        }
        self.finish_rounds(ledger);
        ledger.take_outbox()
    }

    /// VMMs that were asked whether they hold a frame, or for a page, and have owed the answer since `patience` before `now`: while they
    /// live, those frames cannot be released, or that content not be shared. To be called as often as [`Domain::sweep`].
    pub fn overdue(&self, now: Instant, patience: Duration) -> BTreeSet<VmmId> {
        let ledger = &mut *self.ledger();
        let mut overdue = BTreeSet::new();
        for (&vmm, session) in &mut ledger.sessions {
            for asked in session.asked.values_mut() {
                if *asked.since.get_or_insert(now) + patience <= now {
                    overdue.insert(vmm);
                }
            }
        }
        if let Some(round) = &mut ledger.round
            && round.since(now) + patience <= now
        {
            overdue.extend(round.unanswered());
        }
        overdue
    }

    /// How the domain is.
    pub fn figures(&self) -> Figures {
        Figures {
            allocated_bytes: self.store.allocated_bytes().unwrap_or_default(),
            candidates: self.index.candidates() as u64,
            ..self.ledger().figures()
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic under the lock is a bug; the guests' memory does not depend on the ledger, so go on.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hashes(&self, vmm: VmmId, hashes: &[(Gfn, u64)]) -> Result<Outbox, ProtocolError> {
        let ledger = &mut *self.ledger();
        let pages = ledger.session(vmm)?.pages;
        let mut previous = None;
        let mut answers = Vec::new();
        for &(Gfn(gfn), hash) in hashes {
            if gfn >= pages {
                return Err(ProtocolError::Gfn { gfn, pages });
            }
            let behind = previous.filter(|&(before, _)| gfn.checked_sub(1) == Some(before)).map(|(_, frame)| frame);
            if let Some(answer) = self.offer(ledger, vmm, gfn, hash, behind) {
                if let Answer::Share(Frame(frame)) | Answer::Publish(Frame(frame)) = answer {
                    previous = Some((gfn, frame));
                }
                answers.push((Gfn(gfn), answer));
            }
        }
        ledger.post(vmm, answers);
        Ok(ledger.take_outbox())
    }

    /// A page of `vmm` has content with this hash: what to do with it?
    fn offer(&self, ledger: &mut Ledger, vmm: VmmId, gfn: u32, hash: u64, behind: Option<u32>) -> Option<Answer> {
        let first = match self.index.get_or_note(hash, vmm, gfn, ledger.candidates_max) {
            Some(Entry::Frame(frame)) => return Some(Answer::Share(Frame(frame))),
            Some(Entry::Awaited(frame)) => {
                let waiters = ledger.waiters.entry(frame).or_default();
                if waiters.len() >= WAITERS_MAX {
                    return Some(Answer::NoRoom);
                }
                if !waiters.contains(&(vmm, gfn)) {
                    waiters.push((vmm, gfn));
                }
                return None;
            }
            Some(Entry::Candidate { vmm: first, gfn: at })
                if (first, at) != (vmm, gfn) && ledger.sessions.contains_key(&first) =>
            {
                (first, at)
            }
            Some(Entry::Candidate { .. }) => {
                self.index.put_candidate(hash, vmm, gfn, ledger.candidates_max);
                return None;
            }
            None => return None,
        };
        let Some(frame) = ledger.reserve(vmm, gfn, first.1, behind, hash) else {
            // The candidate is this page now, so that the one before hears of it, too, when it asks again.
            self.index.put_candidate(hash, vmm, gfn, ledger.candidates_max);
            return Some(Answer::NoRoom);
        };
        ledger.waiters.insert(frame, vec![first, (vmm, gfn)]);
        self.index.put(hash, Entry::Awaited(frame));
        Some(Answer::Publish(Frame(frame)))
    }

    fn pages(&self, vmm: VmmId, pages: &Pages) -> Result<Outbox, ProtocolError> {
        let (contents, rest) = pages.bytes.as_chunks::<{ wire::PAGE_BYTES }>();
        if !rest.is_empty() || contents.len() != pages.places.len() {
            return Err(ProtocolError::PagesLength { bytes: pages.bytes.len(), pages: pages.places.len() });
        }
        // Hashed before the lock is taken.
        let hashes: Vec<u64> = contents.iter().map(|page| content_hash(self.secret, page)).collect();
        let ledger = &mut *self.ledger();
        ledger.session(vmm)?;
        let strange = pages.places.iter().position(|&place| !ledger.take_asked(vmm, place));
        // What came before a page nobody asked for is published, and told with the next messages.
        let valid = strange.unwrap_or(pages.places.len());
        let as_announced = |ledger: &mut Ledger, at: usize| {
            let frame = ledger.frames.get(pages.places[at].1.0);
            frame.is_some_and(|frame| frame.hash == hashes[at])
        };
        let (good, bad): (Vec<usize>, Vec<usize>) = (0..valid).partition(|&at| as_announced(ledger, at));
        let mut shares = BTreeMap::<VmmId, Vec<(Gfn, Answer)>>::new();
        let frame = |at: usize| pages.places[at].1.0;
        for run in good.chunk_by(|&a, &b| a + 1 == b && frame(a) + 1 == frame(b)) {
            let (first, last) = (run[0], run[run.len() - 1]);
            for (waiter, gfn, frame) in self.publish(ledger, frame(first), &contents[first..=last], vmm) {
                shares.entry(waiter).or_default().push((Gfn(gfn), Answer::Share(Frame(frame))));
            }
        }
        bad.into_iter().for_each(|at| self.decline(ledger, frame(at), vmm));
        ledger.post_all(shares);
        match strange.map(|at| pages.places[at]) {
            Some((Gfn(gfn), Frame(frame))) => Err(ProtocolError::NotAsked { gfn, frame }),
            None => Ok(ledger.take_outbox()),
        }
    }

    fn declined(&self, vmm: VmmId, places: &[(Gfn, Frame)]) -> Result<Outbox, ProtocolError> {
        let ledger = &mut *self.ledger();
        ledger.session(vmm)?;
        for &place @ (Gfn(gfn), Frame(frame)) in places {
            if !ledger.take_asked(vmm, place) {
                return Err(ProtocolError::NotAsked { gfn, frame });
            }
            self.decline(ledger, frame, vmm);
        }
        Ok(ledger.take_outbox())
    }

    /// Puts content in neighbouring frames and announces them; returns who waits for which.
    fn publish(&self, ledger: &mut Ledger, first: u32, contents: &[PageBytes], vmm: VmmId) -> Vec<(VmmId, u32, u32)> {
        let frames = first..first + contents.len() as u32;
        if self.store.write(first, contents).is_err() {
            // What was written of it before it failed.
            _ = self.store.punch(first, contents.len() as u32);
            for frame in frames {
                ledger.totals.store_errors_total += 1;
                self.decline(ledger, frame, vmm);
            }
            return Vec::new();
        }
        let mut waiting = Vec::new();
        for frame in frames {
            let Some(record) = ledger.frames.get(frame) else { continue };
            record.state = State::Published;
            let hash = record.hash;
            self.published.set(frame);
            self.index.put(hash, Entry::Frame(frame));
            ledger.totals.published_total += 1;
            ledger.queue_if_idle(frame);
            let waiters = ledger.take_waiters(frame);
            waiting.extend(waiters.into_iter().map(|(vmm, gfn)| (vmm, gfn, frame)));
        }
        waiting
    }

    /// The content of an awaited frame will not come from `vmm`: the others that wait for it start over.
    fn decline(&self, ledger: &mut Ledger, frame: u32, vmm: VmmId) {
        let Some(record) = ledger.frames.get(frame) else { return };
        let hash = record.hash;
        ledger.frames.release(frame);
        ledger.totals.declined_total += 1;
        self.index.remove(hash, Entry::Awaited(frame));
        for (waiter, gfn) in ledger.take_waiters(frame) {
            if waiter != vmm
                && ledger.sessions.contains_key(&waiter)
                && let Some(answer) = self.offer(ledger, waiter, gfn, hash, None)
            {
                ledger.post(waiter, vec![(Gfn(gfn), answer)]);
            }
        }
    }

    fn adopted(&self, vmm: VmmId, frames: &[Frame]) -> Result<Outbox, ProtocolError> {
        let ledger = &mut *self.ledger();
        for &Frame(frame) in frames {
            ledger.frames.check(frame)?;
            let state = ledger.frames.get(frame).map(|record| record.state);
            if !matches!(state, Some(State::Published | State::Retiring)) {
                return Err(ProtocolError::NotPublished(frame));
            }
            ledger.set_held(vmm, frame, true)?;
        }
        Ok(ledger.take_outbox())
    }

    fn dropped(&self, vmm: VmmId, frames: &[Frame]) -> Result<Outbox, ProtocolError> {
        let ledger = &mut *self.ledger();
        for &Frame(frame) in frames {
            ledger.frames.check(frame)?;
            ledger.set_held(vmm, frame, false)?;
        }
        Ok(ledger.take_outbox())
    }

    fn retired(&self, vmm: VmmId, answers: &[(Frame, bool)]) -> Result<Outbox, ProtocolError> {
        let ledger = &mut *self.ledger();
        ledger.session(vmm)?;
        for &(Frame(frame), held) in answers {
            if !ledger.round.as_mut().is_some_and(|round| round.answer(vmm, frame, held)) {
                return Err(ProtocolError::NotRetiring(frame));
            }
            ledger.set_held(vmm, frame, held)?;
        }
        self.finish_rounds(ledger);
        Ok(ledger.take_outbox())
    }

    /// Ends the round if everybody has answered, starts the next, and so on until one has to wait.
    fn finish_rounds(&self, ledger: &mut Ledger) {
        while ledger.round.as_ref().is_none_or(Round::is_over) {
            if let Some(round) = ledger.round.take() {
                self.end_round(ledger, &round);
            }
            if !self.start_round(ledger) {
                return;
            }
        }
    }

    fn start_round(&self, ledger: &mut Ledger) -> bool {
        let mut frames = Vec::new();
        while frames.len() < BATCH_MAX
            && let Some(frame) = ledger.due.pop_front()
        {
            let Some(record) = ledger.frames.get(frame) else { continue };
            record.queued = false;
            if record.state == State::Published && record.holders == 0 {
                record.state = State::Retiring;
                frames.push(frame);
            }
        }
        if frames.is_empty() {
            return false;
        }
        frames.sort_unstable();
        self.published.clear(&frames);
        let asked: Vec<_> = frames.iter().copied().map(Frame).collect();
        let vmms: Vec<VmmId> = ledger.sessions.keys().copied().collect();
        ledger.outbox.extend(vmms.iter().map(|&vmm| (vmm, MergeAnswer::Retire(asked.clone()))));
        ledger.round = Some(Round::new(frames, vmms.into_iter()));
        true
    }

    fn end_round(&self, ledger: &mut Ledger, round: &Round) {
        let mut free = Vec::new();
        for (frame, held) in round.outcome() {
            let Some(record) = ledger.frames.get(frame) else { continue };
            if held || record.holders > 0 {
                record.state = State::Published;
                self.published.set(frame);
                // Its holder may have let go, or died, before the others had answered.
                ledger.queue_if_idle(frame);
            } else {
                self.index.remove(record.hash, Entry::Frame(frame));
                ledger.frames.release(frame);
                free.push(frame);
            }
        }
        for run in free.chunk_by(|a, b| a + 1 == *b) {
            match self.store.punch(run[0], run.len() as u32) {
                Ok(()) => ledger.totals.retired_total += run.len() as u64,
                Err(_) => ledger.totals.store_errors_total += 1,
            }
        }
    }
}
