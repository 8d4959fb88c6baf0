//! The same functions that divide a host's memory, driven by guests that exist as a few numbers: to see what
//! policy does in an hour of ten thousand guests within seconds, and to compare it with rules that others
//! have published.
//!
//! ```text
//!   Demand(t) --> working set --> resident, stall, samples --> Rule --> allocation --+
//!                     ^                                                             |
//!                     +------------------------- the next tick ---------------------+
//! ```
//!
//! A guest touches its working set evenly. What of it does not fit its allocation is missing: each access to
//! a missing page costs [`FAULT_COST`] accesses. What it has touched stays until it is taken, and is taken as
//! fast as [`RECLAIM_BYTES_PER_SECOND`]. Not in here: sharing, compression, disks; memory is one kind of
//! page.

use policy::{
    Config, Decision, GuestInput, Host, Usage,
    active::{Estimator, SAMPLE_PAGES, Sample, period_ms},
    restraint::regret::Regret,
    restraint::waits::Waits,
    state::{HostState, Thresholds},
};

use crate::{kit::random::Random, policy::rules::Rule, simulate::demand::Demand};

/// A fault in accesses: 65 µs against 1 µs for a page that is there.
const FAULT_COST: f64 = 65.0;
/// How fast a guest's memory is taken: 4 µs a page.
const RECLAIM_BYTES_PER_SECOND: f64 = 4096.0 / 4e-6;
/// Sampling period while memory is plenty, ms.
const PERIOD_MS: u64 = 30_000;
/// Weight of the last second in averages, as in the host.
const SMOOTHING: f64 = 0.9;

/// One guest.
#[derive(Clone, Debug)]
pub struct SimulatedGuest {
    /// Promises, and what was measured.
    pub guest: GuestInput,
    /// What it wants over time.
    pub demand: Demand,
    /// Accesses it has made, in seconds of a guest that misses nothing.
    pub work_seconds: f64,
    /// Time it has waited, s.
    pub stall_seconds: f64,
    estimator: Estimator,
    sampled_ms: u64,
    touched_bytes: u64,
    waits: Waits,
    regret: Regret,
}

impl SimulatedGuest {
    /// A guest that has touched nothing.
    pub fn new(guest: GuestInput, demand: Demand) -> SimulatedGuest {
        SimulatedGuest {
            guest,
            demand,
            work_seconds: 0.0,
            stall_seconds: 0.0,
            estimator: Estimator::default(),
            sampled_ms: 0,
            touched_bytes: 0,
            waits: Waits::default(),
            regret: Regret::default(),
        }
    }

    /// What it uses at this time, bytes.
    pub fn working_set_bytes(&self, second: f64) -> u64 {
        (self.demand.ratio(second) * self.guest.memory_bytes as f64) as u64
    }

    /// Lives for `seconds` with its allocation.
    fn live(&mut self, second: f64, seconds: f64, state: HostState, random: &mut Random) {
        let wanted = self.working_set_bytes(second);
        self.touched_bytes = self.touched_bytes.max(wanted);
        let room = self.guest.usage.allocation_bytes.saturating_sub(self.guest.overhead_bytes);
        let missing = if wanted == 0 { 0.0 } else { wanted.saturating_sub(room) as f64 / wanted as f64 };
        let stall_ratio = missing * FAULT_COST / (missing * FAULT_COST + 1.0 - missing);
        self.work_seconds += seconds * (1.0 - stall_ratio);
        self.stall_seconds += seconds * stall_ratio;
        let usage = &mut self.guest.usage;
        usage.stall_ratio += (1.0 - (1.0 - SMOOTHING).powf(seconds)) * (stall_ratio - usage.stall_ratio);
        self.waits.look(usage.stall_ratio, seconds);
        usage.waited_ratio = self.waits.ratio();
        let held = self.touched_bytes.min(room).saturating_add(self.guest.overhead_bytes);
        let taken = (RECLAIM_BYTES_PER_SECOND * seconds) as u64;
        usage.resident_bytes =
            if held < usage.resident_bytes { held.max(usage.resident_bytes.saturating_sub(taken)) } else { held };
        usage.committed_bytes = usage.resident_bytes;
        // It frees what it does not use, and says so: the others go by that.
        usage.free_bytes = room.saturating_sub(wanted);
        self.guest.usage.spared = self.regret.look((second * 1e3) as u64, &self.guest);
        self.sample(second, wanted, state, random);
    }

