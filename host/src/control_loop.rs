//! Ten times a second: read what the guests said last, divide the budget anew, tell them; and let the frame store sweep.

use std::sync::Arc;
use std::time::Instant;

use control::STATUS_INTERVAL;
use tokio::time::MissedTickBehavior;

use crate::accounting::Meter;
use crate::allocation::Ledger;
use crate::fleet::Fleet;

/// Runs until it is dropped. A tick that falls into a memory sample is left out; see [`crate::accounting`].
pub async fn control(fleet: Arc<Fleet>, meter: Arc<Meter>, mut ledger: Ledger) {
    let mut ticks = tokio::time::interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut settled = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        fleet.guests.iter().for_each(crate::guest::Guest::kill_if_stuck);
        fleet.deliver(fleet.domains.sweep(now));
        let Ok(_held) = meter.ledger.try_lock() else { continue };
        let settlement = ledger.settle(&fleet.views(), fleet.frames_bytes(), now - settled);
        settled = now;
        // What is taken is taken before anything is given.
        fleet.domains.set_store_budget_bytes(settlement.store_bytes_max);
        for (guest, bytes) in fleet.guests.iter().zip(settlement.cow_expected_bytes) {
            guest.expect_breaks(bytes);
        }
        for (guest, grant) in fleet.guests.iter().zip(settlement.grants) {
            if let Some(grant) = grant {
                guest.grant(grant);
            }
        }
    }
}
