//! The ledger: turns what guests reported into what `policy` wants to know, and its decisions into grants.
//!
//! The frame store is an account like the guests': each tick sets aside a *headroom* that it may grow by until the next. It
//! doubles while the store uses at least half of it and halves while it does not, so that a busy start is not held back
//! and a settled run keeps no memory idle for it.

use std::cmp::Ordering;
use std::time::Duration;

use control::status::{SampleStatus, SamplingStatus};
use control::{Dedup, GuestStatus, Levers};
use policy::active::{self, Estimator, Sample};
use policy::backoff::{Backoff, Look, Pain};
use policy::record::Record;
use policy::state::{HostState, Outside, Thresholds, usable_budget};
use policy::{Config, Host, Usage};
use wire::PAGE_BYTES;
use wire::balloon::stat::{MAJFLT, SWAP_IN};

use crate::config::RunConfig;
use crate::cow::Breaks;
use crate::decisions::Situation;
use crate::error::Error;
use crate::guest::{Grant, View};
use crate::phase::Phase;
use crate::preflight::{PlannedGuest, Promises};

/// Share of the budget that stays unpromised: the table's account and the kernel's may differ by up to 2 %; an estimate,
/// to be replaced by what the whole-system test finds.
const MARGIN_DIVISOR: u64 = 64;
/// What a VMM costs before its first status says so, bytes: code, heap and stacks (an estimate), ...
const OVERHEAD_BASE_BYTES: u64 = 4 << 20;
/// ... and per guest page: the page-state table's entry, the scanner's hash and flags.
const OVERHEAD_BYTES_PER_PAGE: u64 = 16;
/// What a pager keeps for itself of an allocation, bytes: the credits in hand and the evictor's reserve (224 pages), rounded up. Without it the
/// balloon would leave a guest the last page of its allocation, which a guest whose pages do not compress would wait for in vain.
const PAGER_RESERVE_BYTES: u64 = 1 << 20;
/// Least headroom of a frame store, bytes: sixteen full messages of published pages.
const HEADROOM_BYTES_MIN: u64 = 4 << 20;
/// Most headroom, as a share of the budget: 24 MiB of 768, or 240 MiB published a second.
const HEADROOM_DIVISOR: u64 = 32;
/// Weight of the newest sample in the moving averages: what is older than a second counts for a tenth.
const SMOOTHING: f64 = 0.2;

/// Refuses guests whose guaranteed memory would not fit the budget.
pub fn admit(config: &RunConfig, guests: &[PlannedGuest]) -> Result<(), Error> {
    let policy = policy_config(config);
    let guests = planned(&policy, guests);
    let mut host = Host { frames_headroom_bytes: least_headroom(config.levers), ..host(config.budget_bytes) };
    let Err(mut refusal) = policy::admit(&policy, &host, &[], &guests) else { return Ok(()) };
    if let policy::Refusal::OverBudget { needed_bytes, .. } = refusal {
        // A larger budget has a larger margin; the refusal is to name one that really does.
        let without_margin = needed_bytes - u128::from(host.host_overhead_bytes);
        host.host_overhead_bytes = without_margin.div_ceil(u128::from(MARGIN_DIVISOR - 1)) as u64;
        refusal = policy::admit(&policy, &host, &[], &guests).err().unwrap_or(refusal);
    }
    Err(Error::BudgetTooSmall { budget_bytes: config.budget_bytes, refusal: refusal.to_string() })
}

/// What admitted guests start with.
pub fn initial(config: &RunConfig, guests: &[PlannedGuest]) -> Vec<Grant> {
    let host = Host { frames_headroom_bytes: least_headroom(config.levers), ..host(config.budget_bytes) };
    let policy = policy_config(config);
    let decisions = policy::initial(&policy, &host, &planned(&policy, guests));
    decisions.iter().map(grant).collect()
}

/// What is carried from one tick to the next.
#[derive(Debug)]
pub struct Ledger {
    levers: Levers,
    policy: Config,
    budget_bytes: u64,
    vcpus: u32,
    promises: Vec<Promises>,
    rates: Vec<Rates>,
    frames_bytes: u64,
    headroom_bytes: u64,
    state: HostState,
    sample_period_ms: u64,
    outside: Outside,
}

