//! The scanner: walks one guest's private pages, pass after pass, and gives away what others have too.
//!
//! ```text
//!   batch of pages ─► own offset published? ──yes──► share(gfn, gfn)  no hash, no message
//!         │                     │ no, or different
//!         │                     ▼               (pages of the pool do not change: to the hash at once)
//!         │              sample; as at the last visit? ──no──► volatile: next pass
//!         │                     │ yes                          (samples of zeros: look whether all is zero)
//!         │                     ▼
//!         │              told already? ──yes──► unique, as far as is known: nothing to do
//!         │                     │ no
//!         ▼                     ▼
//!     next batch         hash ─► Hashes to the store ─► Share(frame): share
//!                                                       Publish(frame): send the content
//! ```
//!
//! One thread owns it all and calls into the guest's memory; the store's answers come through a
//! [`ScannerHandle`] and are taken between two batches, in the pauses at once. That the same thread adopts
//! frames and answers for them is what makes "not held" final: between the answer and the next publication
//! nothing here can adopt the frame.
//!
//! Costs [`NOTES_BYTES_PER_PAGE`](crate::NOTES_BYTES_PER_PAGE).

pub mod census;
pub mod config;
pub mod inbox;
pub mod memory;
pub mod notes;
pub mod pace;
pub mod retell;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use control::Dedup;
use control::merge::{Answer, BATCH_MAX, MergeAnswer, MergeRequest, PAGES_MAX, Pages};
use control::status::DedupStatus;
use wire::{Frame, Gfn, PAGE_BYTES, Run, Sharing, runs};

use crate::domain::refused::RefusedRuns;
use crate::hash::{BatchHasher, Content};
use crate::scanner::census::census;
use crate::scanner::inbox::Event;
use crate::scanner::notes::{DIFFERS, NO_ROOM, Notes, OVER_BUDGET, Seen, TAKEN, TOLD};
use crate::scanner::pace::{Pace, PassFindings};
use crate::scanner::retell::{BATCH_PAGES, RETELL_PASSES, RETRY_PASSES, is_retold};
use crate::{Backing, ScanMemory, ScannerConfig, ScannerHandle};

/// Aliases that are given up at a time, some 30 µs each.
const ALIASES_GIVEN_UP_MAX: u32 = 256;
/// Every so many passes, pages that broke after merging are forgiven one break, and what the store had no
/// room for is forgotten.
const RELAX_PASSES: u64 = 64;

/// One guest's scanner. `P` points to its memory: a reference, or an `Arc`.
#[derive(Debug)]
pub struct Scanner<P> {
    memory: P,
    hasher: BatchHasher,
    zero_pages_only: bool,
    notes: Notes,
    pace: Pace,
    handle: ScannerHandle,
    status: DedupStatus,
    /// Where the next batch starts.
    next: u32,
    pass: u64,
    found: PassFindings,
    /// Pages were compared since the memory last was at rest.
    to_rest: bool,
    /// Runs refused for want of areas since all content began to be told once more.
    refused: RefusedRuns,
    /// Hashes to be told.
    stable: Vec<(Gfn, u64)>,
    /// Pages that were told last: the answer may be on its way.
    told: Vec<Gfn>,
    /// Memory is short: content is taken for stable at the first visit.
    urgent: bool,
}

impl<P: Deref<Target: ScanMemory>> Scanner<P> {
    /// A scanner at the start of its first pass.
    pub fn new(memory: P, config: ScannerConfig) -> Self {
        Self {
            hasher: BatchHasher::new(config.hash_secret, config.hash_threads),
            zero_pages_only: config.zero_pages_only,
            notes: Notes::new(memory.pages()),
            pace: Pace::new(config.cpu_share, config.idle_cpu_share),
            handle: ScannerHandle::default(),
            status: DedupStatus {
                mode: if config.zero_pages_only { Dedup::ZeroPagesOnly } else { Dedup::On },
                ..DedupStatus::default()
            },
            next: 0,
            pass: 0,
            found: PassFindings::default(),
            to_rest: false,
            refused: RefusedRuns::default(),
            stable: Vec::new(),
            told: Vec::new(),
            urgent: false,
            memory,
        }
    }

