//! The guests of a run: what they are, and whether they run.
//!
//! ```text
//!   GET   /v1/guests            every guest
//!   GET   /v1/guests/{guest}    one
//!   PATCH /v1/guests/{guest}
//!     {"state": "paused" | "running"}                           204, or 409 where it is neither
//!     {"shares": N, "reservation_bytes": N, "limit_bytes": N}   204, or 422 where that cannot be promised,
//!                                                               with what can
//! ```
//!
//! Promises are in force from the next tick on. Figures are as the VMM said last, `status_age_seconds` ago;
//! they are `old` if that is more than two seconds. `own` is what the guest says of its memory itself, null
//! where it does not.
//!
//! A guest is `pausing` until its VMM has said that no vCPU is in it any more; nobody waits for that here.

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::PAGE_BYTES;
use wire::balloon::stat::{AVAIL, MEMFREE, MEMTOT};

use super::answer::{Body, Local, json as respond, refuse};
use super::sources::Sources;
use crate::bytes::ByteCount;
use crate::fleet::guest::Guest;
use crate::fleet::phase::Phase;
use crate::request::admission;
use crate::request::guest_promises::PromiseChange;
use crate::request::guest_settings::dedup_name;
use crate::sync::lock;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    state: Option<Wish>,
    shares: Option<u32>,
    reservation_bytes: Option<u64>,
    limit_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Wish {
    Paused,
    Running,
}

pub(super) async fn list(Shared(sources): Shared<Sources>) -> Response {
    let guests: Vec<_> = sources.fleet.guests.iter().map(|guest| describe(&sources, guest)).collect();
    respond(StatusCode::OK, &json!({ "guests": guests }))
}

pub(super) async fn show(Shared(sources): Shared<Sources>, Path(name): Path<String>) -> Response {
    let guest = sources.fleet.guests.iter().find(|guest| guest.plan.name == name);
    guest.map_or_else(|| sources.no_such_guest(&name), |guest| respond(StatusCode::OK, &describe(&sources, guest)))
}

pub(super) async fn change(
    _: Local,
    Shared(sources): Shared<Sources>,
    Path(name): Path<String>,
    Body(change): Body<Change>,
) -> Response {
    let Some(guest) = sources.fleet.guests.iter().find(|guest| guest.plan.name == name) else {
        return sources.no_such_guest(&name);
    };
    let Change { state: wish, shares, reservation_bytes, limit_bytes } = change;
    let promised = PromiseChange { shares, reservation_bytes, limit_bytes };
    if wish.is_none() && promised == PromiseChange::default() {
        let message = "nothing to change: give state, shares, reservation_bytes or limit_bytes";
        return refuse(StatusCode::BAD_REQUEST, "bad_input", message);
    }
    if promised != PromiseChange::default()
        && let Err(message) = promise(&sources, guest, &promised)
    {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "does_not_fit", &message);
    }
    let (done, what) = match wish {
        Some(Wish::Paused) => (guest.pause(), "paused"),
        Some(Wish::Running) => (guest.resume(), "resumed"),
        None => (true, "changed"),
    };
    if done {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = format!("{name} is {}: it cannot be {what}", guest.view().phase);
    refuse(StatusCode::CONFLICT, "wrong_state", &message)
}

/// Promises a guest something else, if that can be kept; otherwise, why not, and what could.
fn promise(sources: &Sources, guest: &Guest, change: &PromiseChange) -> Result<(), String> {
    let _turn = lock(&sources.changing);
    let fleet = &sources.fleet;
    let living: Vec<_> = fleet.guests.iter().filter(|guest| !guest.has_ended()).collect();
    let name = &guest.plan.name;
    let at = living.iter().position(|living| living.plan.name == *name).ok_or_else(|| format!("{name} has ended"))?;
    let plans: Vec<_> = living.iter().map(|guest| guest.current_plan()).collect();
    let before = plans[at].promises;
    let after = before.with(change);
    let budget_bytes = sources.meter.budget.bytes();
    admission::repromise(&fleet.config, &plans, at, after, fleet.frames_bytes(), budget_bytes)?;
    let least_bytes = sources.decisions.last(name).map_or(0, |record| record.guest.livable_bytes());
    if let Some(limit_bytes) = change.limit_bytes.filter(|&limit_bytes| limit_bytes < least_bytes) {
        return Err(format!(
            "{name} cannot be limited to {} now: its pages cannot be squeezed below {}; give at least that",
            ByteCount(limit_bytes),
            ByteCount(least_bytes.next_multiple_of(1 << 20))
        ));
    }
    guest.promise(after);
    tracing::info!(guest = name, ?before, ?after, "promises changed");
    Ok(())
}

fn describe(sources: &Sources, guest: &Guest) -> Value {
    let view = &guest.view();
    let (status, pager, fresh) = (&view.status, &view.status.pager, &view.freshness);
    let promised = admission::promised_to(&sources.fleet.config, &guest.plan, &view.promises);
    let phase = if view.state() == Phase::Paused.name() && !status.paused { "pausing" } else { view.state() };
    let pages = &pager.pages;
    let bytes = |pages: u64| pages * PAGE_BYTES as u64;
    json!({
        "name": view.name,
        "domain": view.domain,
        "state": phase,
        "reclaim": view.reclaiming.map(|reclaiming| reclaiming.describe(&view.name, sources.fleet.clock.now())),
        "memory_bytes": status.memory_bytes,
        "shares": promised.shares,
        "reservation_bytes": promised.reservation_bytes,
        "limit_bytes": promised.limit_bytes,
        "levers": {
            "dedup": dedup_name(guest.plan.levers.dedup), "balloon": guest.plan.levers.balloon, "swap": guest.plan.swap_bytes > 0,
        },
        "allocation_bytes": view.grant.allocation_bytes,
        "resident_bytes": pager.resident_bytes,
        "balloon": { "requested_bytes": view.grant.balloon_bytes, "actual_bytes": status.balloon.actual_bytes },
        "by_state_bytes": {
            "private": bytes(pages.private), "shared": bytes(pages.shared), "zero": bytes(pages.zero),
            "ballooned": bytes(pages.ballooned), "compressed": bytes(pages.compressed), "swapped": bytes(pages.swapped),
            "clean": bytes(pages.clean),
        },
        "kernel_tier_bytes": bytes(pager.kernel_pages),
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
