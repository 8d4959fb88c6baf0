//! The scanner: walks one guest's private pages, pass after pass, and gives away what others have too.
//!
//! ```text
//!   batch of pages ─► own offset published? ──yes──► share(gfn, gfn)  no hash, no message
//!         │                     │ no, or different
//!         │                     ▼
//!         │              all zero? ──yes──► drop_zero
//!         │                     │ no
//!         │                     ▼
//!         │              hash; same as at the last visit? ──no──► volatile: next pass
//!         │                     │ yes
//!         ▼                     ▼
//!     next batch         Hashes to the store ─► Share(frame): share, longest runs first
//!                                               Publish(frame): send the content, if it is still the same
//! ```
//!
//! One thread owns it all and calls into the guest's memory; the store's answers come through a [`ScannerHandle`] and are taken
//! between two batches, in the pauses at once. That the same thread adopts frames and answers for them is what makes
//! "not held" final: between the answer and the next publication nothing here can adopt the frame.
//!
//! Costs 5 bytes a guest page, and one buffer of [`BATCH_PAGES`] pages.

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use control::merge::{Answer, BATCH_MAX, MergeAnswer, MergeRequest, PAGES_MAX, Page};
use control::status::DedupStatus;

use crate::hash::BatchHasher;
use crate::inbox::Event;
use crate::notes::{Copies, DIFFERS, Notes, OVER_BUDGET, Seen, TAKEN, TOLD};
use crate::pace::{Pace, PassFindings};
use crate::runs::{Run, longest_first};
use crate::{PageBytes, ScanMemory, ScannerHandle, ShareOutcome, is_zero};

/// Pages that are looked at between two looks into the letter box: about 0.1 ms, half a megabyte of copies, and the bits of
/// a [`BatchSet`].
const BATCH_PAGES: u32 = 128;
/// Stable content is told again every so many passes, because the store forgets candidates.
const RETELL_PASSES: u64 = 4;
/// Every so many passes, pages that broke after merging are forgiven one break.
const RELAX_PASSES: u64 = 64;

/// What a scanner is to know.
#[derive(Clone, Copy, Debug)]
pub struct ScannerConfig {
    /// The domain's secret.
    pub hash_secret: u64,
    /// Most CPU it may use, as a share of one.
    pub cpu_share: f64,
    /// Threads that hash; 1 is the scanner's own.
    pub hash_threads: usize,
}

impl ScannerConfig {
    /// The usual: a fifth of one CPU, one thread.
    pub fn new(hash_secret: u64) -> Self {
        Self { hash_secret, cpu_share: 0.2, hash_threads: 1 }
    }
}

/// Pages of one batch: bit `i` is the page `i` behind the batch's first.
type BatchSet = u128;
const _: () = assert!(BATCH_PAGES == BatchSet::BITS);

/// One guest's scanner. `P` points to its memory: a reference, or an `Arc`.
#[derive(Debug)]
pub struct Scanner<P> {
    memory: P,
    hasher: BatchHasher,
    notes: Notes,
    pace: Pace,
    handle: ScannerHandle,
    status: DedupStatus,
    /// Where the next batch starts.
    next: u32,
    pass: u64,
    found: PassFindings,
    unmerged: Unmerged,
    /// Hashes to be told.
    stable: Vec<(u32, u64)>,
    copies: Copies,
}

/// Why pages stayed private in this pass, as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
struct Unmerged {
    volatile: u64,
    unique: u64,
    over_budget: u64,
}

impl<P: Deref<Target: ScanMemory>> Scanner<P> {
    /// A scanner at the start of its first pass.
    pub fn new(memory: P, config: ScannerConfig) -> Self {
        Self {
            hasher: BatchHasher::new(config.hash_secret, config.hash_threads),
            notes: Notes::new(memory.pages()),
            pace: Pace::new(config.cpu_share),
            handle: ScannerHandle::default(),
            status: DedupStatus::default(),
            next: 0,
            pass: 0,
            found: PassFindings::default(),
            unmerged: Unmerged::default(),
            stable: Vec::new(),
            copies: Copies::default(),
            memory,
        }
    }

    /// For the threads that post answers, read figures, or stop it.
    pub fn handle(&self) -> ScannerHandle {
        self.handle.clone()
    }

