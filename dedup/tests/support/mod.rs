//! A guest of plain arrays, and a world of such guests around one domain.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by test files that use parts of it, and a failure is a failed test"
)]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use control::merge::{MergeAnswer, MergeRequest};
use dedup::{Backing, Domain, PublishedView, ScanMemory, Scanner, ScannerConfig, VmmId, content_hash, is_zero};
use wire::{Frame, Gfn, PageBytes, Run, Sharing};

pub const PAGE: u64 = 4096;

/// A page with content that no other number has.
pub fn content(number: u64) -> PageBytes {
    let mut page = [0; PAGE as usize];
    for (at, word) in page.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64).to_le_bytes());
    }
    page
}

#[derive(Clone, PartialEq)]
pub enum FakePage {
    Private(Box<PageBytes>),
    Pooled(Box<PageBytes>),
    Shared(Frame),
    Zero,
}

struct Inner {
    pages: Vec<FakePage>,
    references: HashMap<Frame, u32>,
    /// Frames that patches need; the store hears of them only when it asks.
    patched: BTreeSet<Frame>,
    changed: BTreeSet<Frame>,
    alias_runs_left: u32,
    seen: BTreeSet<Gfn>,
}

pub struct FakeGuest {
    view: PublishedView,
    store: File,
    inner: Mutex<Inner>,
}