/// What one tick decides.
#[derive(Debug)]
pub struct Settlement {
    /// For each guest, or nothing where there is none any more.
    pub grants: Vec<Option<Grant>>,
    /// What the frame stores together may grow to until the next tick, bytes.
    pub store_bytes_max: u64,
    /// For each guest, what breaks of its shared pages are expected to take, bytes.
    pub cow_expected_bytes: Vec<u64>,
    /// How it is with the host.
    pub situation: Situation,
    /// For each guest, what was decided and why.
    pub records: Vec<Option<Record>>,
    /// How often guests are to be sampled, ms; 0 for never.
    pub sample_period_ms: u64,
    /// For each guest, whether it is to be held back: the host is low, and it is above its allocation.
    pub held: Vec<bool>,
}

/// Counters at the last tick, and moving averages of their growth.
#[derive(Clone, Debug, Default)]
struct Rates {
    stall_ns_total: u64,
    refaults_total: u64,
    stall_ratio: f64,
    refaults_per_second: f64,
    breaks: Breaks,
    periods_total: u64,
    estimator: Estimator,
    backoff: Backoff,
    /// Major faults and bytes swapped in by the guest itself, as it said last, and per second.
    own: [(Option<u64>, f64); 2],
    clock_ms: u64,
}

impl Ledger {
    /// The ledger of a run that has not begun.
    pub fn new(config: &RunConfig, guests: &[PlannedGuest]) -> Ledger {
        Ledger {
            levers: config.levers,
            policy: policy_config(config),
            budget_bytes: config.budget_bytes,
            vcpus: config.vcpus,
            promises: guests.iter().map(|guest| guest.promises).collect(),
            rates: vec![Rates::default(); guests.len()],
            frames_bytes: 0,
            headroom_bytes: least_headroom(config.levers),
            state: HostState::default(),
            sample_period_ms: config.sample_period.map_or(0, |period| period.as_millis() as u64),
            outside: Outside::default(),
        }
    }

    /// What the world outside says from now on.
    pub fn hear(&mut self, outside: Outside) {
        self.outside = outside;
    }

    /// Divides the budget anew, `elapsed` after the last time.
    pub fn settle(&mut self, views: &[View], frames_bytes: u64, elapsed: Duration) -> Settlement {
        self.adapt_headroom(frames_bytes);
        let shared_pages: u64 = views.iter().map(|view| view.status.pager.pages.shared).sum();
        let shared_bytes = shared_pages * PAGE_BYTES as u64;
        // What a shared page costs, as a part of a page.
        let fraction = (frames_bytes as f64 / shared_bytes.max(1) as f64).min(1.0);
        for (rates, view) in self.rates.iter_mut().zip(views) {
            rates.update(&view.status, elapsed, self.vcpus, fraction);
        }
        let config = self.policy;
        let situation = self.situation(views, frames_bytes);
        let budget_bytes = situation.usable_bytes;
        let host = Host { frames_bytes, frames_headroom_bytes: self.headroom_bytes, ..host(budget_bytes) };
        let living = || views.iter().enumerate().filter(|(_, view)| !view.has_ended());
        let guests: Vec<_> = living()
            .map(|(number, view)| guest(&config, view, &self.promises[number], &self.rates[number], fraction))
            .collect();
        let mut decisions = policy::allocate(&config, &host, &guests);

        let in_force =
            guests.iter().zip(&decisions).map(|(guest, new)| guest.usage.committed_bytes.max(new.allocation_bytes));
        let free_bytes = budget_bytes.saturating_sub(host.host_overhead_bytes).saturating_sub(in_force.sum());
        let store_bytes_max =
            free_bytes.min(frames_bytes + self.headroom_bytes).min(policy::store_bytes_max(&config, &host, &guests));

        let mut grants = vec![None; views.len()];
        let mut records = vec![None; views.len()];
        let mut held = vec![false; views.len()];
        for (((number, view), guest), decision) in living().zip(&guests).zip(&mut decisions) {
            let rates = &mut self.rates[number];
            if config.pager {
                decision.balloon_bytes = rates.ask(view, decision.balloon_bytes);
            }
            grants[number] = Some(grant(decision));
            let standing = rates.backoff.standing();
            records[number] = Some(Record::new(&config, situation.state, guest, *decision, standing));
            held[number] = situation.state == HostState::Low && guest.usage.resident_bytes > decision.allocation_bytes;
        }
        let sample_period_ms = active::period_ms(self.sample_period_ms, situation.state);
        let expected = |(rates, view): (&Rates, &View)| rates.breaks.expected_bytes(view.status.pager.pages.shared);
        let cow_expected_bytes = self.rates.iter().zip(views).map(expected).collect();
        Settlement { grants, store_bytes_max, cow_expected_bytes, situation, records, sample_period_ms, held }
    }

