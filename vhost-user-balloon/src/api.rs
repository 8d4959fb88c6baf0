//! HTTP on a unix socket: what the balloon is asked for, what it has, and what the guest says of itself.
//!
//! ```text
//!   GET   /v1/balloon            everything about the balloon
//!   PATCH /v1/balloon            {"requested_bytes": n} and/or {"statistics_interval_ms": n}      204
//!   GET   /v1/balloon/statistics the guest's statistics alone
//!   POST  /v1/balloon/hinting    {"round": "begin" | "end"}                                       204, 409
//! ```
//!
//! What a guest did not report is absent. No request waits for the guest.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve as serve_http};
use serde::{Deserialize, Serialize};
use wire::PAGE_BYTES;
use wire::balloon::stat;

use crate::backend::Backend;

/// How exactly the intervals of statistics are kept.
const TICK: Duration = Duration::from_millis(10);

/// Listens at `path`, for the owner and group.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves requests, if there is a socket, and the clock of the statistics, for ever.
pub(crate) fn serve(listener: Option<UnixListener>, backend: Arc<Backend>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let clock = async {
                let mut ticks = tokio::time::interval(TICK);
                loop {
                    ticks.tick().await;
                    backend.poll_statistics();
                }
            };
            let Some(listener) = listener else { return clock.await };
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let router = Router::new()
                .route("/v1/balloon", get(balloon).patch(change))
                .route("/v1/balloon/statistics", get(statistics))
                .route("/v1/balloon/hinting", post(hint))
                .with_state(backend.clone());
            tokio::select! {
                result = async { serve_http(listener, router).await } => result,
                never = clock => never,
            }
        })
    });
    if let Err(error) = served {
        tracing::error!(%error, "the API is served no more");
    }
}

#[derive(Debug, Serialize)]
struct Balloon {
    requested_bytes: u64,
    actual_bytes: u64,
    state: &'static str,
    driver: &'static str,
    features: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    poison: Option<u32>,
    hint_command: u32,
    statistics_interval_ms: u64,
    statistics: BTreeMap<String, u64>,
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    requested_bytes: Option<u64>,
    statistics_interval_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hinting {
    round: Round,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Round {
    Begin,
    End,
}

async fn balloon(State(backend): State<Arc<Backend>>) -> Json<Balloon> {
    let status = backend.balloon().status();
    let sink = backend.balloon().sink();
    let bytes = |pages: u32| u64::from(pages) * PAGE_BYTES as u64;
    let of_backend = [
        ("broken", backend.broken_total()),
        ("released_bytes", sink.released_bytes.load(Ordering::Relaxed)),
        ("release_failures", sink.failures.load(Ordering::Relaxed)),
    ];
    Json(Balloon {
        requested_bytes: bytes(status.requested_pages),
        actual_bytes: bytes(status.actual_pages),
        state: if status.requested_pages == status.actual_pages { "settled" } else { "moving" },
        driver: if status.driver_ok { "running" } else { "absent" },
        features: status.features,
        poison: status.poison,
        hint_command: status.hint_command,
        statistics_interval_ms: status.statistics_interval_ms,
        statistics: named(&status.statistics),
        counts: status.counts.named().chain(of_backend).collect(),
    })
}

async fn statistics(State(backend): State<Arc<Backend>>) -> Json<BTreeMap<String, u64>> {
    Json(named(&backend.balloon().status().statistics))
}

/// Statistics by name, and those without one by number.
fn named(statistics: &[(u16, u64)]) -> BTreeMap<String, u64> {
    let name = |tag: u16| stat::NAMES.get(usize::from(tag)).map_or_else(|| tag.to_string(), |name| (*name).into());
    statistics.iter().map(|&(tag, value)| (name(tag), value)).collect()
}

async fn change(State(backend): State<Arc<Backend>>, body: Result<Json<Change>, JsonRejection>) -> Response {
    let change = match body {
        Ok(Json(change)) => change,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "bad_input", &error.body_text()),
    };
    if let Some(bytes) = change.requested_bytes.filter(|bytes| !bytes.is_multiple_of(PAGE_BYTES as u64)) {
        let message = format!("requested_bytes {bytes} is no multiple of {PAGE_BYTES}");
        return refuse(StatusCode::BAD_REQUEST, "bad_input", &message);
    }
    if let Some(bytes) = change.requested_bytes {
        backend.set_requested_bytes(bytes);
    }
    if let Some(interval_ms) = change.statistics_interval_ms {
        backend.balloon().set_statistics_interval_ms(interval_ms);
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn hint(State(backend): State<Arc<Backend>>, body: Result<Json<Hinting>, JsonRejection>) -> Response {
    let balloon = backend.balloon();
    match body {
        Ok(Json(Hinting { round: Round::Begin })) => match balloon.begin_hinting() {
            Ok(()) => backend.tell_if(balloon.announce_hinting()),
            Err(error) => return refuse(StatusCode::CONFLICT, "wrong_state", &error.to_string()),
        },
        Ok(Json(Hinting { round: Round::End })) => {
            balloon.end_hinting();
            backend.tell_if(balloon.announce_done());
        }
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "bad_input", &error.body_text()),
    }
    StatusCode::NO_CONTENT.into_response()
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(serde_json::json!({"error": {"code": code, "message": message}}))).into_response()
}
