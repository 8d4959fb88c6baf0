//! Guests that are ended and started anew while a run goes on (`--restart-every`): what a fleet does over
//! months, in minutes.
//!
//! ```text
//!   Running -- Stop --> Verifying, Stopping -- Finished, exit 0, reaped --> Starting -- Ready --> Running
//! ```
//!
//! A guest that does not end well is not started anew: it stays as it ended, for the summary to say.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::fleet::guest::Guest;
use crate::fleet::lives::Fleet;

/// Restarts running guests, one after the other, one every so often. Runs until it is dropped.
pub async fn keep_restarting(fleet: Arc<Fleet>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    ticks.tick().await;
    let count = fleet.guests.len();
    let mut next = 0;
    loop {
        ticks.tick().await;
        // One that is still verifying or being built is passed over.
        if let Some(restarted) = (0..count).map(|i| (next + i) % count).find(|&number| fleet.guests[number].restart()) {
            next = restarted + 1;
        }
    }
}

/// Nothing is started anew any more; completes when what was being built runs.
pub async fn end(fleet: &Fleet) {
    fleet.guests.iter().for_each(Guest::end_restarts);
    fleet.until_all(|guest| !guest.is_between_lives()).await;
}