    /// How it is with the host now.
    fn situation(&mut self, views: &[View], frames_bytes: u64) -> Situation {
        let living = views.iter().filter(|view| !view.has_ended());
        let used_bytes = living.map(|view| view.status.pager.resident_bytes).sum::<u64>() + frames_bytes;
        let usable_bytes = usable_budget(self.budget_bytes, used_bytes, &self.outside);
        let free_bytes = usable_bytes.saturating_sub(used_bytes);
        self.state = Thresholds::of(usable_bytes).next(self.state, free_bytes);
        Situation { state: self.state, budget_bytes: self.budget_bytes, usable_bytes, free_bytes }
    }

    fn adapt_headroom(&mut self, frames_bytes: u64) {
        let grown_bytes = frames_bytes.saturating_sub(self.frames_bytes);
        let wanted =
            if grown_bytes >= self.headroom_bytes / 2 { self.headroom_bytes * 2 } else { self.headroom_bytes / 2 };
        let least = least_headroom(self.levers);
        self.headroom_bytes = wanted.clamp(least, (self.budget_bytes / HEADROOM_DIVISOR).max(least));
        self.frames_bytes = frames_bytes;
    }
}

impl Rates {
    fn update(&mut self, status: &GuestStatus, elapsed: Duration, vcpus: u32, fraction: f64) {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        // Being held back is waiting for memory, too, on all vCPUs at once.
        let stall_ns = status.pager.stall_ns_total + status.held_ns_total * u64::from(vcpus);
        let refaults = status.pager.refaults_total;
        let stall_ratio = stall_ns.saturating_sub(self.stall_ns_total) as f64 / 1e9 / seconds / f64::from(vcpus);
        let refaults_per_second = refaults.saturating_sub(self.refaults_total) as f64 / seconds;
        self.stall_ratio += SMOOTHING * (stall_ratio - self.stall_ratio);
        self.refaults_per_second += SMOOTHING * (refaults_per_second - self.refaults_per_second);
        (self.stall_ns_total, self.refaults_total) = (stall_ns, refaults);
        self.breaks.update(status.pager.breaks_total, elapsed);
        self.clock_ms += elapsed.as_millis() as u64;
        self.estimate(&status.pager.sampling, fraction);
        for ((last, rate), tag) in self.own.iter_mut().zip([MAJFLT, SWAP_IN]) {
            let said = status.balloon.statistics.iter().find(|(known, _)| *known == tag).map(|&(_, value)| value);
            let grown = said.zip(*last).map_or(0, |(said, last)| said.saturating_sub(last));
            *rate += SMOOTHING * (grown as f64 / seconds - *rate);
            *last = said;
        }
    }

    /// Takes what sampling has found into the estimate. A touched page that is shared costs a fraction of a page.
    fn estimate(&mut self, sampling: &SamplingStatus, fraction: f64) {
        let sample = |sample: &SampleStatus| {
            let shared = f64::from(sample.touched_shared.min(sample.touched));
            let touched = f64::from(sample.touched) - shared * (1.0 - fraction);
            Sample { sampled: sample.pages, touched: touched.round() as u32 }
        };
        match sampling.periods_total.cmp(&self.periods_total) {
            Ordering::Greater => self.estimator.end_period(sample(&sampling.last)),
            // Started anew.
            Ordering::Less => self.estimator = Estimator::default(),
            Ordering::Equal => self.estimator.look(sample(&sampling.current)),
        }
        self.periods_total = sampling.periods_total;
    }

