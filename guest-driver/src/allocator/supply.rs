//! The allocator as the balloon's driver sees it.

use core::ops::Range;

use super::Allocator;
use super::kind::Kind;
use crate::lock::Spinlock;
use crate::virtio::supply::PageSupply;

/// The guest's allocator, once there is one: locked for each call alone.
impl PageSupply for &Spinlock<Option<Allocator>> {
    fn take_for_balloon(&mut self, floor_pages: u32, gfns: &mut [u32]) -> usize {
        with(self, |all| all.take_for_balloon(floor_pages, gfns))
    }

    fn pick_ballooned(&mut self, gfns: &mut [u32]) -> usize {
        with(self, |all| all.pick_ballooned(gfns))
    }

    fn return_ballooned(&mut self, gfns: impl Iterator<Item = u32>) {
        with(self, |all| gfns.for_each(|gfn| all.return_ballooned(gfn)));
    }

    fn statistics(&mut self, into: &mut [(u16, u64)]) -> usize {
        let statistics = with(self, |all| all.statistics());
        into[..statistics.len()].copy_from_slice(&statistics);
        statistics.len()
    }

    fn free_pages(&mut self) -> u32 {
        with(self, |all| all.count(Kind::Free))
    }

    fn take_for_report(&mut self, pages_max: u32, ranges: &mut [Range<u32>]) -> usize {
        with(self, |all| all.take_for_report(pages_max, ranges))
    }

    fn report_done(&mut self, ranges: &[Range<u32>]) {
        with(self, |all| ranges.iter().for_each(|range| all.report_done(range.clone())));
    }

    fn begin_hints(&mut self) {
        with(self, Allocator::begin_hints);
    }

    fn has_hints(&mut self) -> bool {
        with(self, |all| all.has_hints())
    }

    fn take_for_hint(&mut self, ranges: &mut [Range<u32>]) -> usize {
        with(self, |all| all.take_for_hint(ranges))
    }

    fn release_hinted(&mut self) {
        with(self, |all| all.release_hinted(u32::MAX));
    }
}

/// Runs `body` under the lock; the allocator is there before any balloon is.
fn with<R>(allocator: &Spinlock<Option<Allocator>>, body: impl FnOnce(&mut Allocator) -> R) -> R {
    body(allocator.lock().as_mut().expect("the allocator precedes the balloon"))
}
