//! Which memory to take when some is wanted: the cheapest mix, by prices measured on this very host.
//!
//! A lever's price has two parts: what it costs to win a page (CPU time of whoever does it), and what it
//! costs the guest if it wants the page back (stall, times how often that happens). Both are measured while
//! the levers work; before, estimates stand in. A page that would come back at once is worth nothing, so the
//! price is per page that *stays* away:
//!
//! ```text
//!   price = (win + return × stall) / (1 − return)      return: share of pages back within two eras (8 s)
//! ```
//!
//! Free pages that guests report, and pages found to be zero, cost no decision: they go as they are found.

use std::fmt;

/// A way to win memory, in the order in which they are usually cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lever {
    /// Pages the guest said are free.
    ReportedFree,
    /// Pages that are all zero.
    Zero,
    /// Sharing with the frame at the page's own address.
    SameAddress,
    /// Sharing with a frame elsewhere.
    Alias,
    /// Pages the guest chooses to give up.
    Balloon,
    /// Pages compressed in memory.
    Compress,
    /// Pages written to disk.
    Swap,
}

impl Lever {
    /// All, in order.
    pub const ALL: [Lever; 7] = [
        Lever::ReportedFree,
        Lever::Zero,
        Lever::SameAddress,
        Lever::Alias,
        Lever::Balloon,
        Lever::Compress,
        Lever::Swap,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Lever::ReportedFree => "reported_free",
            Lever::Zero => "zero",
            Lever::SameAddress => "same_address",
            Lever::Alias => "alias",
            Lever::Balloon => "balloon",
            Lever::Compress => "compress",
            Lever::Swap => "swap",
        }
    }

    /// What winning a page costs and what its return costs, µs, until that has been measured here: the
    /// figures of a nested KVM, see `docs/benchmarks.md`. What swapping costs is an SSD's.
    fn estimate(self) -> (f64, f64) {
        match self {
            Lever::ReportedFree => (0.2, 12.0),
            Lever::Zero => (0.5, 12.0),
            Lever::SameAddress => (0.8, 65.0),
            Lever::Alias => (4.0, 65.0),
            Lever::Balloon => (3.0, 65.0),
            Lever::Compress => (4.0, 70.0),
            Lever::Swap => (10.0, 250.0),
        }
    }
}

impl fmt::Display for Lever {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Weight of what was measured last.
const SMOOTHING: f64 = 0.2;
/// Fewer pages than this say nothing about a price.
const PAGES_MIN: u64 = 16;
/// A page is never counted as more likely to come back than this: a lever that wins nothing is dear, not
/// infinitely so.
const RETURN_MAX: f64 = 0.95;

/// What one lever did in a while, on one guest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Pages it won.
    pub pages: u64,
    /// CPU time that took, µs.
    pub cpu_us: f64,
    /// Pages won by it that came back soon.
    pub returned: u64,
    /// What the guest waited for them, µs.
    pub stall_us: f64,
}

/// What a lever costs on one guest, as measured so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    win_us: f64,
    stall_us: f64,
    returns: f64,
    /// Pages a second that it has won while it had work to do.
    rate: Option<f64>,
}

impl Price {
    /// Before anything was measured.
    pub fn estimated(lever: Lever) -> Price {
        let (win_us, stall_us) = lever.estimate();
        Price { win_us, stall_us, returns: 0.0, rate: None }
    }

    /// Takes what was measured into account; `busy_seconds` of that the lever had work to do, or it says
    /// nothing about how fast it is. What makes no sense is left out.
    pub fn measure(&mut self, work: &Work, busy_seconds: f64) {
        let blend =
            |old: f64, new: f64| if new.is_finite() && new >= 0.0 { old + SMOOTHING * (new - old) } else { old };
        if work.pages >= PAGES_MIN {
            self.win_us = blend(self.win_us, work.cpu_us / work.pages as f64);
            self.returns = blend(self.returns, (work.returned as f64 / work.pages as f64).min(1.0));
            if busy_seconds > 0.0 {
                let rate = work.pages as f64 / busy_seconds;
                self.rate = Some(self.rate.map_or(rate, |old| blend(old, rate))).filter(|rate| rate.is_finite());
            }
        }
        if work.returned >= PAGES_MIN {
            self.stall_us = blend(self.stall_us, work.stall_us / work.returned as f64);
        }
    }

    /// CPU time of winning a page, µs.
    pub fn win_us(&self) -> f64 {
        self.win_us
    }

    /// What a page that comes back costs its guest, µs.
    pub fn stall_us(&self) -> f64 {
        self.stall_us
    }

    /// Share of pages that are back soon, 0 to 1.
    pub fn returns(&self) -> f64 {
        self.returns
    }

    /// µs for each page that stays away.
    pub fn per_page_us(&self) -> f64 {
        let returns = self.returns.min(RETURN_MAX);
        (self.win_us + returns * self.stall_us) / (1.0 - returns)
    }

