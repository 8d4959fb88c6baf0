//! Ten times a second: read what the guests said last, divide the budget anew, tell them; and let the frame
//! store sweep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{ATTEND_INTERVAL, Reclaim, STATUS_INTERVAL, Starved, ToVmm};
use tokio::time::MissedTickBehavior;
use wire::PAGE_BYTES;

use crate::config::{FreePageReporting, RunConfig};
use crate::control::balloon_orders::{BalloonOrders, Running};
use crate::control::decisions::Decisions;
use crate::control::hurry::Hurry;
use crate::control::ledger::Ledger;
use crate::control::outside::outside;
use crate::fleet::accounting::Meter;
use crate::fleet::guest::{Guest, Need};
use crate::fleet::lives::Fleet;

/// Scanners are told to hurry while less than this part of the budget is free: a twenty-fifth, where balloons
/// come into play.
const HURRY_DIVISOR: u64 = 25;
/// How often the world outside is asked: its slowest figure is an average of ten seconds.
const OUTSIDE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a guest is held back each tick (100 ms) while the host is low: half of its time, so that its
/// evictor catches up and it still answers its balloon.
const HOLD_MS: u64 = 50;

/// How often guests are told when to evict: those that were started anew have not heard it.
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

/// Runs until it is dropped. A tick that falls into a memory sample is left out; see
/// [`crate::fleet::accounting`].
pub async fn control(
    fleet: Arc<Fleet>,
    meter: Arc<Meter>,
    mut ledger: Ledger,
    decisions: Arc<Decisions>,
    limits: Limits,
) {
    let mut ticks = tokio::time::interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut settled = Instant::now();
    let mut told = settled;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut hurry, mut balloons) = (Hurry::new(cpus), BalloonOrders::new(limits.reporting, cpus));
    let mut heard = None;
    let (mut attended, mut need) = (None, Need::Nobody);
    // The sampling period each VMM was told last.
    let mut periods = vec![(None, 0); fleet.guests.len()];
    // The same of what becomes of it when it finds no page.
    let mut patience = vec![(None, Starved::Ends); fleet.guests.len()];
    loop {
        ticks.tick().await;
        let now = Instant::now();
        // What VMMs owe is judged by time in which the host was there to take it.
        let clock = fleet.clock.tick(now);
        fleet.guests.iter().for_each(|guest| guest.kill_if_stuck(need));
        fleet.deliver(fleet.domains.sweep(clock));
        fleet.kill_silent(clock);
        if attended.is_none_or(|attended| now - attended >= ATTEND_INTERVAL) {
            attended = Some(now);
            fleet.guests.iter().for_each(Guest::attend);
        }
        let (used_bytes, budget_bytes) = (meter.used_bytes(), meter.budget.bytes());
        let free_bytes = budget_bytes.saturating_sub(used_bytes);
        let hurried = hurry.due(free_bytes < budget_bytes / HURRY_DIVISOR, now, fleet.guests.len());
        fleet.guests[hurried].iter().filter(|guest| guest.listens()).for_each(|guest| guest.send(ToVmm::Hurry));
        if let Some(part) = limits.proactive.filter(|_| now - told >= RECLAIM_INTERVAL) {
            told = now;
            let when =
                if used_bytes as f64 > budget_bytes as f64 * part { Reclaim::Proactively } else { Reclaim::WhenShort };
            fleet.guests.iter().filter(|guest| guest.listens()).for_each(|guest| guest.send(ToVmm::Reclaim(when)));
        }
        let Ok(_held) = meter.ledger.try_lock() else { continue };
        if heard.is_none_or(|heard| now - heard >= OUTSIDE_INTERVAL) {
            heard = Some(now);
            ledger.hear(outside());
        }
        ledger.set_budget_bytes(budget_bytes);
        let views = fleet.views();
        let settlement = ledger.settle(&views, fleet.frames_bytes(), now - settled);
        settled = now;
        need = if settlement.short { Need::OthersWait } else { Need::Nobody };
        meter.budget.exceed_to(settlement.situation.in_force_bytes.min(settlement.situation.ceiling_bytes));
        decisions.note(settlement.situation, &settlement.records, &settlement.levers);
        let running = fleet.guests.iter().zip(&views).map(|(guest, view)| {
            let evictions_total = view.status.pager.evictions_total;
            let reported = view.status.pager.reported;
            let hint_dropped_total = view.status.balloon.hint_dropped_pages_total;
            let (vmm, pages) = (guest.vmm(), view.status.memory_bytes / PAGE_BYTES as u64);
            let reclaimed = view.reclaiming.is_some_and(|reclaiming| reclaiming.is_taking());
            guest.listens().then_some(Running { vmm, pages, evictions_total, hint_dropped_total, reported, reclaimed })
        });
        let running: Vec<_> = running.collect();
        for (guest, order) in balloons.due(settlement.situation.state, now, &running) {
            fleet.guests[guest].send(order);
        }
        for (guest, record) in fleet.guests.iter().zip(&settlement.records) {
            if let Some(record) = record {
                guest.tend_reclaim(ledger.policy(), &record.guest);
            }
        }
        // What is taken is taken before anything is given.
        ledger.set_frames_refused(fleet.domains.set_store_budget_bytes(settlement.store_bytes_max));
        for (guest, bytes) in fleet.guests.iter().zip(settlement.cow_expected_bytes) {
            guest.expect_breaks(bytes);
        }
        for (guest, grant) in fleet.guests.iter().zip(settlement.grants) {
            if let Some(grant) = grant {
                guest.grant(grant);
            }
        }
        for (guest, held) in fleet.guests.iter().zip(settlement.held) {
            if held && guest.listens() {
                guest.send(ToVmm::Hold { ms: HOLD_MS });
            }
        }
        for ((guest, told), starved) in fleet.guests.iter().zip(&mut patience).zip(settlement.starved) {
            let due = (Some(guest.vmm()), starved);
            if *told != due && guest.listens() {
                *told = due;
                guest.send(ToVmm::Starved(starved));
            }
        }
        for (guest, told) in fleet.guests.iter().zip(&mut periods).filter(|(guest, _)| guest.listens()) {
            let due = (Some(guest.vmm()), settlement.sample_period_ms);
            if *told != due {
                *told = due;
                guest.send(ToVmm::Sample { period_ms: due.1 });
            }
        }
    }
}
