//! Free pages that the host is told of: ranges set aside for reports until the host has seen them, and for
//! hints until the host is done.

use core::ops::Range;

use super::kind::Kind;
use super::{Allocator, set_bit};
use crate::virtio::balloon::REPORT_RUN_MIN;

/// Longest range in a report: 2 MiB, what Linux reports at most (`pageblock_order`).
pub const REPORT_RUN_MAX: u32 = 512;
/// Most pages one search for report ranges looks at: it runs under the lock.
const REPORT_SCAN_PAGES: u32 = 1 << 20;

impl Allocator {
    /// Sets ranges of free pages aside that the host does not know of, at most `pages_max` pages. Says how
    /// many ranges.
    pub fn take_for_report(&mut self, pages_max: u32, ranges: &mut [Range<u32>]) -> usize {
        let end = self.pages.min(self.report_hand.saturating_add(REPORT_SCAN_PAGES));
        let (mut taken, mut pages_left) = (0, pages_max);
        while taken < ranges.len() && pages_left >= REPORT_RUN_MIN {
            let Some(run) = self.free_run(self.report_hand, end, true) else {
                self.report_hand = if end == self.pages { 0 } else { end };
                break;
            };
            let length = (run.end - run.start).min(REPORT_RUN_MAX).min(pages_left);
            let range = run.start..run.start + length;
            self.report_hand = range.end;
            if length >= REPORT_RUN_MIN {
                range.clone().for_each(|gfn| self.set(gfn, Kind::Reporting, 0));
                pages_left -= length;
                ranges[taken] = range;
                taken += 1;
            }
        }
        taken
    }

    /// From now on all free pages are to be hinted at once more.
    pub fn begin_hints(&mut self) {
        self.hint_hand = 0;
    }

    /// Sets the next ranges of free pages aside as [`Kind::Hinted`], those that the host knows of left out.
    /// Says how many ranges; 0 at the end.
    pub fn take_for_hint(&mut self, ranges: &mut [Range<u32>]) -> usize {
        let end = self.pages.min(self.hint_hand.saturating_add(REPORT_SCAN_PAGES));
        let mut taken = 0;
        while taken < ranges.len() {
            let Some(run) = self.free_run(self.hint_hand, end, true) else {
                self.hint_hand = end;
                break;
            };
            let range = run.start..run.end.min(run.start + REPORT_RUN_MAX);
            self.hint_hand = range.end;
            if range.end - range.start >= REPORT_RUN_MIN {
                range.clone().for_each(|gfn| self.set(gfn, Kind::Hinted, 0));
                ranges[taken] = range;
                taken += 1;
            }
        }
        taken
    }

    /// Whether there may be more to hint at.
    pub fn has_hints(&self) -> bool {
        self.hint_hand < self.pages
    }

    /// Frees up to `pages_max` pages that were hinted at. Whoever gets one must write to it before it reads
    /// (5.5.6.5.1), as with all free pages.
    pub fn release_hinted(&mut self, pages_max: u32) {
        let mut left = pages_max.min(self.count(Kind::Hinted));
        for gfn in 0..self.pages {
            if left == 0 {
                break;
            }
            if self.kind(gfn) == Kind::Hinted {
                self.set(gfn, Kind::Free, 0);
                left -= 1;
            }
        }
    }

    /// The host has seen this range's report.
    pub fn report_done(&mut self, range: Range<u32>) {
        self.reported_total += u64::from(range.end - range.start);
        for gfn in range {
            assert!(self.kind(gfn) == Kind::Reporting, "a page left a report under way");
            self.set(gfn, Kind::Free, 0);
            set_bit(&self.reported, gfn, true);
        }
    }
}
