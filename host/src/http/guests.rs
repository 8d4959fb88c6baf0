//! The guests of a run: what they are, and whether they run.
//!
//! ```text
//!   GET   /v1/guests            every guest
//!   GET   /v1/guests/{guest}    one
//!   PATCH /v1/guests/{guest}    {"state": "paused" | "running"}      204, or 409 where it is neither
//! ```
//!
//! Figures are as the VMM said last, `status_age_seconds` ago; they are `old` if that is more than two
//! seconds. `own` is what the guest says of its memory itself, null where it does not.
//!
//! A guest is `pausing` until its VMM has said that no vCPU is in it any more; nobody waits for that here.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::PAGE_BYTES;
use wire::balloon::stat::{AVAIL, MEMFREE, MEMTOT};

use super::{Local, State, json as respond, refuse};
use crate::guest::View;
use crate::phase::Phase;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    state: Wish,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Wish {
    Paused,
    Running,
}

pub(super) async fn list(Shared(state): Shared<State>) -> Response {
    let guests: Vec<_> = state.fleet.views().iter().map(describe).collect();
    respond(StatusCode::OK, &json!({ "guests": guests }))
}

pub(super) async fn show(Shared(state): Shared<State>, Path(name): Path<String>) -> Response {
    let view = state.fleet.views().into_iter().find(|view| view.name == name);
    view.map_or_else(|| state.no_such_guest(&name), |view| respond(StatusCode::OK, &describe(&view)))
}

pub(super) async fn change(
    _: Local,
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    body: Result<Json<Change>, JsonRejection>,
) -> Response {
    let wish = match body {
        Ok(Json(change)) => change.state,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "bad_input", &error.body_text()),
    };
    let Some(guest) = state.fleet.guests.iter().find(|guest| guest.plan.name == name) else {
        return state.no_such_guest(&name);
    };
    let (done, what) = match wish {
        Wish::Paused => (guest.pause(), "paused"),
        Wish::Running => (guest.resume(), "resumed"),
    };
    if done {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = format!("{name} is {}: it cannot be {what}", guest.view().phase);
    refuse(StatusCode::CONFLICT, "wrong_state", &message)
}

fn describe(view: &View) -> Value {
    let (status, pager, fresh) = (&view.status, &view.status.pager, &view.freshness);
    let state = if view.state() == Phase::Paused.name() && !status.paused { "pausing" } else { view.state() };
    let pages = &pager.pages;
    let bytes = |pages: u64| pages * PAGE_BYTES as u64;
    json!({
        "name": view.name,
        "domain": view.domain,
        "state": state,
        "memory_bytes": status.memory_bytes,
        "allocation_bytes": view.grant.allocation_bytes,
        "resident_bytes": pager.resident_bytes,
        "balloon": { "requested_bytes": view.grant.balloon_bytes, "actual_bytes": status.balloon.actual_bytes },
        "by_state_bytes": {
            "private": bytes(pages.private), "shared": bytes(pages.shared), "zero": bytes(pages.zero),
            "ballooned": bytes(pages.ballooned), "compressed": bytes(pages.compressed), "swapped": bytes(pages.swapped),
            "clean": bytes(pages.clean),
        },
        "stall_seconds_total": pager.stall_ns_total as f64 / 1e9,
        "operations_total": view.operations(),
        "restarts_total": view.past.restarts,
        "start_time_seconds": fresh.started_seconds(),
        "status_age_seconds": fresh.status_age.map(|age| age.as_secs_f64()),
        "old": fresh.is_old() && !view.has_ended(),
        "own": {
            "total_bytes": status.balloon.statistic(MEMTOT), "free_bytes": status.balloon.statistic(MEMFREE),
            "available_bytes": status.balloon.statistic(AVAIL),
            "age_seconds": fresh.own_age.map(|age| age.as_secs_f64()),
        },
    })
}
