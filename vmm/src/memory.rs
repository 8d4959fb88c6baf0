//! Guest memory as the devices and the scanner want it: the pager behind their own traits.

use std::{ops::Range, sync::Arc};

use balloon::PageSink;
use dedup::{ScanMemory, ShareOutcome};
use pager::{Frame, Gfn, GuestMemory, PageBytes, Run};

use crate::failure::Failures;

/// The pager, for devices and the scanner. A page that the pager cannot move ends the guest; what is returned then no longer
/// matters.
#[derive(Clone)]
pub struct GuestPages {
    memory: Arc<GuestMemory>,
    failures: Failures,
}

impl GuestPages {
    /// Of `memory`, telling `failures` of what ends the guest.
    pub fn new(memory: Arc<GuestMemory>, failures: Failures) -> Self {
        Self { memory, failures }
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
        self.or_fail(self.memory.pages().inflate(Run::from_range(range)));
    }

    fn deflate(&self, range: Range<u32>) {
        self.memory.pages().deflate(Run::from_range(range));
    }

    fn report_free(&self, range: Range<u32>) {
        self.or_fail(self.memory.pages().report_free(Run::from_range(range)));
    }
}

impl ScanMemory for GuestPages {
    fn pages(&self) -> u32 {
        self.memory.pages().count()
    }

    fn visit_private(&self, range: Range<u32>, visit: &mut dyn FnMut(u32, &PageBytes)) {
        self.memory.pages().visit_private(Run::from_range(range), &mut |gfn, bytes| visit(gfn.0, bytes));
    }

    fn share(&self, gfn: u32, frame: u32, count: u32) -> ShareOutcome {
        let pager::Shared { shared, different, not_private, refused } =
            self.or_fail(self.memory.pages().share(Gfn(gfn), Frame(frame), count));
        ShareOutcome { shared, different, not_private, refused }
    }

    fn drop_zero(&self, range: Range<u32>) -> u32 {
        self.or_fail(self.memory.pages().drop_zero(Run::from_range(range)))
    }

    fn is_published(&self, frame: u32) -> bool {
        self.memory.pages().published(Frame(frame))
    }

    fn take_hold_changes(&self, most: usize, report: &mut dyn FnMut(u32, bool)) {
        self.memory.pages().references().take_changes(most, &mut |frame, held| report(frame.0, held));
    }

    fn holds(&self, frame: u32) -> bool {
        self.memory.pages().references().holds(Frame(frame))
    }
}