    /// What it did so far. `vmas` is the pager's to say.
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
                    self.pace.hurry();
                    resume_at = Instant::now();
                }
                Event::Timeout => {
                    self.scan_batch(&mut send);
                    let used = self.hasher.cpu_time().saturating_sub(cpu);
                    cpu += used;
                    self.status.cpu_ns += used.as_nanos() as u64;
                    if let Some(pause) = self.pace.used(used, &self.found) {
                        resume_at = Instant::now() + pause;
                    }
                    self.handle.set_status(&self.status);
                }
            }
        }
        self.handle.set_status(&self.status);
    }

    /// Scans to the end of the pass without a pause.
    pub fn scan_pass(&mut self, mut send: impl FnMut(MergeRequest)) {
        let pass = self.pass;
        while self.pass == pass {
            self.scan_batch(&mut send);
        }
    }

    /// Does what the store answers or orders.
    pub fn on_answer(&mut self, answer: MergeAnswer, mut send: impl FnMut(MergeRequest)) {
        match answer {
            MergeAnswer::Answers(answers) => {
                let (mut shares, mut wanted) = (Vec::new(), Vec::new());
                for (gfn, answer) in answers {
                    match answer {
                        Answer::Publish(frame) => wanted.push((gfn, frame)),
                        Answer::Share(frame) if gfn < self.memory.pages() && self.memory.is_published(frame) => {
                            shares.push((gfn, frame));
                        }
                        Answer::Share(_) => {}
                    }
                }
                for run in longest_first(shares) {
                    self.share(run);
                }
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

    fn scan_batch(&mut self, send: &mut impl FnMut(MergeRequest)) {
        let batch = self.next..self.next.saturating_add(BATCH_PAGES).min(self.memory.pages());
        let (tried, all_private) = self.share_at_home(&batch);
        let private = self.copy_private(&batch);
        // What is private still was compared in vain; what is not any more was merged.
        members(&batch, tried & private).for_each(|gfn| self.notes.set(gfn, DIFFERS));
        members(&batch, all_private & !private).for_each(|gfn| self.notes.set(gfn, TAKEN));
        self.look_at_copies();
        self.report_holds(send);
        self.next = batch.end;
        let pass_ends = batch.end == self.memory.pages();
        if pass_ends || self.stable.len() + BATCH_PAGES as usize > BATCH_MAX {
            self.tell(send);
        }
        if pass_ends {
            self.end_pass();
        }
    }

    /// Shares what is published at its own offset; returns the pages this was tried with, and of these the runs that were
    /// private throughout.
    fn share_at_home(&mut self, batch: &Range<u32>) -> (BatchSet, BatchSet) {
        let promising = |&gfn: &u32| {
            let open = self.notes.is_due(gfn, self.pass) && !self.notes.has(gfn, DIFFERS | TAKEN);
            open && self.memory.is_published(gfn)
        };
        let tried = batch.clone().filter(promising).fold(0, |set, gfn| set | bit(batch, gfn));
        let mut all_private = 0;
        for run in ranges(batch, tried) {
            let outcome = self.memory.share(run.start, run.start, run.end - run.start);
            self.status.merged_same_address_total += u64::from(outcome.shared);
            self.found.progress += u64::from(outcome.shared);
            if outcome.not_private == 0 {
                all_private = run.fold(all_private, |set, gfn| set | bit(batch, gfn));
            }
        }
        (tried, all_private)
    }

    /// Copies the batch's private pages that are due, drops those that are zero, and returns both.
    fn copy_private(&mut self, batch: &Range<u32>) -> BatchSet {
        let due = batch.clone().filter(|&gfn| self.notes.is_due(gfn, self.pass));
        let due = due.fold(0, |set, gfn| set | bit(batch, gfn));
        let (mut private, mut zero): (BatchSet, BatchSet) = (0, 0);
        self.copies.clear();
        for run in ranges(batch, due) {
            self.memory.visit_private(run, &mut |gfn, page| {
                private |= bit(batch, gfn);
                if is_zero(page) { zero |= bit(batch, gfn) } else { self.copies.push(gfn, page) }
            });
        }
        self.found.private += u64::from(private.count_ones());
        for gfn in members(batch, private) {
            self.notes.found_private(gfn);
        }
        for run in ranges(batch, zero) {
            let dropped = self.memory.drop_zero(run.clone());
            self.status.merged_zero_total += u64::from(dropped);
            self.found.progress += u64::from(dropped);
            let all = dropped == run.end - run.start;
            for gfn in run {
                self.notes.forget(gfn);
                if all {
                    self.notes.set(gfn, TAKEN);
                }
            }
        }
        private
    }

    /// Hashes the copies and queues what is stable.
    fn look_at_copies(&mut self) {
        let hashes = self.hasher.hash_all(&self.copies.pages);
        self.status.hashed_total += hashes.len() as u64;
        for (&gfn, hash) in self.copies.gfns.iter().zip(hashes) {
            match self.notes.see(gfn, hash) {
                Seen::New => self.found.progress += 1,
                Seen::Changed => self.unmerged.volatile += 1,
                Seen::Stable => {
                    let over_budget = self.notes.has(gfn, OVER_BUDGET);
                    *(if over_budget { &mut self.unmerged.over_budget } else { &mut self.unmerged.unique }) += 1;
                    let told = self.notes.has(gfn, TOLD);
                    // Whole batches together, so that runs stay together.
                    if !told || (self.pass + u64::from(gfn / BATCH_PAGES)).is_multiple_of(RETELL_PASSES) {
                        self.notes.set(gfn, TOLD);
                        self.found.progress += u64::from(!told);
                        self.stable.push((gfn, hash));
                    }
                }
            }
        }
    }

    fn end_pass(&mut self) {
        let found = std::mem::take(&mut self.found);
        let unmerged = std::mem::take(&mut self.unmerged);
        self.pace.pass_ended(found);
        self.status.passes_total += 1;
        self.status.unmerged_volatile = unmerged.volatile;
        self.status.unmerged_unique = unmerged.unique;
        self.status.unmerged_vma_budget = unmerged.over_budget;
        self.pass += 1;
        self.next = 0;
        if self.pass.is_multiple_of(RELAX_PASSES) {
            self.notes.relax();
        }
    }

    fn tell(&mut self, send: &mut impl FnMut(MergeRequest)) {
        if !self.stable.is_empty() {
            send(MergeRequest::Hashes(std::mem::take(&mut self.stable)));
        }
    }

    fn share(&mut self, run: Run) {
        let ShareOutcome { shared, different, refused, .. } = self.memory.share(run.gfn, run.frame, run.count);
        let merged = if run.gfn == run.frame {
            &mut self.status.merged_same_address_total
        } else {
            &mut self.status.merged_alias_total
        };
        *merged += u64::from(shared);
        self.status.mismatches_total += u64::from(different);
        self.found.progress += u64::from(shared);
        for gfn in run.gfn..run.gfn + run.count {
            if refused > 0 {
                self.notes.set(gfn, OVER_BUDGET);
            } else if shared == run.count {
                self.notes.set(gfn, TAKEN);
            }
        }
    }

    /// Sends the pages that are wanted. One that has changed, or is not private any more, is sent without bytes.
    fn publish(&mut self, wanted: &[(u32, u32)], send: &mut impl FnMut(MergeRequest)) {
        for batch in wanted.chunks(PAGES_MAX) {
            let page = |&(gfn, frame): &(u32, u32)| {
                let mut bytes = Vec::new();
                if gfn < self.memory.pages() {
                    self.memory.visit_private(gfn..gfn + 1, &mut |gfn, page: &PageBytes| {
                        if self.notes.matches(gfn, self.hasher.hash(page)) {
                            bytes = page.to_vec();
                        }
                    });
                }
                Page { gfn, frame, bytes }
            };
            let pages: Vec<Page> = batch.iter().map(page).collect();
            let sent = pages.iter().filter(|page| !page.bytes.is_empty()).count() as u64;
            self.status.published_total += sent;
            self.found.progress += sent;
            send(MergeRequest::Pages(pages));
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

fn bit(batch: &Range<u32>, gfn: u32) -> BatchSet {
    1 << (gfn - batch.start)
}

fn members(batch: &Range<u32>, set: BatchSet) -> impl Iterator<Item = u32> {
    let start = batch.start;
    (0..BATCH_PAGES).filter(move |at| set >> at & 1 != 0).map(move |at| start + at)
}

/// The members of a set as ranges of neighbours.
fn ranges(batch: &Range<u32>, set: BatchSet) -> impl Iterator<Item = Range<u32>> + use<> {
    let (start, mut left) = (batch.start, set);
    std::iter::from_fn(move || {
        let first = (left != 0).then(|| left.trailing_zeros())?;
        let count = (left >> first).trailing_ones();
        left &= BatchSet::MAX.checked_shl(first + count).unwrap_or(0);
        Some(start + first..start + first + count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_splits_into_its_ranges() {
        let batch = 1000..1128;
        let set = |set| ranges(&batch, set).collect::<Vec<_>>();
        assert_eq!(set(0), []);
        assert_eq!(set(BatchSet::MAX), std::slice::from_ref(&batch));
        assert_eq!(set(0b1011 | 1 << 127), [1000..1002, 1003..1004, 1127..1128]);
        let all: Vec<u32> = set(0xf0f5 << 40).into_iter().flatten().collect();
        assert_eq!(all, members(&batch, 0xf0f5 << 40).collect::<Vec<_>>());
    }
}
