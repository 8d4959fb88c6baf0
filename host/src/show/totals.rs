//! Sums over guests: what the levers won, and what faults cost.

use control::WHOLE_PAGE_PRICE;
use control::status::{GuestStatus, LATENCY_BUCKETS, latency_bound_ns};
use serde::Serialize;
use wire::PAGE_BYTES;

use crate::fleet::guest::View;

const PAGE: u64 = PAGE_BYTES as u64;

/// Memory that guests were promised and do not cost, by what made it so, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reclaimed {
    /// Pages given up by guests that had touched them.
    pub balloon: u64,
    /// Pages shared, less the frames they share.
    pub shared: u64,
    /// Pages that the guests had touched and that are zero again.
    pub zero: u64,
    /// Pages in compressed pools, less the pools.
    pub compressed: u64,
    /// Pages in swap files.
    pub swapped: u64,
    /// Private pages in the kernel's swap, less what they take there.
    pub kernel: u64,
    /// Pages that the images have which guests started from.
    pub clean: u64,
}

impl Reclaimed {
    /// What guests that still exist do not cost at this moment.
    pub fn of(views: &[View], frames_bytes: u64) -> Reclaimed {
        let living = || views.iter().filter(|view| !view.has_ended()).map(|view| &view.status.pager);
        Reclaimed {
            balloon: PAGE * living().map(|pager| pager.ballooned_touched).sum::<u64>(),
            shared: (PAGE * living().map(|pager| pager.pages.shared).sum::<u64>()).saturating_sub(frames_bytes),
            zero: PAGE * living().map(|pager| pager.zero_touched).sum::<u64>(),
            compressed: living().map(|pager| (PAGE * pager.pages.compressed).saturating_sub(pager.pool_bytes)).sum(),
            swapped: PAGE * living().map(|pager| pager.pages.swapped).sum::<u64>(),
            kernel: views.iter().filter(|view| !view.has_ended()).map(kernel_bytes).sum(),
            clean: PAGE * living().map(|pager| pager.pages.clean).sum::<u64>(),
        }
    }

    /// Each mechanism's name and bytes.
    pub fn by_mechanism(&self) -> [(&'static str, u64); 7] {
        let Reclaimed { balloon, shared, zero, compressed, swapped, kernel, clean } = *self;
        [
            ("balloon", balloon),
            ("shared", shared),
            ("zero", zero),
            ("compressed", compressed),
            ("swapped", swapped),
            ("kernel", kernel),
            ("clean", clean),
        ]
    }
}

/// Pages of a guest that are away, less what it is charged for them.
fn kernel_bytes(view: &View) -> u64 {
    let price = view.grant.kernel_page_price.min(WHOLE_PAGE_PRICE);
    view.status.pager.kernel_pages * (PAGE / u64::from(WHOLE_PAGE_PRICE)) * u64::from(WHOLE_PAGE_PRICE - price)
}

/// One figure of the guests' last words, added up.
pub fn sum(views: &[View], figure: impl Fn(&GuestStatus) -> u64) -> u64 {
    views.iter().map(|view| figure(&view.status)).sum()
}

/// Service times of the faults of all guests, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FaultSeconds {
    /// Half of them took at most this long.
    pub p50: f64,
    /// 99 of 100 took at most this long.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl FaultSeconds {
    /// From the guests' histograms; a quantile is the upper bound of its bucket, and never more than the
    /// longest.
    pub fn of(views: &[View]) -> FaultSeconds {
        let mut buckets = [0u64; LATENCY_BUCKETS];
        for view in views {
            for (total, count) in buckets.iter_mut().zip(&view.status.pager.fault_latency) {
                *total += count;
            }
        }
        let max_ns = views.iter().map(|view| view.status.pager.fault_ns_max).max().unwrap_or(0);
        let quantile = |percent| quantile_ns(&buckets, percent).min(max_ns) as f64 / 1e9;
        FaultSeconds { p50: quantile(50), p99: quantile(99), max: max_ns as f64 / 1e9 }
    }
}

/// Upper bound of the bucket that the given per cent of all counts reach; 0 without any.
fn quantile_ns(buckets: &[u64], percent: u64) -> u64 {
    let wanted = (u128::from(buckets.iter().sum::<u64>()) * u128::from(percent)).div_ceil(100);
    if wanted == 0 {
        return 0;
    }
    let mut seen = 0u128;
    let reaches = |&bucket: &usize| {
        seen += u128::from(buckets[bucket]);
        seen >= wanted
    };
    (0..buckets.len()).find(reaches).map_or(u64::MAX, latency_bound_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::orders::Grant;
    use crate::fleet::phase::{End, Phase};
    use control::status::{PageCounts, PagerStatus};

    fn view(phase: Phase, pager: PagerStatus) -> View {
        let status = GuestStatus { pager, ..GuestStatus::default() };
        let grant = Grant { kernel_page_price: 64, ..Grant::default() };
        View { phase, grant, ..View::running("guest0", status) }
    }

    fn pager() -> PagerStatus {
        let pages = PageCounts { shared: 10, compressed: 6, swapped: 2, clean: 1, ..PageCounts::default() };
        PagerStatus {
            pages,
            ballooned_touched: 3,
            kernel_pages: 8,
            zero_touched: 4,
            pool_bytes: 2 * PAGE,
            ..PagerStatus::default()
        }
    }

    #[test]
    fn reclaimed_is_what_pages_were_less_what_still_holds_them() {
        let reclaimed = Reclaimed::of(&[view(Phase::Running, pager()), view(Phase::Running, pager())], 5 * PAGE);
        let pages = reclaimed.by_mechanism().map(|(_, bytes)| bytes / PAGE);
        assert_eq!(pages, [6, 15, 8, 8, 4, 12, 2]);
    }

    #[test]
    fn a_guest_that_is_gone_has_reclaimed_nothing() {
        let gone = view(Phase::Ended(End::Lost("killed".into())), pager());
        assert_eq!(Reclaimed::of(&[gone], 0), Reclaimed::default());
    }

    #[test]
    fn quantiles_are_bounds_that_so_many_faults_keep() {
        let mut buckets = vec![0; LATENCY_BUCKETS];
        (buckets[0], buckets[4], buckets[10]) = (98, 1, 1);
        assert_eq!(quantile_ns(&buckets, 50), latency_bound_ns(0));
        assert_eq!(quantile_ns(&buckets, 99), latency_bound_ns(4));
        assert_eq!(quantile_ns(&buckets, 100), latency_bound_ns(10));
        assert_eq!(quantile_ns(&vec![0; LATENCY_BUCKETS], 99), 0);
    }

    #[test]
    fn no_quantile_is_beyond_the_longest_fault() {
        let mut slow = pager();
        slow.fault_latency = vec![0; LATENCY_BUCKETS];
        slow.fault_latency[LATENCY_BUCKETS - 1] = 1;
        slow.fault_ns_max = 2_000_000_000;
        assert_eq!(FaultSeconds::of(&[view(Phase::Running, slow)]), FaultSeconds { p50: 2.0, p99: 2.0, max: 2.0 });
    }
}
