//! What each lever costs on one guest, measured while it works: once a second, what it won, the CPU time that
//! took, what of it was back soon, and what the guest waited for that.
//!
//! | lever | pages won | CPU time | back soon | waited |
//! |---|---|---|---|---|
//! | reported free | reported, or hinted; held | device thread, by queues | touched in 2 eras | new pages |
//! | zero | found to be zero | scanner, its part by pages won | the same | the same |
//! | same address, alias | merged | the same | breaks, their part | waits for frames and copies |
//! | balloon | given up, and held | device thread, by queues | touched in 2 eras | as for reported |
//! | compress | evicted, and not to the disk | evictor, by pages moved | refaults | for the pool, per page |
//! | swap | written | the same | refaults from the file | for the file, per page |
//!
//! How fast a lever is shows only while it has work to do: the balloon while it is below what it was asked
//! for, eviction while the guest may be using more than its allocation. What the guest itself spends on
//! giving a page up is not seen.

use std::time::Duration;

use control::GuestStatus;
use policy::levers::{Lever, Price, Work};
use policy::means::{CHOICES, Mean, Means};
use wire::PAGE_BYTES;

/// How often prices are measured.
const INTERVAL: Duration = Duration::from_secs(1);
/// The balloon has work to do while this part of RAM, or more, is still wanted.
const BALLOON_BEHIND_DIVISOR: u64 = 128;
/// A tick, for which policy wants to know how fast levers are.
const TICKS_PER_SECOND: f64 = 10.0;

/// One guest's prices.
#[derive(Clone, Debug)]
pub(crate) struct Prices {
    prices: [Price; Lever::ALL.len()],
    before: Option<GuestStatus>,
    elapsed: Duration,
    balloon_busy: Duration,
    evictor_busy: Duration,
}

impl Default for Prices {
    fn default() -> Self {
        let prices = Lever::ALL.map(Price::estimated);
        let elapsed = Duration::ZERO;
        Prices { prices, before: None, elapsed, balloon_busy: elapsed, evictor_busy: elapsed }
    }
}

/// What one lever is known to cost, and what it could win.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeverFigures {
    /// Which.
    pub lever: Lever,
    /// Its price.
    pub price: Price,
    /// What it could win now, bytes; none where that depends on what other guests hold.
    pub available_bytes: Option<u64>,
}

/// What each lever costs on one guest.
pub type GuestLevers = [LeverFigures; Lever::ALL.len()];

impl Prices {
    /// Takes a status into account, `elapsed` after the last.
    pub(crate) fn update(&mut self, status: &GuestStatus, elapsed: Duration) {
        let (balloon, pager) = (&status.balloon, &status.pager);
        self.elapsed += elapsed;
        if balloon.requested_bytes > balloon.actual_bytes + status.memory_bytes / BALLOON_BEHIND_DIVISOR {
            self.balloon_busy += elapsed;
        }
        if pager.committed_bytes > pager.allocation_bytes {
            self.evictor_busy += elapsed;
        }
        if self.elapsed < INTERVAL && self.before.is_some() {
            return;
        }
        if let Some(before) = &self.before {
            for (price, (lever, work)) in self.prices.iter_mut().zip(works(before, status)) {
                let busy = match lever {
                    Lever::Balloon => self.balloon_busy,
                    Lever::Compress | Lever::Swap => self.evictor_busy,
                    _ => self.elapsed,
                };
                price.measure(&work, busy.as_secs_f64());
            }
        }
        self.before = Some(status.clone());
        (self.elapsed, self.balloon_busy, self.evictor_busy) = Default::default();
    }

    /// By what the guest could give memory now. `active_ratio`: the share of its memory that is in use, if
    /// that is known; `ballooned`: whether its balloon gives what it is asked for, down to `floor_bytes`.
    pub(crate) fn means(
        &self,
        status: &GuestStatus,
        active_ratio: Option<f64>,
        ballooned: bool,
        floor_bytes: u64,
    ) -> Means {
        let page_bytes = PAGE_BYTES as u64;
        let private_bytes = status.pager.pages.private * page_bytes;
        // Nobody knows which are idle; so many of them are.
        let idle_bytes = (private_bytes as f64 * (1.0 - active_ratio.unwrap_or(0.5).clamp(0.0, 1.0))) as u64;
        let swap = &status.pager.swap;
        let free_bytes = if swap.suspended { 0 } else { swap.capacity_bytes.saturating_sub(swap.used_bytes) };
        let given = status.balloon.actual_bytes.saturating_add(floor_bytes);
        let available = |lever| match lever {
            Lever::Balloon if ballooned && status.balloon.driver_ok => status.memory_bytes.saturating_sub(given),
            Lever::Compress => idle_bytes,
            Lever::Swap => idle_bytes.min(free_bytes),
            _ => 0,
        };
        let mean = |lever: Lever| {
            let price = &self.prices[lever as usize];
            let per_tick = |pages: f64| (pages / TICKS_PER_SECOND * page_bytes as f64) as u64;
            Mean {
                available_bytes: available(lever),
                per_page_us: price.per_page_us(),
                bytes_per_tick: price.pages_per_second().map(per_tick),
            }
        };
        Means(CHOICES.map(mean))
    }