    /// The same, with a letter box that exists already and may have letters in it.
    pub fn with_handle(self, handle: ScannerHandle) -> Self {
        Self { handle, ..self }
    }

    /// For the threads that post answers, read figures, or stop it.
    pub fn handle(&self) -> ScannerHandle {
        self.handle.clone()
    }

    /// What it did so far. `vmas` and `vma_budget` are the pager's to say.
    pub fn status(&self) -> &DedupStatus {
        &self.status
    }

    /// Scans until `stop` is set (then [`ScannerHandle::wake`] it), at the pace that its findings deserve.
    pub fn run(mut self, stop: &AtomicBool, mut send: impl FnMut(MergeRequest)) {
        let mut cpu = self.hasher.cpu_time();
        let mut resume_at = Instant::now();
        // Relaxed: the flag carries nothing but itself.
        while !stop.load(Ordering::Relaxed) {
            match self.handle.wait(resume_at.saturating_duration_since(Instant::now())) {
                Event::Answer(answer) => self.on_answer(answer, &mut send),
                Event::Woken => {}
                Event::Hurry => {
                    self.hurry();
                    resume_at = Instant::now();
                }
                Event::Timeout => {
                    _ = self.scan_batch(&mut send);
                    let used = self.hasher.cpu_time().saturating_sub(cpu);
                    cpu += used;
                    self.status.cpu_ns += used.as_nanos() as u64;
                    if let Some(pause) = self.pace.used(used, &self.found, self.memory.populated_pages()) {
                        resume_at = Instant::now() + pause;
                    }
                    self.handle.set_status(&self.status);
                }
            }
        }
        self.handle.set_status(&self.status);
    }

    /// Memory is short: full speed from here on, and to the end of the pass what was never seen before is
    /// told at once.
    pub fn hurry(&mut self) {
        self.pace.hurry();
        self.urgent = true;
    }

    /// Does what the store answers or orders.
    pub fn on_answer(&mut self, answer: MergeAnswer, mut send: impl FnMut(MergeRequest)) {
        match answer {
            MergeAnswer::Answers(answers) => {
                let (mut shares, mut wanted) = (Vec::new(), Vec::new());
                for (gfn, answer) in answers.into_iter().filter(|&(gfn, _)| gfn.0 < self.memory.pages()) {
                    match answer {
                        Answer::Publish(frame) => wanted.push((gfn, frame)),
                        Answer::Share(frame) => shares.push((gfn, frame)),
                        Answer::NoRoom if self.notes.has(gfn, TOLD) => self.notes.set(gfn, NO_ROOM),
                        Answer::NoRoom => {}
                    }
                }
                shares.sort_unstable();
                shares.dedup_by_key(|&mut (gfn, _)| gfn);
                self.share(&shares);
                self.publish(&wanted, &mut send);
            }
            MergeAnswer::Retire(frames) => {
                for batch in frames.chunks(BATCH_MAX) {
                    let answers = batch.iter().map(|&frame| (frame, self.memory.holds(frame))).collect();
                    send(MergeRequest::Retired(answers));
                }
            }
        }
        self.report_holds(&mut send);
    }

    /// Looks at one batch of pages; true at the end of a pass.
    pub fn scan_batch(&mut self, mut send: impl FnMut(MergeRequest)) -> bool {
        let end = self.next.saturating_add(BATCH_PAGES).min(self.memory.pages());
        let batch = Run::from_range(self.next..end);
        let private = batch.gfns().filter(|&gfn| self.memory.backing(gfn) == Backing::Private);
        let (due, reluctant): (Vec<_>, Vec<_>) = private.partition(|&gfn| self.notes.is_due(gfn, self.pass));
        self.memory.seen(&reluctant);
        self.share_at_home(&due);
        let (suspects, mut stable) = self.sample(&due);
        stable.extend(self.pooled(batch));
        self.look_at(&suspects, &stable);
        self.report_holds(&mut send);
        self.next = end;
        let pass_ends = end == self.memory.pages();
        if pass_ends || self.stable.len() + BATCH_PAGES as usize > BATCH_MAX {
            self.tell(&mut send);
        }
        if pass_ends {
            self.end_pass();
        }
        pass_ends
    }