impl FakeGuest {
    pub fn new(domain: &Domain, pages: impl Iterator<Item = PageBytes>) -> Self {
        let descriptors = domain.descriptors().unwrap();
        let pages = pages.map(|page| FakePage::Private(Box::new(page))).collect();
        let (references, patched, changed, seen) = Default::default();
        Self {
            view: PublishedView::map(descriptors.published, domain.store_frames()).unwrap(),
            store: File::from(descriptors.store),
            inner: Mutex::new(Inner { pages, references, patched, changed, alias_runs_left: u32::MAX, seen }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn frame_bytes(&self, frame: Frame) -> PageBytes {
        let mut page = [0; PAGE as usize];
        self.store.read_exact_at(&mut page, u64::from(frame.0) * PAGE).unwrap();
        page
    }

    /// What the guest reads.
    pub fn read(&self, gfn: u32) -> PageBytes {
        let page = self.inner().pages[gfn as usize].clone();
        match page {
            FakePage::Private(bytes) | FakePage::Pooled(bytes) => *bytes,
            FakePage::Shared(frame) => self.frame_bytes(frame),
            FakePage::Zero => [0; PAGE as usize],
        }
    }

    /// The guest writes: breaks a share.
    pub fn write(&self, gfn: u32, bytes: PageBytes) {
        let inner = &mut *self.inner();
        let old = std::mem::replace(&mut inner.pages[gfn as usize], FakePage::Private(Box::new(bytes)));
        if let FakePage::Shared(frame) = old {
            inner.count(frame, -1);
        }
    }

    /// The pager compresses all that is private.
    pub fn compress(&self) {
        for page in &mut self.inner().pages {
            if let FakePage::Private(bytes) = page {
                *page = FakePage::Pooled(bytes.clone());
            }
        }
    }

    /// The pager makes a page a patch of a frame, or has it back.
    pub fn set_patched(&self, frame: Frame, patched: bool) {
        let inner = &mut *self.inner();
        if patched {
            inner.patched.insert(frame);
        } else {
            inner.patched.remove(&frame);
            inner.changed.insert(frame);
        }
    }

    /// Pages that the scanner said it has dealt with, in all.
    pub fn seen(&self) -> BTreeSet<Gfn> {
        self.inner().seen.clone()
    }

    pub fn set_alias_budget(&self, runs: u32) {
        self.inner().alias_runs_left = runs;
    }

    /// Pages that are (private, shared, zero).
    pub fn counts(&self) -> (usize, usize, usize) {
        let inner = self.inner();
        let count = |is: fn(&FakePage) -> bool| inner.pages.iter().filter(|page| is(page)).count();
        (
            count(|page| matches!(page, FakePage::Private(_))),
            count(|page| matches!(page, FakePage::Shared(_))),
            count(|page| matches!(page, FakePage::Zero)),
        )
    }

    pub fn frames(&self) -> BTreeSet<Frame> {
        self.inner().references.keys().copied().collect()
    }
}

impl Inner {
    fn count(&mut self, frame: Frame, change: i32) {
        let references = self.references.entry(frame).or_default();
        *references = references.checked_add_signed(change).unwrap();
        if *references == 0 {
            self.references.remove(&frame);
        }
        self.changed.insert(frame);
    }
}

impl ScanMemory for FakeGuest {
    fn pages(&self) -> u32 {
        self.inner().pages.len() as u32
    }

    fn populated_pages(&self) -> u64 {
        let (private, shared, _) = self.counts();
        (private + shared) as u64
    }

    fn backing(&self, gfn: Gfn) -> Backing {
        match self.inner().pages[gfn.index()] {
            FakePage::Private(_) => Backing::Private,
            FakePage::Pooled(_) => Backing::Pooled,
            FakePage::Shared(_) => Backing::Shared,
            FakePage::Zero => Backing::Other,
        }
    }

    fn sample_private(&self, run: Run, visit: &mut dyn FnMut(Gfn, u64)) {
        for gfn in run.gfns() {
            if let FakePage::Private(bytes) = &self.inner().pages[gfn.index()] {
                let sample = content_hash(0, bytes);
                visit(gfn, if is_zero(bytes) { 0 } else { sample | 1 });
            }
        }
    }

    fn seen(&self, gfns: &[Gfn]) {
        self.inner().seen.extend(gfns);
    }

    fn read_held(&self, gfn: Gfn, into: &mut PageBytes) -> bool {
        match &self.inner().pages[gfn.index()] {
            FakePage::Private(bytes) | FakePage::Pooled(bytes) => into.copy_from_slice(&**bytes),
            _ => return false,
        }
        true
    }

    fn share(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing)) {
        let inner = &mut *self.inner();
        let follows = |a: &(Gfn, Frame), b: &(Gfn, Frame)| a.0.plus(1) == b.0 && a.1.plus(1) == b.1;
        for run in pairs.chunk_by(follows) {
            if run[0].0.home() != run[0].1 {
                if inner.alias_runs_left == 0 {
                    run.iter().for_each(|&(gfn, _)| report(gfn, Sharing::Refused));
                    continue;
                }
                inner.alias_runs_left -= 1;
            }
            for &(gfn, frame) in run {
                let outcome = match &inner.pages[gfn.index()] {
                    FakePage::Pooled(_) if gfn.home() != frame => Sharing::NotPrivate,
                    FakePage::Private(bytes) | FakePage::Pooled(bytes) => {
                        if self.view.is_published(frame) && self.frame_bytes(frame) == **bytes {
                            inner.pages[gfn.index()] = FakePage::Shared(frame);
                            inner.count(frame, 1);
                            Sharing::Shared
                        } else {
                            Sharing::Different
                        }
                    }
                    _ => Sharing::NotPrivate,
                };
                report(gfn, outcome);
            }
        }
    }

    fn drop_zero(&self, run: Run) -> u32 {
        let inner = &mut *self.inner();
        let mut dropped = 0;
        for page in &mut inner.pages[run.first.index()..][..run.count as usize] {
            if matches!(page, FakePage::Private(bytes) if is_zero(bytes)) {
                *page = FakePage::Zero;
                dropped += 1;
            }
        }
        dropped
    }

    fn reclaim_areas(&self, _most: u32) -> u32 {
        0
    }

    fn is_published(&self, frame: Frame) -> bool {
        self.view.is_published(frame)
    }

    fn take_hold_changes(&self, most: usize, report: &mut dyn FnMut(Frame, bool)) {
        let inner = &mut *self.inner();
        for _ in 0..most {
            let Some(frame) = inner.changed.pop_first() else { return };
            report(frame, inner.references.contains_key(&frame));
        }
    }

    fn holds(&self, frame: Frame) -> bool {
        let inner = self.inner();
        inner.references.contains_key(&frame) || inner.patched.contains(&frame)
    }
}

/// Scans to the end of the pass without a pause.
pub fn scan_pass(scanner: &mut Scanner<&FakeGuest>, mut send: impl FnMut(MergeRequest)) {
    while !scanner.scan_batch(&mut send) {}
}

/// Guests, their scanners, and the domain, all in one thread.
pub struct World<'a> {
    pub domain: &'a Domain,
    pub scanners: Vec<(VmmId, Scanner<&'a FakeGuest>)>,
    pub now: Instant,
}

impl<'a> World<'a> {
    pub fn new(domain: &'a Domain, guests: &'a [FakeGuest]) -> Self {
        let config = ScannerConfig::new(domain.hash_secret());
        let scanner = |(guest, id): (&'a FakeGuest, u32)| {
            domain.vmm_joined(VmmId::first(id), guest.pages()).unwrap();
            (VmmId::first(id), Scanner::new(guest, config))
        };
        Self { domain, scanners: guests.iter().zip(0..).map(scanner).collect(), now: Instant::now() }
    }

    /// One pass of every guest, all messages delivered.
    pub fn pass(&mut self) {
        for at in 0..self.scanners.len() {
            let mut requests = VecDeque::new();
            let (id, scanner) = &mut self.scanners[at];
            scan_pass(scanner, |request| requests.push_back((*id, request)));
            self.exchange(requests);
        }
    }

    /// Time goes by, the store sweeps.
    pub fn sweep(&mut self) {
        for _ in 0..3 {
            self.now += Duration::from_secs(3);
            let answers = self.domain.sweep(self.now);
            let requests = self.deliver(answers);
            self.exchange(requests);
        }
    }

    pub fn deliver(&mut self, answers: Vec<(VmmId, MergeAnswer)>) -> VecDeque<(VmmId, MergeRequest)> {
        let mut requests = VecDeque::new();
        for (to, answer) in answers {
            if let Some((id, scanner)) = self.scanners.iter_mut().find(|(id, _)| *id == to) {
                scanner.on_answer(answer, |request| requests.push_back((*id, request)));
            }
        }
        requests
    }

    fn exchange(&mut self, mut requests: VecDeque<(VmmId, MergeRequest)>) {
        while let Some((from, request)) = requests.pop_front() {
            let answers = self.domain.handle(from, request).unwrap();
            requests.extend(self.deliver(answers));
        }
    }
}