    /// All prices, with what the levers among which there is a choice could win.
    pub(crate) fn figures(&self, means: &Means) -> GuestLevers {
        Lever::ALL.map(|lever| {
            let choice = CHOICES.iter().position(|&choice| choice == lever);
            let available_bytes = choice.map(|at| means.0[at].available_bytes);
            LeverFigures { lever, price: self.prices[lever as usize], available_bytes }
        })
    }
}

/// What each lever did between two statuses, in the order of [`Lever::ALL`].
fn works(before: &GuestStatus, now: &GuestStatus) -> [(Lever, Work); Lever::ALL.len()] {
    let grown = |of: fn(&GuestStatus) -> u64| of(now).saturating_sub(of(before));
    let us = |ns: u64| ns as f64 / 1e3;
    let part = |whole: f64, part: u64, of: u64| if of == 0 { 0.0 } else { whole * part.min(of) as f64 / of as f64 };

    let reported = grown(|status| status.pager.reported.pages_total);
    let reported_back = grown(|status| status.pager.reported.back_soon_total);
    let ballooned = grown(|status| status.pager.ballooned.pages_total);
    let ballooned_back = grown(|status| status.pager.ballooned.back_soon_total);
    let zeroed = grown(|status| status.pager.zeroed.pages_total);
    let zeroed_back = grown(|status| status.pager.zeroed.back_soon_total);
    let fresh_us = us(grown(|status| status.pager.stall.fresh_ns));
    let fresh_faults = grown(|status| status.pager.faults_missing_total);
    let fresh = |back| part(fresh_us, back, fresh_faults);

    let same = grown(|status| status.dedup.merged_same_address_total);
    let alias = grown(|status| status.dedup.merged_alias_total);
    let merged = same + alias;
    let scanner_us = us(grown(|status| status.dedup.cpu_ns));
    let scanned = merged + grown(|status| status.dedup.merged_zero_total);
    let breaks = grown(|status| status.pager.breaks_total);
    let sharing_us = us(grown(|status| status.pager.stall.shared_ns + status.pager.stall.broken_ns));
    // Nobody remembers how a page that broke was shared.
    let sharing = |pages: u64| Work {
        pages,
        cpu_us: part(scanner_us, pages, scanned),
        returned: part(breaks as f64, pages, merged) as u64,
        stall_us: part(sharing_us, pages, merged),
    };

    let written = grown(|status| status.pager.swap.pages_out_total);
    let evicted = grown(|status| status.pager.evictions_total).saturating_sub(written);
    let evictor_us = us(grown(|status| status.pager.evict_cpu_ns));
    let read = grown(|status| status.pager.swap.pages_in_total);
    let promoted = grown(|status| status.pager.promotions_total).saturating_sub(read);
    let refaults_swapped = grown(|status| status.pager.refaults_swapped_total);
    let refaults = grown(|status| status.pager.refaults_total).saturating_sub(refaults_swapped);
    let compressed_us = us(grown(|status| status.pager.stall.compressed_ns));
    let swapped_us = us(grown(|status| status.pager.stall.swapped_ns));
    let work = |pages, cpu_us, returned, stall_us| Work { pages, cpu_us, returned, stall_us };
    let reporting_us = us(grown(|status| status.balloon.report_cpu_ns));
    let inflating_us = us(grown(|status| status.balloon.inflate_cpu_ns));
    [
        (Lever::ReportedFree, work(reported, reporting_us, reported_back, fresh(reported_back))),
        (Lever::Zero, work(zeroed, part(scanner_us, zeroed, scanned), zeroed_back, fresh(zeroed_back))),
        (Lever::SameAddress, sharing(same)),
        (Lever::Alias, sharing(alias)),
        (Lever::Balloon, work(ballooned, inflating_us, ballooned_back, fresh(ballooned_back))),
        (Lever::Compress, {
            let cpu_us = part(evictor_us, evicted, evicted + written);
            work(evicted, cpu_us, refaults, part(compressed_us, refaults, promoted))
        }),
        (Lever::Swap, {
            let cpu_us = part(evictor_us, written, evicted + written);
            work(written, cpu_us, refaults_swapped, part(swapped_us, refaults_swapped, read))
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const TICK: Duration = Duration::from_millis(100);

    fn price(prices: &Prices, lever: Lever) -> f64 {
        prices.prices[lever as usize].per_page_us()
    }

    /// Ten ticks a second, in each of which the status changes so.
    fn seconds(prices: &mut Prices, status: &mut GuestStatus, seconds: u32, change: impl Fn(&mut GuestStatus)) {
        for _ in 0..seconds * 10 {
            change(status);
            prices.update(status, TICK);
        }
    }

    #[test]
    fn a_balloon_whose_pages_come_back_grows_dear_and_the_pool_is_asked_instead() {
        let (mut prices, mut status) = (Prices::default(), GuestStatus::default());
        status.memory_bytes = 256 * MIB;
        status.pager.pages.private = 40_000;
        status.balloon.driver_ok = true;
        status.balloon.requested_bytes = 100 * MIB;
        let means = |prices: &Prices, status: &GuestStatus| prices.means(status, Some(0.25), true, 16 * MIB);
        assert_eq!(means(&prices, &status).mix(4 * MIB), [4 * MIB, 0, 0]);
        seconds(&mut prices, &mut status, 30, |status| {
            status.pager.ballooned.pages_total += 100;
            status.pager.ballooned.back_soon_total += 80;
            status.pager.faults_missing_total += 80;
            status.pager.stall.fresh_ns += 80 * 65_000;
            status.balloon.inflate_cpu_ns += 100 * 3_000;
            status.pager.evictions_total += 200;
            status.pager.evict_cpu_ns += 200 * 5_000;
        });
        let balloon = price(&prices, Lever::Balloon);
        assert!((balloon - (3.0 + 0.8 * 65.0) / 0.2).abs() < 20.0, "{balloon} µs");
        let compress = price(&prices, Lever::Compress);
        assert!((compress - 5.0).abs() < 0.5, "{compress} µs");
        assert_eq!(means(&prices, &status).mix(4 * MIB), [0, 4 * MIB, 0]);
        let rate = prices.prices[Lever::Balloon as usize].pages_per_second().unwrap();
        assert!((rate - 1000.0).abs() < 100.0, "{rate} pages a second");
        assert_eq!(prices.prices[Lever::Compress as usize].pages_per_second(), None, "it had no need to hurry");
    }

    #[test]
    fn what_is_written_to_the_disk_is_not_the_pool_s() {
        let (mut prices, mut status) = (Prices::default(), GuestStatus::default());
        seconds(&mut prices, &mut status, 30, |status| {
            status.pager.evictions_total += 300;
            status.pager.swap.pages_out_total += 100;
            status.pager.evict_cpu_ns += 300 * 6_000;
            status.pager.promotions_total += 60;
            status.pager.swap.pages_in_total += 50;
            status.pager.refaults_total += 50;
            status.pager.refaults_swapped_total += 50;
            status.pager.stall.swapped_ns += 50 * 200_000;
        });
        let (compress, swap) = (price(&prices, Lever::Compress), price(&prices, Lever::Swap));
        assert!(
            (compress - 6.0).abs() < 0.5 && (swap - (6.0 + 0.5 * 200.0) / 0.5).abs() < 15.0,
            "{compress}, {swap} µs"
        );
    }

    #[test]
    fn a_guest_that_starts_anew_and_absurd_figures_change_no_price_for_the_worse() {
        let (mut prices, mut status) = (Prices::default(), GuestStatus::default());
        seconds(&mut prices, &mut status, 5, |status| status.pager.evictions_total += 1000);
        let before = prices.prices;
        seconds(&mut prices, &mut GuestStatus::default(), 2, |_| {});
        assert_eq!(prices.prices, before);
        status.balloon.actual_bytes = u64::MAX;
        assert_eq!(prices.means(&status, Some(f64::NAN), true, u64::MAX).0[0].available_bytes, 0);
    }

    #[test]
    fn a_stuck_balloon_and_a_suspended_file_offer_nothing() {
        let mut status = GuestStatus { memory_bytes: 256 * MIB, ..GuestStatus::default() };
        status.balloon.driver_ok = true;
        status.pager.pages.private = 10_000;
        status.pager.swap.capacity_bytes = 256 * MIB;
        let available = |status: &GuestStatus, ballooned| {
            Prices::default().means(status, Some(0.5), ballooned, 0).0.map(|mean| mean.available_bytes > 0)
        };
        assert_eq!(available(&status, true), [true, true, true]);
        status.pager.swap.suspended = true;
        assert_eq!(available(&status, false), [false, true, false]);
    }
}