    /// Shares what is published at its own offset.
    fn share_at_home(&mut self, due: &[Gfn]) {
        if self.zero_pages_only {
            return;
        }
        let promising = |&gfn: &Gfn| !self.notes.has(gfn, DIFFERS | TAKEN) && self.memory.is_published(gfn.home());
        let pairs: Vec<_> = due.iter().copied().filter(promising).map(|gfn| (gfn, gfn.home())).collect();
        self.share(&pairs);
    }

    /// Samples the pages that are due and still private. Returns those that are new or changed and may be
    /// zero, and those to be hashed: stable, and not told yet, or not for a while.
    fn sample(&mut self, due: &[Gfn]) -> (Vec<Gfn>, Vec<Gfn>) {
        let (mut suspects, mut stable, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for run in runs(due.iter().copied()) {
            self.memory.sample_private(run, &mut |gfn, sample| {
                self.found.private += 1;
                self.notes.found_private(gfn);
                let seen = self.notes.see(gfn, sample);
                let told = self.notes.has(gfn, TOLD);
                let wants_room = self.notes.has(gfn, OVER_BUDGET) || told && self.notes.has(gfn, NO_ROOM);
                let every = if wants_room { RETRY_PASSES } else { RETELL_PASSES };
                let again = is_retold(gfn, self.pass, every);
                self.found.progress += u64::from(seen == Seen::New && !self.notes.was_broken(gfn));
                let is_stable = seen == Seen::Stable || seen == Seen::New && self.urgent;
                if is_stable && (!told || again) && !self.zero_pages_only {
                    stable.push(gfn);
                } else if seen != Seen::Stable && sample == 0 {
                    suspects.push(gfn);
                } else if seen != Seen::New || self.zero_pages_only {
                    settled.push(gfn);
                }
            });
        }
        self.memory.seen(&settled);
        (suspects, stable)
    }

    /// Pages of the pool that are to be hashed: not told yet, or not for a while. What fills its memory
    /// faster than it is scanned has most of what others have, too, there by the time we come to it.
    fn pooled(&mut self, batch: Run) -> Vec<Gfn> {
        if self.zero_pages_only {
            return Vec::new();
        }
        let wanted = |&gfn: &Gfn| {
            let is_new = !self.notes.has(gfn, TOLD);
            let due = is_new && self.notes.is_due(gfn, self.pass) || is_retold(gfn, self.pass, RETELL_PASSES);
            due && self.memory.backing(gfn) == Backing::Pooled
        };
        let pooled: Vec<_> = batch.gfns().filter(wanted).collect();
        let new =
            pooled.iter().filter(|&&gfn| !self.notes.has(gfn, TOLD) && !self.notes.was_broken(gfn)).count() as u64;
        self.found.private += pooled.len() as u64;
        self.found.progress += new;
        pooled
    }

    /// Drops pages that are zero, queues hashes of stable ones.
    fn look_at(&mut self, suspects: &[Gfn], stable: &[Gfn]) {
        let mut zero = suspects.to_vec();
        for (gfn, content) in self.hasher.read_all(&*self.memory, stable) {
            match content {
                Content::Zero => zero.push(gfn),
                Content::Hash(hash) => {
                    self.status.hashed_total += 1;
                    self.notes.set(gfn, TOLD);
                    self.stable.push((gfn, hash));
                }
            }
        }
        zero.sort_unstable();
        runs(zero).for_each(|run| self.drop_zero(run));
    }

    fn drop_zero(&mut self, run: Run) {
        let dropped = self.memory.drop_zero(run);
        self.status.merged_zero_total += u64::from(dropped);
        for gfn in run.gfns() {
            if self.memory.backing(gfn) != Backing::Private {
                self.notes.forget(gfn);
                self.found.gain(self.notes.was_broken(gfn));
                self.notes.set(gfn, TAKEN);
            }
        }
    }

    fn end_pass(&mut self) {
        let found = std::mem::take(&mut self.found);
        self.pace.pass_ended(found, self.memory.populated_pages());
        self.to_rest |= found.gained();
        if self.to_rest && self.pace.is_idle() {
            self.memory.rest();
            self.to_rest = false;
        }
        self.status.passes_total += 1;
        self.status.unmerged = census(&*self.memory, &self.notes);
        self.pass += 1;
        self.urgent = false;
        if self.pass.is_multiple_of(RETRY_PASSES) {
            self.status.vmas_won_back_total += u64::from(self.memory.reclaim_areas(ALIASES_GIVEN_UP_MAX));
            self.status.vma_refused_runs = self.refused.take();
        }
        self.next = 0;
        if self.pass.is_multiple_of(RELAX_PASSES) {
            self.notes.relax();
        }
    }

    fn tell(&mut self, send: &mut impl FnMut(MergeRequest)) {
        let told = self.stable.iter().map(|&(gfn, _)| gfn).collect();
        self.memory.seen(&std::mem::replace(&mut self.told, told));
        if !self.stable.is_empty() {
            send(MergeRequest::Hashes(std::mem::take(&mut self.stable)));
        }
    }

    /// Shares pages with frames; the pages ascend.
    fn share(&mut self, pairs: &[(Gfn, Frame)]) {
        let Self { memory, notes, status, found, refused, .. } = self;
        memory.share(pairs, &mut |gfn, outcome| {
            let at = pairs.partition_point(|&(page, _)| page < gfn);
            let frame = pairs.get(at).map_or(gfn.home(), |&(_, frame)| frame);
            let home = frame == gfn.home();
            match outcome {
                Sharing::Shared => {
                    *(if home { &mut status.merged_same_address_total } else { &mut status.merged_alias_total }) += 1;
                    found.gain(notes.was_broken(gfn));
                    notes.set(gfn, TAKEN);
                }
                Sharing::Different => {
                    status.mismatches_total += u64::from(!home);
                    notes.set(gfn, if home { DIFFERS } else { 0 });
                }
                Sharing::Refused => {
                    notes.set(gfn, OVER_BUDGET);
                    refused.note(gfn, frame);
                }
                Sharing::NotPrivate => {}
            }
        });
    }

    /// Sends the pages that are wanted. The store hashes what it gets, so one that has changed is found out
    /// there.
    fn publish(&mut self, wanted: &[(Gfn, Frame)], send: &mut impl FnMut(MergeRequest)) {
        let mut page = [0; PAGE_BYTES];
        for batch in wanted.chunks(PAGES_MAX) {
            let mut pages = Pages { places: Vec::new(), bytes: Vec::with_capacity(batch.len() * PAGE_BYTES) };
            let mut declined = Vec::new();
            for &(gfn, frame) in batch {
                if self.memory.read_held(gfn, &mut page) {
                    pages.places.push((gfn, frame));
                    pages.bytes.extend_from_slice(&page);
                } else {
                    declined.push((gfn, frame));
                }
            }
            self.status.published_total += pages.places.len() as u64;
            pages.places.iter().for_each(|&(gfn, _)| self.found.gain(self.notes.was_broken(gfn)));
            if !pages.places.is_empty() {
                send(MergeRequest::Pages(pages));
            }
            if !declined.is_empty() {
                send(MergeRequest::Declined(declined));
            }
        }
    }

    /// Tells the store which frames this VMM holds now, and which it holds no more.
    fn report_holds(&mut self, send: &mut impl FnMut(MergeRequest)) {
        loop {
            let (mut adopted, mut dropped) = (Vec::new(), Vec::new());
            self.memory.take_hold_changes(BATCH_MAX, &mut |frame, held| {
                if held { adopted.push(frame) } else { dropped.push(frame) }
            });
            let more = adopted.len() + dropped.len() >= BATCH_MAX;
            if !adopted.is_empty() {
                send(MergeRequest::Adopted(adopted));
            }
            if !dropped.is_empty() {
                send(MergeRequest::Dropped(dropped));
            }
            if !more {
                return;
            }
        }
    }
}
