//! What is measured of one guest: counters turned into rates, samples into an estimate, and all of it into
//! what policy wants to know.

use std::cmp::Ordering;
use std::time::Duration;

use control::GuestStatus;
use control::status::{SampleStatus, SamplingStatus};
use policy::active::{Estimator, Sample};
use policy::means::Means;
use policy::restraint::backoff::{Backoff, Look, Pain, Standing};
use policy::restraint::regret::Regret;
use policy::restraint::waits::Waits;
use policy::{Config, Usage};
use wire::PAGE_BYTES;
use wire::balloon::stat::{MAJFLT, MEMFREE, SWAP_IN};

use crate::control::cow::Breaks;
use crate::control::prices::{GuestLevers, Prices};
use crate::fleet::guest::View;
use crate::fleet::phase::Phase;
use crate::request::admission::promised;
use crate::request::overhead::overhead_bytes;

/// What a pager keeps for itself of an allocation, bytes: the credits in hand and the evictor's reserve (224
/// pages), rounded up. Without it the balloon would leave a guest the last page of its allocation, which a
/// guest whose pages do not compress would wait for in vain.
const PAGER_RESERVE_BYTES: u64 = 1 << 20;
/// Weight of the newest sample in the moving averages: what is older than a second counts for a tenth.
const SMOOTHING: f64 = 0.2;

/// What patience with a guest counts of one tick at most: a balloon that the host did not look at for a while
/// is not stuck for that.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(1);

/// Counters at the last tick, and moving averages of their growth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    stall_ns_total: u64,
    refaults_total: u64,
    stall_ratio: f64,
    refaults_per_second: f64,
    waits: Waits,
    breaks: Breaks,
    periods_total: u64,
    estimator: Estimator,
    backoff: Backoff,
    regret: Regret,
    prices: Prices,
    /// Major faults and bytes swapped in by the guest itself, as it said last, and per second.
    own: [(Option<u64>, f64); 2],
    clock_ms: u64,
}

impl Rates {
    /// Takes a status into account, `elapsed` after the last; a page that is shared costs `fraction` of a
    /// page.
    pub(crate) fn update(&mut self, status: &GuestStatus, elapsed: Duration, vcpus: u32, fraction: f64) {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        // Being held back is waiting for memory, too, on all vCPUs at once.
        let stall_ns = status.pager.stall_ns_total + status.held_ns_total * u64::from(vcpus);
        let refaults = status.pager.refaults_total;
        let stall_ratio = stall_ns.saturating_sub(self.stall_ns_total) as f64 / 1e9 / seconds / f64::from(vcpus);
        let refaults_per_second = refaults.saturating_sub(self.refaults_total) as f64 / seconds;
        self.stall_ratio += SMOOTHING * (stall_ratio - self.stall_ratio);
        self.refaults_per_second += SMOOTHING * (refaults_per_second - self.refaults_per_second);
        let pressure = policy::pressure(self.stall_ratio, self.refaults_per_second);
        self.waits.look(pressure, seconds);
        (self.stall_ns_total, self.refaults_total) = (stall_ns, refaults);
        self.breaks.update(status.pager.breaks_total, elapsed);
        self.clock_ms += elapsed.min(CLOCK_STEP_MAX).as_millis() as u64;
        self.estimate(&status.pager.sampling, fraction);
        self.prices.update(status, elapsed);
        for ((last, rate), tag) in self.own.iter_mut().zip([MAJFLT, SWAP_IN]) {
            let said = status.balloon.statistic(tag);
            let grown = said.zip(*last).map_or(0, |(said, last)| said.saturating_sub(last));
            *rate += SMOOTHING * (grown as f64 / seconds - *rate);
            *last = said;
        }
    }

    /// Takes what sampling has found into the estimate. A touched page that is shared costs a fraction of a
    /// page.
    fn estimate(&mut self, sampling: &SamplingStatus, fraction: f64) {
        let sample = |sample: &SampleStatus| {
            let shared = f64::from(sample.touched_shared.min(sample.touched));
            let touched = f64::from(sample.touched) - shared * (1.0 - fraction);
            Sample { sampled: sample.pages, touched: touched.round() as u32 }.unhindered(self.stall_ratio)
        };
        match sampling.periods_total.cmp(&self.periods_total) {
            Ordering::Greater => self.estimator.end_period(sample(&sampling.last)),
            // Started anew.
            Ordering::Less => self.estimator = Estimator::default(),
            Ordering::Equal => self.estimator.look(sample(&sampling.current)),
        }
        self.periods_total = sampling.periods_total;
    }