    fn sample(&mut self, second: f64, wanted: u64, state: HostState, random: &mut Random) {
        let now_ms = (second * 1e3) as u64;
        if now_ms.saturating_sub(self.sampled_ms) >= period_ms(PERIOD_MS, state) {
            self.sampled_ms = now_ms;
            let active = wanted as f64 / self.guest.memory_bytes.max(1) as f64;
            let touched = (0..SAMPLE_PAGES).filter(|_| random.unit() < active).count() as u32;
            self.estimator.end_period(Sample { sampled: SAMPLE_PAGES, touched });
            let bytes = |ratio: f64| (ratio * self.guest.memory_bytes as f64) as u64;
            self.guest.usage.active_bytes = self.estimator.ratio().map(bytes);
            self.guest.usage.recent_bytes = self.estimator.recent_ratio().map(bytes);
        }
    }
}

/// A host and its guests.
#[derive(Clone, Debug)]
pub struct World {
    /// Levers and tax.
    pub config: Config,
    /// The host's ledger.
    pub host: Host,
    /// Who decides.
    pub rule: Rule,
    /// Its guests.
    pub guests: Vec<SimulatedGuest>,
    state: HostState,
    second: f64,
    random: Random,
}

impl World {
    /// A host whose guests begin now, each with its first allocation.
    pub fn new(config: Config, host: Host, rule: Rule, guests: Vec<SimulatedGuest>, seed: u64) -> World {
        let mut world =
            World { config, host, rule, guests, state: HostState::High, second: 0.0, random: Random::after(seed) };
        let fresh: Vec<GuestInput> = world.guests.iter().map(|simulated| simulated.guest).collect();
        let first = policy::initial(&world.config, &world.host, &fresh);
        world.apply(&first);
        world
    }

    /// Time since the beginning, s.
    pub fn second(&self) -> f64 {
        self.second
    }

    /// Guests live for `seconds`, then memory is divided anew. What was decided.
    pub fn tick(&mut self, seconds: f64) -> Vec<Decision> {
        self.second += seconds;
        for guest in &mut self.guests {
            guest.live(self.second, seconds, self.state, &mut self.random);
        }
        let used: u64 = self.guests.iter().map(|simulated| simulated.guest.usage.resident_bytes).sum();
        let budget = self.host.budget_bytes;
        self.state = Thresholds::of(budget).next(self.state, budget.saturating_sub(used));
        let guests: Vec<GuestInput> = self.guests.iter().map(|simulated| simulated.guest).collect();
        let now_ms = (self.second * 1e3) as u64;
        let before_ms = ((self.second - seconds) * 1e3) as u64;
        let decisions = self.rule.decide(&self.config, &self.host, &guests, before_ms..now_ms);
        self.apply(&decisions);
        decisions
    }

    fn apply(&mut self, decisions: &[Decision]) {
        for (simulated, decision) in self.guests.iter_mut().zip(decisions) {
            let Usage { allocation_bytes, balloon_bytes, .. } = &mut simulated.guest.usage;
            (*allocation_bytes, *balloon_bytes) = (decision.allocation_bytes, decision.balloon_bytes);
        }
    }

    /// Work of all guests so far, in seconds of a guest that misses nothing.
    pub fn work_seconds(&self) -> f64 {
        self.guests.iter().map(|guest| guest.work_seconds).sum()
    }
}