    /// What to ask the guest's balloon for. Only what the guest says of itself counts as pain: stall in our pager would grow if the
    /// balloon gave memory back under the same allocation.
    fn ask(&mut self, view: &View, wanted_bytes: u64) -> u64 {
        if view.phase != Phase::Running {
            self.backoff = Backoff::default();
            // A paused guest cannot answer; whatever it is asked for now it would have to give at the moment it goes on.
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

fn policy_config(config: &RunConfig) -> Config {
    let Levers { dedup, balloon, pager } = config.levers;
    Config { dedup: dedup != Dedup::Off, balloon, pager, idle_tax_percent: config.idle_tax_percent }
}

fn host(budget_bytes: u64) -> Host {
    Host { budget_bytes, host_overhead_bytes: budget_bytes / MARGIN_DIVISOR, ..Host::default() }
}

fn least_headroom(levers: Levers) -> u64 {
    if levers.dedup == Dedup::On { HEADROOM_BYTES_MIN } else { 0 }
}

fn overhead_bytes(memory_bytes: u64) -> u64 {
    OVERHEAD_BASE_BYTES + memory_bytes / PAGE_BYTES as u64 * OVERHEAD_BYTES_PER_PAGE
}

/// Least that a guest of this size can be limited to, or have reserved.
pub(crate) fn least_bytes(memory_bytes: u64) -> u64 {
    policy::RESERVATION_BYTES_MIN.min(memory_bytes) + overhead_bytes(memory_bytes)
}

/// Most that a guest of this size can cost.
pub(crate) fn most_bytes(memory_bytes: u64) -> u64 {
    memory_bytes + overhead_bytes(memory_bytes)
}

fn planned(config: &Config, guests: &[PlannedGuest]) -> Vec<policy::Guest> {
    let promised = |guest: &PlannedGuest| {
        promised(config, &guest.promises, guest.memory_bytes, overhead_bytes(guest.memory_bytes))
    };
    guests.iter().map(promised).collect()
}

/// A guest with the promises made to it. What was not chosen is by its size, and within what was.
fn promised(config: &Config, promises: &Promises, memory_bytes: u64, overhead_bytes: u64) -> policy::Guest {
    let guest = policy::Guest::new(config, memory_bytes, overhead_bytes);
    let limit_bytes = promises.limit_bytes.unwrap_or(guest.limit_bytes).min(guest.limit_bytes);
    // A guest's overhead is measured while it runs; a promise is kept as far as the guest can cost that much.
    let reservation_bytes = promises.reservation_bytes.unwrap_or(guest.reservation_bytes).min(limit_bytes);
    policy::Guest { shares: promises.shares, reservation_bytes, limit_bytes, ..guest }
}

fn guest(config: &Config, view: &View, promises: &Promises, rates: &Rates, fraction: f64) -> policy::Guest {
    let (memory_bytes, pager) = (view.status.memory_bytes, &view.status.pager);
    let page_bytes = PAGE_BYTES as u64;
    let usage = Usage {
        allocation_bytes: view.grant.allocation_bytes,
        balloon_bytes: view.grant.balloon_bytes,
        committed_bytes: pager.committed_bytes,
        resident_bytes: pager.resident_bytes,
        shared_bytes: pager.pages.shared * page_bytes,
        zero_bytes: pager.zero_touched * page_bytes,
        compressed_saved_bytes: ((pager.pages.compressed + pager.pages.swapped) * page_bytes)
            .saturating_sub(pager.pool_bytes),
        stall_ratio: rates.stall_ratio,
        refaults_per_second: rates.refaults_per_second,
        active_bytes: rates.estimator.ratio().map(|ratio| (ratio * memory_bytes as f64) as u64),
        charged_bytes: (pager.pages.shared as f64 * page_bytes as f64 * fraction) as u64,
    };
    let overhead_bytes = match pager.overhead_bytes {
        0 => overhead_bytes(memory_bytes),
        measured => measured + PAGER_RESERVE_BYTES,
    };
    let guest = policy::Guest { usage, ..promised(config, promises, memory_bytes, overhead_bytes) };
    if view.phase == Phase::Paused { at_rest(guest) } else { guest }
}

/// A guest that is paused needs nothing: it bids with the least there is, and keeps its reservation and what nobody else wants.
fn at_rest(guest: policy::Guest) -> policy::Guest {
    let usage = Usage { stall_ratio: 0.0, refaults_per_second: 0.0, active_bytes: Some(0), ..guest.usage };
    policy::Guest { shares: 1, usage, ..guest }
}

fn grant(decision: &policy::Decision) -> Grant {
    Grant { allocation_bytes: decision.allocation_bytes, balloon_bytes: decision.balloon_bytes }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use control::VcpuKind;
    use wire::machine::Workload;

    use super::*;
    use crate::config::VmmCommand;
    use crate::phase::End;

    const MIB: u64 = 1 << 20;
    const TICK: Duration = Duration::from_millis(100);
    const ALL: Levers = Levers { dedup: Dedup::On, balloon: true, pager: true };
    const NONE: Levers = Levers { dedup: Dedup::Off, balloon: false, pager: false };

    fn config(budget_bytes: u64, levers: Levers) -> RunConfig {
        RunConfig {
            guests: None,
            memory_bytes: None,
            budget_bytes,
            workload: Workload::Idle,
            duration: Duration::from_secs(1),
            restart_every: None,
            vcpus: 1,
            vcpu: VcpuKind::Kvm,
            images: Vec::new(),
            seed: 0,
            levers,
            dedup_cpu_share: 0.05,
            vma_budget: None,
            guest_settings: Vec::new(),
            idle_tax_percent: 75,
            sample_period: None,
            domains: Vec::new(),
            swap: None,
            proactive_reclaim: None,
            sample_every: None,
            metrics: ([127, 0, 0, 1], 0).into(),
            report: None,
            vmm: VmmCommand { program: "none".into(), arguments: Vec::new() },
        }
    }

    fn eight() -> Vec<PlannedGuest> {
        (0..8).map(|number| PlannedGuest::idle(format!("guest{number}"), 256 * MIB)).collect()
    }

    /// Guests that use all they were given.
    fn views(grants: &[Grant]) -> Vec<View> {
        let view = |(number, &grant): (usize, &Grant)| {
            let mut status = GuestStatus { memory_bytes: 256 * MIB, ..GuestStatus::default() };
            status.pager.committed_bytes = grant.allocation_bytes;
            status.pager.resident_bytes = grant.allocation_bytes;
            View {
                name: format!("guest{number}"),
                domain: "default".into(),
                pid: 1,
                phase: Phase::Running,
                status,
                grant,
                cow_expected_bytes: 0,
                past: Default::default(),
            }
        };
        grants.iter().enumerate().map(view).collect()
    }

    fn granted(grants: &[Option<Grant>]) -> u64 {
        grants.iter().flatten().map(|grant| grant.allocation_bytes).sum()
    }

    #[test]
    fn a_refusal_names_a_budget_that_is_then_accepted() {
        for levers in [ALL, NONE] {
            let refusal = admit(&config(64 * MIB, levers), &eight()).unwrap_err().to_string();
            let (_, named) = refusal.split_once("at least ").unwrap();
            let named: u64 = named.split(' ').next().unwrap().parse().unwrap();
            assert!(admit(&config(named * MIB, levers), &eight()).is_ok(), "{refusal}");
            assert!(admit(&config((named - 1) * MIB, levers), &eight()).is_err(), "{refusal}");
        }
    }

    #[test]
    fn what_is_granted_and_what_the_store_may_take_fit_the_budget() {
        let config = config(768 * MIB, ALL);
        let views = views(&initial(&config, &eight()));
        let mut ledger = Ledger::new(&config, &eight());
        for frames_bytes in [0, 40 * MIB, 80 * MIB, 300 * MIB] {
            let settlement = ledger.settle(&views, frames_bytes, TICK);
            let in_force: u64 =
                views.iter().map(|view| view.grant.allocation_bytes).sum::<u64>().max(granted(&settlement.grants));
            assert!(in_force + settlement.store_bytes_max <= 768 * MIB, "with {frames_bytes} bytes of frames");
        }
    }

    #[test]
    fn a_store_that_grows_gets_more_headroom_until_it_is_settled() {
        let config = config(768 * MIB, ALL);
        let mut ledger = Ledger::new(&config, &[]);
        let mut headroom = |frames_bytes| {
            ledger.settle(&[], frames_bytes, TICK);
            ledger.headroom_bytes / MIB
        };
        assert_eq!([3, 8, 16, 30, 60].map(|mib| headroom(mib * MIB)), [8, 16, 24, 24, 24]);
        assert_eq!([60, 60, 60].map(|mib| headroom(mib * MIB)), [12, 6, 4]);
    }

    #[test]
    fn a_guest_that_is_gone_frees_its_memory_for_those_that_stall() {
        let config = config(768 * MIB, ALL);
        let mut views = views(&initial(&config, &eight()));
        let before = views[1].grant.allocation_bytes;
        views[0].phase = Phase::Ended(End::Lost("killed".into()));
        let mut ledger = Ledger::new(&config, &eight());
        for tick in 1..100 {
            for view in &mut views {
                view.status.pager.stall_ns_total = tick * 50_000_000;
            }
            let settlement = ledger.settle(&views, 0, TICK);
            assert_eq!(settlement.grants[0], None);
            for (view, grant) in views.iter_mut().zip(settlement.grants) {
                view.grant = grant.unwrap_or_default();
                view.status.pager.committed_bytes = view.grant.allocation_bytes;
                view.status.pager.resident_bytes = view.grant.allocation_bytes;
            }
        }
        let grown = views[1].grant.allocation_bytes - before;
        assert!(grown >= before / 8, "{grown} of {before} bytes");
    }

    #[test]
    fn a_paused_guest_gives_way_down_to_its_reservation_and_is_asked_for_nothing() {
        let config = config(768 * MIB, ALL);
        let mut views = views(&initial(&config, &eight()));
        views[0].phase = Phase::Paused;
        views[0].grant.balloon_bytes = 5 * MIB;
        let mut ledger = Ledger::new(&config, &eight());
        for tick in 1..200 {
            for view in &mut views {
                // The paused one's, too: what it waited for before counts no more.
                view.status.pager.stall_ns_total = tick * 50_000_000;
            }
            let settlement = ledger.settle(&views, 0, TICK);
            for (view, grant) in views.iter_mut().zip(settlement.grants) {
                view.grant = grant.unwrap();
                view.status.pager.committed_bytes = view.grant.allocation_bytes;
                view.status.pager.resident_bytes = view.grant.allocation_bytes;
            }
        }
        let reserved = 256 * MIB / 8 + overhead_bytes(256 * MIB);
        let left = views[0].grant.allocation_bytes;
        assert!((reserved..reserved + MIB).contains(&left), "{left} of {reserved} reserved");
        assert_eq!(views[0].grant.balloon_bytes, 5 * MIB);
    }

    /// A guest that touches all that its balloon leaves it still finds credits: the pager never hands out the last ones.
    #[test]
    fn a_balloon_leaves_the_pager_its_reserve() {
        const RESERVED_PAGES: u64 = 192 + 32;
        let config = config(768 * MIB, ALL);
        let mut views = views(&initial(&config, &eight()));
        views.iter_mut().for_each(|view| view.status.pager.overhead_bytes = 2 * MIB);
        let grants = Ledger::new(&config, &eight()).settle(&views, 0, TICK).grants;
        for Grant { allocation_bytes, balloon_bytes } in grants.into_iter().flatten() {
            let touchable = 256 * MIB - balloon_bytes;
            assert!(touchable + 2 * MIB + RESERVED_PAGES * PAGE_BYTES as u64 <= allocation_bytes);
        }
    }

    #[test]
    fn a_budget_that_the_world_outside_shrinks_holds_back_who_is_above_it() {
        let config = config(768 * MIB, ALL);
        let views = views(&initial(&config, &eight()));
        let mut ledger = Ledger::new(&config, &eight());
        let settled = ledger.settle(&views, 0, TICK);
        assert!(settled.situation.state < HostState::Low && settled.held.iter().all(|held| !held), "{settled:?}");
        ledger.hear(Outside { limit_bytes: Some(512 * MIB), ..Outside::default() });
        let squeezed = ledger.settle(&views, 0, TICK);
        assert_eq!((squeezed.situation.state, squeezed.situation.usable_bytes), (HostState::Low, 496 * MIB));
        assert!(granted(&squeezed.grants) < granted(&settled.grants) && squeezed.held.iter().all(|&held| held));
        let record = squeezed.records[0].unwrap();
        assert!(record.to_string().contains("the budget has become tighter"), "{record}");
    }

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
