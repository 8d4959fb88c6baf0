//! Ten times a second: read what the guests said last, divide the budget anew, tell them. A tick's steps:
//!
//! ```text
//!   watch    VMMs that owe something: an answer to the frame store, a sign of life
//!            -- no further while memory is being measured: it stands still --
//!   divide   what all guests said ── Ledger ──► a verdict on each, and what the frame stores may grow to
//!   note     what was decided: for whoever asks why, and for whoever judges what is used
//!   take     the frame stores' room: what is taken is taken before anything is given
//!   tell     a verdict, and the maintenance that is due ──► Orders ──► the guest's VMM
//!   bound    with a kernel tier: its group's limit, by its grant
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{ATTEND_INTERVAL, Reclaim, STATUS_INTERVAL, Starved};
use policy::state::Outside;
use tokio::time::MissedTickBehavior;
use wire::PAGE_BYTES;

use crate::config::{FreePageReporting, RunConfig};
use crate::control::balloons::{Balloons, Running};
use crate::control::decisions::Decisions;
use crate::control::hurry::Hurry;
use crate::control::ledger::{Ledger, Settlement};
use crate::control::outside::outside;
use crate::fleet::accounting::Meter;
use crate::fleet::guest::{Guest, Need, View};
use crate::fleet::lives::Fleet;
use crate::fleet::orders::Orders;

/// Scanners are told to hurry while less than this part of the budget is free: a twenty-fifth, where balloons
/// come into play.
const HURRY_DIVISOR: u64 = 25;
/// How often the world outside is asked: its slowest figure is an average of ten seconds.
const OUTSIDE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a guest is held back each tick (100 ms) while the host is low: half of its time, so that its
/// evictor catches up and it still answers its balloon.
const HOLD_MS: u64 = 50;
/// How often it is decided anew when pages are evicted: use wavers, and evicting is slow.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(5);

/// What is done by how much of the budget is in use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The part of it above which pages are evicted before memory is short.
    proactive: Option<f64>,
    reporting: FreePageReporting,
}

