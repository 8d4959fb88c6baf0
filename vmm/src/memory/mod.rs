//! Guest memory as the devices and the scanner want it: the pager behind their own traits.

mod image;
mod layout;
mod report_pace;

use std::{ops::Range, sync::Arc, time::Instant};

use balloon::{PageSink, RamLayout};
use dedup::{Backing, ScanMemory};
use pager::{GuestMemory, State};
use wire::{Frame, Gfn, PageBytes, Run, Sharing};

pub use self::{image::Image, layout::Layout, report_pace::ReportPace};
use crate::failure::Failures;

/// The pager, for devices and the scanner. A page that the pager cannot move ends the guest; what is returned
/// then no longer matters.
#[derive(Clone)]
pub struct GuestPages {
    memory: Arc<GuestMemory>,
    layout: Layout,
    failures: Failures,
    reports: Arc<ReportPace>,
    start: Instant,
}

impl GuestPages {
    /// Of `memory`, which the guest finds where `layout` says, telling `failures` of what ends the guest.
    pub fn new(memory: Arc<GuestMemory>, layout: Layout, failures: Failures) -> Self {
        Self { memory, layout, failures, reports: Arc::default(), start: Instant::now() }
    }

    /// Which reported pages are taken.
    pub fn reports(&self) -> &Arc<ReportPace> {
        &self.reports
    }

    /// How many pages RAM has.
    pub fn count(&self) -> u32 {
        self.memory.pages().count()
    }

    /// The frames that they are for the guest.
    pub fn frames(&self) -> RamLayout {
        self.layout.frames()
    }

    /// The pages of frames that the balloon has checked.
    fn run(&self, frames: Range<u32>) -> Run {
        Run::from_range(self.layout.pages(frames))
    }

    fn all(&self) -> Run {
        Run::from_range(0..self.count())
    }

    fn or_fail<T: Default>(&self, result: Result<T, pager::Error>) -> T {
        result.unwrap_or_else(|error| {
            self.failures.report(error.to_string());
            T::default()
        })
    }
}

impl PageSink for GuestPages {
    fn inflate(&self, range: Range<u32>) {
        self.or_fail(self.memory.pages().inflate(self.run(range)));
    }

    fn deflate(&self, range: Range<u32>) {
        self.memory.pages().deflate(self.run(range));
    }

    fn report_free(&self, range: Range<u32>, fill: u32) {
        let taken = self.reports.takes(range.len() as u32, self.start.elapsed().as_millis() as u64);
        if taken == 0 {
            return;
        }
        let range = range.start..range.start + taken;
        self.or_fail(self.memory.pages().report_free(self.run(range), fill));
    }

    fn watch(&self) {
        self.or_fail(self.memory.pages().watch(self.all()));
    }

    fn drop_hinted(&self, range: Range<u32>, fill: u32) -> u32 {
        self.or_fail(self.memory.pages().drop_hinted(self.run(range), fill))
    }

    fn unwatch(&self) {
        self.or_fail(self.memory.pages().unwatch(self.all()));
    }
}

impl ScanMemory for GuestPages {
    fn pages(&self) -> u32 {
        self.count()
    }

    fn populated_pages(&self) -> u64 {
        let pages = self.memory.pages().counts();
        pages.private + pages.shared
    }

    fn backing(&self, gfn: Gfn) -> Backing {
        match self.memory.pages().state(gfn) {
            State::Private => Backing::Private,
            State::Shared => Backing::Shared,
            State::Compressed if self.memory.pages().is_pooled(gfn) => Backing::Pooled,
            State::Zero | State::Ballooned | State::Compressed | State::Swapped | State::Clean => Backing::Other,
        }
    }

    fn sample_private(&self, run: Run, visit: &mut dyn FnMut(Gfn, u64)) {
        self.memory.pages().sample_private(run, visit);
    }

    fn seen(&self, gfns: &[Gfn]) {
        self.memory.pages().seen(gfns.iter().copied());
    }

    fn read_held(&self, gfn: Gfn, into: &mut PageBytes) -> bool {
        self.memory.pages().read_held(gfn, into)
    }

    fn share(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing)) {
        self.or_fail(self.memory.pages().share(pairs, report));
    }

    fn drop_zero(&self, run: Run) -> u32 {
        self.or_fail(self.memory.pages().drop_zero(run))
    }

    fn reclaim_areas(&self, most: u32) -> u32 {
        let pages = self.memory.pages();
        if pages.areas_run_short() { self.or_fail(pages.reclaim_areas(most)) } else { 0 }
    }

    fn rest(&self) {
        self.memory.pages().forget_frames();
    }

    fn is_published(&self, frame: Frame) -> bool {
        self.memory.pages().published(frame)
    }

    fn take_hold_changes(&self, most: usize, report: &mut dyn FnMut(Frame, bool)) {
        self.memory.pages().references().take_changes(most, report);
    }

    fn holds(&self, frame: Frame) -> bool {
        self.memory.pages().references().answer(frame)
    }
}