    /// The guest as policy sees it. Called once a tick.
    pub(crate) fn guest(&mut self, config: &Config, view: &View, fraction: f64) -> policy::GuestInput {
        let (memory_bytes, pager) = (view.status.memory_bytes, &view.status.pager);
        let page_bytes = PAGE_BYTES as u64;
        let bytes = |ratio: f64| (ratio * memory_bytes as f64) as u64;
        let usage = Usage {
            allocation_bytes: view.grant.allocation_bytes,
            balloon_bytes: view.grant.balloon_bytes,
            committed_bytes: pager.committed_bytes,
            resident_bytes: pager.resident_bytes,
            shared_bytes: pager.pages.shared * page_bytes,
            zero_bytes: pager.zero_touched * page_bytes,
            compressed_saved_bytes: ((pager.pages.compressed + pager.pages.swapped + pager.pages.clean) * page_bytes)
                .saturating_sub(pager.pool_bytes),
            irreducible_bytes: pager.floor_bytes.saturating_sub(pager.overhead_bytes),
            stall_ratio: self.stall_ratio,
            refaults_per_second: self.refaults_per_second,
            waited_ratio: self.waits.ratio(),
            active_bytes: self.estimator.ratio().map(bytes),
            recent_bytes: self.estimator.recent_ratio().map(bytes),
            charged_bytes: (pager.pages.shared as f64 * page_bytes as f64 * fraction) as u64,
            free_bytes: view.status.balloon.statistic(MEMFREE).unwrap_or(0),
            spared: false,
            means: Means::default(),
        };
        let overhead_bytes = match pager.overhead_bytes {
            0 => overhead_bytes(memory_bytes),
            measured => measured + PAGER_RESERVE_BYTES,
        };
        let mut guest = policy::GuestInput { usage, ..promised(config, &view.promises, memory_bytes, overhead_bytes) };
        guest.cap_bytes = view.reclaiming.and_then(|reclaiming| reclaiming.cap_bytes());
        guest.usage.spared = self.regret.look(self.clock_ms, &guest);
        if config.pager {
            let gives = config.balloon && self.backoff.standing() != Standing::Stuck;
            guest.usage.means = self.prices.means(&view.status, self.estimator.ratio(), gives, guest.floor_bytes);
        }
        if view.phase == Phase::Paused { at_rest(guest) } else { guest }
    }

    /// What breaks of `shared` pages are expected to take, bytes.
    pub(crate) fn breaks_expected_bytes(&self, shared: u64) -> u64 {
        self.breaks.expected_bytes(shared)
    }

    /// What each lever costs on it.
    pub(crate) fn levers(&self, means: &Means) -> GuestLevers {
        self.prices.figures(means)
    }

    /// Where its balloon stands.
    pub(crate) fn standing(&self) -> Standing {
        self.backoff.standing()
    }

    /// What to ask the guest's balloon for. Only what the guest says of itself counts as pain: stall in our
    /// pager would grow if the balloon gave memory back under the same allocation.
    pub(crate) fn ask(&mut self, view: &View, wanted_bytes: u64) -> u64 {
        if view.phase != Phase::Running {
            self.backoff = Backoff::default();
            // A paused guest cannot answer; whatever it is asked for now it would have to give at the moment
            // it goes on.
            return if view.phase == Phase::Paused { view.grant.balloon_bytes } else { wanted_bytes };
        }
        let [(_, major_faults), (_, swap_ins)] = self.own;
        self.backoff.ask(&Look {
            now_ms: self.clock_ms,
            wanted_bytes,
            actual_bytes: view.status.balloon.actual_bytes,
            resident_bytes: view.status.pager.resident_bytes,
            memory_bytes: view.status.memory_bytes,
            pain: Pain {
                stall_ratio: 0.0,
                major_faults_per_second: Some(major_faults),
                // Said in bytes.
                swap_ins_per_second: Some(swap_ins / PAGE_BYTES as f64),
            },
        })
    }
}

/// A guest that is paused needs nothing: it bids with the least there is, and keeps its reservation and what
/// nobody else wants.
fn at_rest(guest: policy::GuestInput) -> policy::GuestInput {
    let usage = Usage {
        stall_ratio: 0.0,
        waited_ratio: 0.0,
        refaults_per_second: 0.0,
        active_bytes: Some(0),
        spared: false,
        ..guest.usage
    };
    policy::GuestInput { shares: 1, usage, ..guest }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn a_guest_that_uses_little_is_found_out_by_its_samples_and_forgotten_when_it_starts_anew() {
        let mut rates = Rates::default();
        let mut status = GuestStatus::default();
        let sample = |touched, touched_shared| SampleStatus { pages: 100, touched, touched_shared };
        for period in 1..20 {
            status.pager.sampling =
                SamplingStatus { periods_total: period, last: sample(60, 40), current: sample(0, 0) };
            rates.update(&status, TICK, 1, 0.25);
        }
        let ratio = rates.estimator.ratio().unwrap();
        assert!((ratio - 0.3).abs() < 0.01, "20 of its own, and 40 that cost a quarter each: {ratio}");
        status.pager.sampling = SamplingStatus::default();
        rates.update(&status, TICK, 1, 0.25);
        assert_eq!(rates.estimator.ratio(), None);
    }

    #[test]
    fn averages_follow_a_change_within_a_second() {
        let mut rates = Rates::default();
        let mut status = GuestStatus::default();
        for _ in 0..10 {
            status.pager.stall_ns_total += 50_000_000;
            status.pager.refaults_total += 10;
            rates.update(&status, TICK, 1, 1.0);
        }
        assert!((0.44..=0.5).contains(&rates.stall_ratio), "{}", rates.stall_ratio);
        assert!((88.0..=100.0).contains(&rates.refaults_per_second), "{}", rates.refaults_per_second);
    }
}