impl Limits {
    /// As a run is asked for.
    pub fn of(config: &RunConfig) -> Limits {
        Limits { proactive: config.proactive_reclaim, reporting: config.free_page_reporting }
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct ControlLoop {
    fleet: Arc<Fleet>,
    meter: Arc<Meter>,
    ledger: Ledger,
    decisions: Arc<Decisions>,
    limits: Limits,
    hurry: Hurry,
    balloons: Balloons,
    reclaim: Reclaim,
    need: Need,
    settled: Instant,
    attend: Every,
    look_outside: Every,
    decide_reclaim: Every,
}

impl ControlLoop {
    /// Of guests that nothing was decided about yet.
    pub fn new(
        fleet: Arc<Fleet>,
        meter: Arc<Meter>,
        ledger: Ledger,
        decisions: Arc<Decisions>,
        limits: Limits,
    ) -> ControlLoop {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        ControlLoop {
            fleet,
            meter,
            ledger,
            decisions,
            limits,
            hurry: Hurry::new(cpus),
            balloons: Balloons::new(limits.reporting, cpus),
            reclaim: Reclaim::WhenShort,
            need: Need::Nobody,
            settled: Instant::now(),
            attend: Every::new(ATTEND_INTERVAL),
            look_outside: Every::new(OUTSIDE_INTERVAL),
            decide_reclaim: Every::new(RECLAIM_INTERVAL),
        }
    }

    /// Goes on until it is dropped.
    pub async fn keep_going(mut self) {
        let mut ticks = tokio::time::interval(STATUS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick(Instant::now());
        }
    }

    fn tick(&mut self, now: Instant) {
        self.watch(now);
        let meter = Arc::clone(&self.meter);
        let Some(_leave) = meter.movement.begin() else { return };
        let views = self.fleet.views();
        let settlement = self.divide(&views, now);
        self.note(&settlement);
        self.take(&settlement);
        self.tell(&settlement, &views, now);
        self.bound(&settlement);
    }

    /// Kills VMMs that owe something for too long, by time in which the host was there to take it; and shows
    /// the others that it is.
    fn watch(&mut self, now: Instant) {
        let fleet = &self.fleet;
        let clock = fleet.clock.tick(now);
        fleet.guests.iter().for_each(|guest| guest.kill_if_stuck(self.need));
        fleet.deliver(fleet.domains.sweep(clock));
        fleet.kill_silent(clock);
        if self.attend.is_due(now) {
            fleet.guests.iter().for_each(Guest::attend);
        }
    }

    fn divide(&mut self, views: &[View], now: Instant) -> Settlement {
        if self.look_outside.is_due(now) {
            let outside = outside();
            // With a kernel tier, guests' own returns from swap are most of what the machine waits for.
            let pressure = outside.pressure.filter(|_| self.fleet.tier.is_none());
            self.ledger.hear(Outside { pressure, ..outside });
        }
        self.ledger.set_budget_bytes(self.meter.budget.bytes());
        if let Some(tier) = &self.fleet.tier {
            self.ledger.set_kernel_tier(tier.page_price(), tier.slack_bytes(views.len()));
        }
        let elapsed = now - std::mem::replace(&mut self.settled, now);
        self.ledger.settle(views, self.fleet.frames_bytes(), elapsed)
    }

    fn note(&mut self, settlement: &Settlement) {
        let situation = settlement.situation;
        self.need = if settlement.short { Need::OthersWait } else { Need::Nobody };
        self.meter.budget.exceed_to(situation.in_force_bytes.min(situation.ceiling_bytes));
        self.decisions.note(situation, &settlement.guests);
        for (guest, settled) in self.fleet.guests.iter().zip(&settlement.guests) {
            let Some(settled) = settled else { continue };
            guest.expect_breaks(settled.cow_expected_bytes);
            guest.tend_reclaim(self.ledger.policy(), &settled.verdict.record.guest);
        }
    }

    fn take(&mut self, settlement: &Settlement) {
        let refused = self.fleet.domains.set_store_budget_bytes(settlement.store_bytes_max);
        self.ledger.set_frames_refused(refused);
    }

    fn tell(&mut self, settlement: &Settlement, views: &[View], now: Instant) {
        let guests = &self.fleet.guests;
        let running: Vec<_> = guests.iter().zip(views).map(|(guest, view)| running(guest, view)).collect();
        let balloons = self.balloons.due(settlement.situation.state, now, &running);
        let (used_bytes, budget_bytes) = (self.meter.used_bytes(), self.meter.budget.bytes());
        let is_short = budget_bytes.saturating_sub(used_bytes) < budget_bytes / HURRY_DIVISOR;
        let hurried = self.hurry.due(is_short, now, guests.len());
        if let Some(part) = self.limits.proactive.filter(|_| self.decide_reclaim.is_due(now)) {
            let is_much = used_bytes as f64 > budget_bytes as f64 * part;
            self.reclaim = if is_much { Reclaim::Proactively } else { Reclaim::WhenShort };
        }
        let told = guests.iter().zip(&settlement.guests).zip(balloons).enumerate();
        for (number, ((guest, settled), balloon)) in told {
            let Some(settled) = settled else { continue };
            guest.order(Orders {
                grant: settled.grant,
                starved: if settled.verdict.ends_if_starved { Starved::Ends } else { Starved::Waits },
                sample_period_ms: settlement.sample_period_ms,
                reclaim: self.reclaim,
                balloon,
                hurry: hurried.contains(&number),
                hold_ms: (settled.verdict.held_back || self.waits(number)).then_some(HOLD_MS),
            });
        }
    }

    /// Whether a guest's threads find no room below its group's limit.
    fn waits(&self, number: usize) -> bool {
        self.fleet.tier.as_ref().and_then(|tier| tier.figures(number)).is_some_and(|figures| figures.waits)
    }

    fn bound(&self, settlement: &Settlement) {
        let Some(tier) = &self.fleet.tier else { return };
        let granted = settlement.guests.iter().enumerate();
        tier.tend(granted.filter_map(|(number, one)| Some((number, one.as_ref()?.grant.allocation_bytes))).collect());
    }
}

/// What its balloon is judged by; none of a guest that does not run.
fn running(guest: &Guest, view: &View) -> Option<Running> {
    let (pager, balloon) = (&view.status.pager, &view.status.balloon);
    guest.listens().then(|| Running {
        vmm: guest.vmm(),
        pages: view.status.memory_bytes / PAGE_BYTES as u64,
        evictions_total: pager.evictions_total,
        hint_dropped_total: balloon.hint_dropped_pages_total,
        reported: pager.reported,
        reclaimed: view.reclaiming.is_some_and(|reclaiming| reclaiming.is_taking()),
    })
}

/// What is done at once, and then again each time that so much time has passed.
#[derive(Debug)]
struct Every {
    interval: Duration,
    last: Option<Instant>,
}

impl Every {
    fn new(interval: Duration) -> Every {
        Every { interval, last: None }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now - last >= self.interval);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}
