//! The host of a run: what it may use, what it does use, and how short it is.
//!
//! ```text
//!   GET   /v1/host
//!   PATCH /v1/host    {"budget_bytes": N}      204, or 422 where promises would not fit, with what would
//! ```
//!
//! A lower budget is *requested*; guests follow it as far as they can be squeezed, and no longer than that
//! takes. What of it is *reached*, by the last tick's decisions, the answer to GET says, and what keeps the
//! rest.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Body, Local, json as respond, refuse};
use super::sources::Sources;
use crate::bytes::ByteCount;
use crate::control::shortfall;
use crate::fleet::guest::Guest;
use crate::request::admission;
use crate::request::machine_memory;
use crate::sync::lock;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    budget_bytes: u64,
}

pub(super) async fn show(Shared(sources): Shared<Sources>) -> Response {
    let situation = sources.decisions.situation();
    respond(
        StatusCode::OK,
        &json!({
            "state": situation.state.name(),
            "budget_bytes": sources.meter.budget.bytes(),
            "requested_bytes": situation.budget_bytes,
            "reached_bytes": situation.reached_bytes(),
            "usable_bytes": situation.usable_bytes,
            "short_bytes": situation.short_bytes(),
            "floor_bytes": situation.floor_bytes,
            "why_short": shortfall::why(&situation, &sources.fleet.views()),
            "used_bytes": sources.meter.used_bytes(),
            "peak_used_bytes": sources.meter.peak_used_bytes(),
            "frames_bytes": sources.fleet.frames_bytes(),
        }),
    )
}

pub(super) async fn change(
    _: Local,
    Shared(sources): Shared<Sources>,
    Body(Change { budget_bytes }): Body<Change>,
) -> Response {
    let _turn = lock(&sources.changing);
    if let Err(message) = fits(&sources, budget_bytes) {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "does_not_fit", &message);
    }
    // Of what is refused nothing has changed.
    if let Err(message) = sources.promise.change(budget_bytes) {
        let message = format!("a budget of {}: {message}", ByteCount(budget_bytes));
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "does_not_fit", &message);
    }
    let before = sources.meter.budget.change(budget_bytes, sources.fleet.clock.now());
    tracing::info!(from_bytes = before, to_bytes = budget_bytes, "budget changed");
    StatusCode::NO_CONTENT.into_response()
}

/// Whether the machine has so much, and what is promised to the guests that live fits it.
fn fits(sources: &Sources, budget_bytes: u64) -> Result<(), String> {
    let machine = machine_memory::memory_bytes().map_err(|error| error.to_string())?;
    if budget_bytes > machine {
        return Err(format!(
            "a budget of {} is more than this machine's memory; give at most {}",
            ByteCount(budget_bytes),
            ByteCount(machine)
        ));
    }
    let living = sources.fleet.guests.iter().filter(|guest| !guest.has_ended());
    let guests: Vec<_> = living.map(Guest::current_plan).collect();
    admission::refit(&sources.fleet.config, &guests, sources.fleet.frames_bytes(), budget_bytes)
}
