//! Memory reclaimed from one guest by hand.
//!
//! ```text
//!   POST   /v1/guests/{guest}/reclaim   200 as soon as it is reached, comes no further, or takes long, with
//!          {"bytes": N,                 what was won by what; 409 while there is another, or the guest
//!           "hold_seconds": S}          neither runs nor is paused
//!   DELETE /v1/guests/{guest}/reclaim   204: given back; 409 where nothing is reclaimed
//! ```
//!
//! The request waits, for a bounded time; the control loop does not. Whoever hangs up has begun it all the
//! same.

use std::time::{Duration, Instant};

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use control::STATUS_INTERVAL;
use serde::Deserialize;
use tokio::time::sleep;

use super::answer::{Body, Local, json as respond, refuse};
use super::sources::Sources;

/// Longest time that memory is held: a day. Who wants it for good lowers the limit.
const HOLD_SECONDS_MAX: u64 = 24 * 3600;
/// Longest wait for an answer, within what a connection may take; what is still being taken then goes on, and
/// `GET` says how far it came.
const WAIT_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    bytes: u64,
    hold_seconds: u64,
}

pub(super) async fn begin(
    _: Local,
    Shared(sources): Shared<Sources>,
    Path(name): Path<String>,
    Body(Order { bytes, hold_seconds }): Body<Order>,
) -> Response {
    if bytes == 0 || !(1..=HOLD_SECONDS_MAX).contains(&hold_seconds) {
        let message = format!(
            "{bytes} bytes for {hold_seconds} s cannot be reclaimed: give at least a byte, and 1 to {HOLD_SECONDS_MAX} s; \
             DELETE ends what is held"
        );
        return refuse(StatusCode::BAD_REQUEST, "bad_input", &message);
    }
    let Some(guest) = sources.fleet.guests.iter().find(|guest| guest.plan.name == name) else {
        return sources.no_such_guest(&name);
    };
    if !sources.fleet.config.levers.pager {
        let message = "with --pager off nothing holds a guest to less than it was given";
        return refuse(StatusCode::CONFLICT, "no_pager", message);
    }
    let now = Instant::now();
    if let Err(why) = guest.reclaim(bytes, Duration::from_secs(hold_seconds)) {
        return refuse(StatusCode::CONFLICT, "wrong_state", &why);
    }
    tracing::info!(guest = name, bytes, hold_seconds, "reclaiming");
    loop {
        sleep(STATUS_INTERVAL).await;
        let view = guest.view();
        let Some(reclaiming) = view.reclaiming else {
            let message = format!("{name} is {}: it lives no more as it did when it was asked", view.phase);
            return refuse(StatusCode::CONFLICT, "wrong_state", &message);
        };
        if !reclaiming.is_taking() || now.elapsed() > WAIT_MAX || view.has_ended() {
            return respond(StatusCode::OK, &reclaiming.describe(&name, sources.fleet.clock.now()));
        }
    }
}

pub(super) async fn end(_: Local, Shared(sources): Shared<Sources>, Path(name): Path<String>) -> Response {
    let Some(guest) = sources.fleet.guests.iter().find(|guest| guest.plan.name == name) else {
        return sources.no_such_guest(&name);
    };
    if guest.end_reclaim() {
        return StatusCode::NO_CONTENT.into_response();
    }
    refuse(StatusCode::CONFLICT, "wrong_state", &format!("nothing is reclaimed from {name}"))
}