    /// Pages a second it has been seen to win; none before it was used.
    pub fn pages_per_second(&self) -> Option<f64> {
        self.rate
    }
}

/// What one lever could win from one guest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Place of the guest in the caller's list.
    pub guest: usize,
    /// By what.
    pub lever: Lever,
    /// At most so many pages.
    pub pages: u64,
    /// At this price; not a number counts as the dearest.
    pub per_page_us: f64,
}

/// One part of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Place of the guest in the caller's list.
    pub guest: usize,
    /// By what.
    pub lever: Lever,
    /// So many pages.
    pub pages: u64,
}

/// The cheapest way to win `wanted` pages, cheapest part first; all offers if they are not enough. As prices
/// are linear, taking offers in the order of their prices is optimal.
pub fn plan(wanted: u64, offers: &[Offer]) -> Vec<Order> {
    let mut sorted: Vec<&Offer> = offers.iter().filter(|offer| offer.pages > 0).collect();
    let price = |offer: &Offer| if offer.per_page_us.is_nan() { f64::INFINITY } else { offer.per_page_us };
    sorted.sort_by(|a, b| price(a).total_cmp(&price(b)).then(a.lever.cmp(&b.lever)));
    let mut left = wanted;
    let take = |offer: &Offer| {
        let pages = offer.pages.min(left);
        left -= pages;
        (pages > 0).then_some(Order { guest: offer.guest, lever: offer.lever, pages })
    };
    sorted.into_iter().map_while(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(guest: usize, lever: Lever, pages: u64, per_page_us: f64) -> Offer {
        Offer { guest, lever, pages, per_page_us }
    }

    #[test]
    fn before_anything_is_measured_levers_cost_what_their_order_says() {
        let prices = Lever::ALL.map(|lever| Price::estimated(lever).per_page_us());
        let dear = prices.iter().filter(|&&price| price >= Price::estimated(Lever::Compress).per_page_us());
        assert!(prices[0] < prices[2] && prices[2] < prices[5] && prices[5] < prices[6]);
        assert!(dear.count() <= 3);
    }

    #[test]
    fn a_shortfall_takes_the_cheapest_mix() {
        let offers = [
            offer(0, Lever::Swap, 1000, 250.0),
            offer(0, Lever::Balloon, 100, 9.0),
            offer(1, Lever::Balloon, 100, 2.0),
            offer(1, Lever::Compress, 1000, 5.0),
        ];
        let order = |guest, lever, pages| Order { guest, lever, pages };
        assert_eq!(plan(150, &offers), [order(1, Lever::Balloon, 100), order(1, Lever::Compress, 50)]);
        assert_eq!(plan(0, &offers), []);
        assert_eq!(plan(u64::MAX, &offers).iter().map(|order| order.pages).sum::<u64>(), 2200);
    }

    #[test]
    fn a_lever_whose_pages_come_back_grows_dear() {
        let mut price = Price::estimated(Lever::Balloon);
        let cheap = price.per_page_us();
        let work = Work { pages: 1000, cpu_us: 3000.0, returned: 800, stall_us: 80_000.0 };
        (0..20).for_each(|_| price.measure(&work, 1.0));
        assert!(price.per_page_us() > 50.0 * cheap, "{price:?}");
        assert!(price.pages_per_second().is_some_and(|rate| (rate - 1000.0).abs() < 1.0));
    }

    #[test]
    fn measurements_that_make_no_sense_change_no_price() {
        let mut price = Price::estimated(Lever::Compress);
        let before = price;
        price.measure(&Work { pages: 3, cpu_us: 1e9, returned: 1, stall_us: 1e9 }, 1.0);
        assert_eq!(price, before, "too few pages");
        price.measure(&Work { pages: 100, cpu_us: f64::NAN, returned: 0, stall_us: -1.0 }, 0.0);
        assert_eq!(price.per_page_us(), before.per_page_us());
        assert_eq!(price.pages_per_second(), None);
    }

    proptest! {
        #[test]
        fn no_other_plan_is_cheaper(
            offers in proptest::collection::vec((1u64..50, 0.0f64..100.0), 1..8), wanted in 0u64..300, swap: prop::sample::Index,
        ) {
            let offers: Vec<_> =
                offers.into_iter().enumerate().map(|(guest, (pages, us))| offer(guest, Lever::Compress, pages, us)).collect();
            let orders = plan(wanted, &offers);
            let available: u64 = offers.iter().map(|offer| offer.pages).sum();
            prop_assert_eq!(orders.iter().map(|order| order.pages).sum::<u64>(), wanted.min(available));
            // One page less of any part and one more of any other costs at least as much.
            let taken = |guest| orders.iter().find(|order| order.guest == guest).map_or(0, |order| order.pages);
            let one = &offers[swap.index(offers.len())];
            for other in &offers {
                let can_swap = taken(one.guest) > 0 && taken(other.guest) < other.pages;
                prop_assert!(!can_swap || other.per_page_us >= one.per_page_us);
            }
        }
    }
}
