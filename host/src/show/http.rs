//! `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever watches the service, `/v1/...` for whoever
//! runs it.
//!
//! ```text
//!   server (its own thread) -- peers: room? -- body short? -- names: ours? --> router --> guests, host, ...
//! ```
//!
//! Everything is made from the guests' latest words when it is asked for; no request ever waits for a guest.
//! Anybody who reaches the address may look, if by one of our [`names`]; only processes of this machine may
//! change anything ([`answer::Local`]). What [`peers`] may have of descriptors and CPU is bounded, whatever
//! they do.

mod answer;
mod guests;
mod host;
mod names;
pub(crate) mod peers;
mod reclaim;
mod scrape;
mod server;
mod sources;

use std::sync::Arc;

use axum::extract::{self, DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::HttpBody as _};

use crate::control::decisions::Decisions;
use crate::error::Error;
use crate::fleet::accounting::Meter;
use crate::fleet::guest::Guest;
use crate::fleet::lives::Fleet;
use crate::request::promises::Promise;

pub(crate) use server::Endpoint;

use answer::{json, refuse};
use names::{Names, Refusal};
use peers::Peers;
use sources::Sources;

/// Longest body of a request, bytes: a change is a line of JSON.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Serves until what it returns is dropped.
pub fn serve(
    listener: std::net::TcpListener,
    fleet: Arc<Fleet>,
    meter: Arc<Meter>,
    decisions: Arc<Decisions>,
    promise: Arc<Promise>,
) -> Result<Endpoint, Error> {
    let (peers, names) = (Peers::new(), Names::new(&fleet.config.allow_hosts));
    let (peers_of, scrape, changing) = (Arc::clone(&peers), Arc::default(), Arc::default());
    let sources = Sources { fleet, meter, decisions, promise, changing, peers: peers_of, scrape };
    let router = router(sources, names);
    let started = Endpoint::start(listener, router, peers);
    started.map_err(|source| Error::System { doing: "starting the thread that serves metrics", source })
}

fn router(sources: Sources, names: Names) -> Router {
    Router::new()
        .route("/metrics", get(self::metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/v1/policy", get(policy))
        .route("/v1/host", get(host::show).patch(host::change))
        .route("/v1/guests", get(guests::list))
        .route("/v1/guests/{guest}", get(guests::show).patch(guests::change))
        .route("/v1/guests/{guest}/policy", get(guest_policy))
        .route("/v1/guests/{guest}/reclaim", post(reclaim::begin).delete(reclaim::end))
        .with_state(sources)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(names), screen))
}

/// Lets requests through that are meant for us and no longer than any of ours.
async fn screen(extract::State(names): extract::State<Arc<Names>>, request: Request, next: Next) -> Response {
    // A body of unannounced length is cut off by the limit on the router.
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        let message = format!("a body has at most {BODY_BYTES_MAX} bytes");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_long", &message);
    }
    let (parts, body) = request.into_parts();
    match names.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(Refusal(status, code, message)) => refuse(status, code, &message),
    }
}

/// Ready once every guest is built.
async fn ready(extract::State(sources): extract::State<Sources>) -> impl IntoResponse {
    if sources.fleet.guests.iter().all(Guest::has_started) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "guests are being built\n")
    }
}

/// How short the host is, and each guest's last decision.
async fn policy(extract::State(sources): extract::State<Sources>) -> Response {
    json(StatusCode::OK, &sources.decisions.overview())
}

/// One guest's last decisions, newest first.
async fn guest_policy(
    extract::State(sources): extract::State<Sources>,
    extract::Path(guest): extract::Path<String>,
) -> Response {
    match sources.decisions.of_guest(&guest) {
        Some(decisions) => json(StatusCode::OK, &decisions),
        None => sources.no_such_guest(&guest),
    }
}

async fn metrics(extract::State(sources): extract::State<Sources>) -> Response {
    match sources.scrape.get(|| metrics::encode(&sources.snapshot())) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
