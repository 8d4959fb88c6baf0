//! `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever watches the service, `/v1/...` for whoever
//! runs it.
//!
//! ```text
//!   server (its own thread) -- peers: room? -- body short? -- names: ours? --> router --> guests, host, ...
//! ```
//!
//! Everything is made from the guests' latest words when it is asked for; no request ever waits for a guest.
//! Anybody who reaches the address may look, if by one of our [`names`]; only processes of this machine may
//! change anything ([`Local`]). What [`peers`] may have of descriptors and CPU is bounded, whatever they do.

mod guests;
mod host;
mod names;
mod peers;
mod reclaim;
mod scrape;
mod server;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{self, ConnectInfo, DefaultBodyLimit, FromRequestParts, Request};
use axum::http::{StatusCode, header, request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::HttpBody as _};
use metrics::Snapshot;
use policy::state::HostState;
use serde_json::{Value, json};
use wire::balloon::stat::{AVAIL, MEMFREE, MEMTOT};

use crate::control::decisions::Decisions;
use crate::control::prices::LeverFigures;
use crate::error::Error;
use crate::fleet::accounting::Meter;
use crate::fleet::domains::DomainView;
use crate::fleet::guest::{Guest, STATES, View};
use crate::fleet::lives::Fleet;
use crate::request::promises::Promise;
use crate::show::gain::{DomainGain, areas_wanted, unmerged_pages};
use crate::show::totals::Reclaimed;

pub(crate) use peers::DESCRIPTORS_MAX;
pub(crate) use server::Endpoint;

use names::{Names, Refusal};
use peers::Peers;
use scrape::Scrape;

/// Longest body of a request, bytes: a change is a line of JSON.
const BODY_BYTES_MAX: usize = 16 << 10;

/// What requests are answered from.
#[derive(Clone, Debug)]
pub struct State {
    /// The guests.
    pub fleet: Arc<Fleet>,
    /// Used memory.
    pub meter: Arc<Meter>,
    /// What policy decided lately.
    pub decisions: Arc<Decisions>,
    /// Held while what is promised is checked and changed: two changes that fit one by one need not fit
    /// together.
    changing: Arc<Mutex<()>>,
    /// What other runs know of this one.
    pub promise: Arc<Promise>,
    peers: Arc<Peers>,
    scrape: Arc<Scrape>,
}

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
    let state = State { fleet, meter, decisions, promise, changing, peers: peers_of, scrape };
    let router = router(state, names);
    let started = Endpoint::start(listener, router, peers);
    started.map_err(|source| Error::System { doing: "starting the thread that serves metrics", source })
}

fn router(state: State, names: Names) -> Router {
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
        .with_state(state)
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
async fn ready(extract::State(state): extract::State<State>) -> impl IntoResponse {
    if state.fleet.guests.iter().all(Guest::has_started) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "guests are being built\n")
    }
}

/// How short the host is, and each guest's last decision.
async fn policy(extract::State(state): extract::State<State>) -> Response {
    json(StatusCode::OK, &state.decisions.overview())
}

/// One guest's last decisions, newest first.
async fn guest_policy(
    extract::State(state): extract::State<State>,
    extract::Path(guest): extract::Path<String>,
) -> Response {
    match state.decisions.of_guest(&guest) {
        Some(decisions) => json(StatusCode::OK, &decisions),
        None => state.no_such_guest(&guest),
    }
}

/// Proof that a request comes from this machine: it may change something. Who may *look* need not be trusted
/// with more.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<S: Send + Sync> FromRequestParts<S> for Local {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Local, Response> {
        match parts.extensions.get() {
            Some(ConnectInfo::<SocketAddr>(peer)) if peer.ip().to_canonical().is_loopback() => Ok(Local),
            _ => Err(refuse(StatusCode::FORBIDDEN, "not_local", "only processes of this machine may change anything")),
        }
    }
}

/// An error for people and programs.
fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    json(status, &json!({ "error": { "code": code, "message": message } }))
}

fn json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn metrics(extract::State(state): extract::State<State>) -> Response {
    match state.scrape.get(|| metrics::encode(&state.snapshot())) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl State {
    fn no_such_guest(&self, name: &str) -> Response {
        let names: Vec<_> = self.fleet.views().into_iter().map(|view| view.name).collect();
        let message = format!("there is no guest {name:?}, but {}", names.join(", "));
        refuse(StatusCode::NOT_FOUND, "no_such_guest", &message)
    }

    fn domains(&self, views: &[View]) -> Vec<metrics::Domain> {
        let domains = self.fleet.domains.views();
        let domain = |(gain, view): (DomainGain, &DomainView)| metrics::Domain {
            name: gain.name,
            guests: gain.guests,
            frames_bytes: gain.frames_bytes,
            idle_frames_bytes: gain.idle_frames_bytes,
            gain_zero_bytes: gain.gain_bytes.zero,
            gain_within_bytes: gain.gain_bytes.within_guest,
            gain_across_bytes: gain.gain_bytes.across_guests,
            cow_full_bytes: gain.cow_full_bytes,
            cow_expected_bytes: gain.cow_expected_bytes,
            published_total: view.figures.published_total,
            retired_total: view.figures.retired_total,
            refused_total: view.figures.refused_total,
            declined_total: view.figures.declined_total,
        };
        DomainGain::of(views, &domains).into_iter().zip(&domains).map(domain).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let views = self.fleet.views();
        let frames_bytes = self.fleet.frames_bytes();
        let living = views.iter().enumerate().filter(|(_, view)| !view.has_ended());
        let guests = living.map(|(number, view)| {
            let levers = self.decisions.levers(number).into_iter().flatten();
            let page_ns = |one: LeverFigures| (one.lever.name(), (one.price.per_page_us() * 1e3) as u64);
            let available = |one: LeverFigures| Some((one.lever.name(), one.available_bytes?));
            metrics::Guest {
                name: view.name.clone(),
                allocation_bytes: view.grant.allocation_bytes,
                unresponsive: view.unresponsive,
                unmerged_pages: unmerged_pages(view).to_vec(),
                alias_vmas_wanted: areas_wanted(view),
                lever_page_ns: levers.clone().map(page_ns).collect(),
                lever_available_bytes: levers.filter_map(available).collect(),
                up: view.freshness.is_up(),
                start_time_seconds: view.freshness.started_seconds(),
                restarts_total: view.past.restarts,
                status_age_seconds: view.freshness.status_age.map(|age| age.as_secs_f64()),
                own_total_bytes: view.status.balloon.statistic(MEMTOT),
                own_free_bytes: view.status.balloon.statistic(MEMFREE),
                own_available_bytes: view.status.balloon.statistic(AVAIL),
                own_age_seconds: view.freshness.own_age.map(|age| age.as_secs_f64()),
                status: view.status.clone(),
            }
        });
        let guests: Vec<_> = guests.collect();
        let situation = self.decisions.situation();
        let in_state = |name| (name, views.iter().filter(|view| view.state() == name).count() as u64);
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            host: metrics::Host {
                budget_bytes: self.meter.budget.bytes(),
                used_bytes: self.meter.used_bytes(),
                peak_used_bytes: self.meter.peak_used_bytes(),
                promised_bytes: guests.iter().map(|guest| guest.status.memory_bytes).sum(),
                frames_bytes,
                reclaimed_bytes: Reclaimed::of(&views, frames_bytes).by_mechanism().to_vec(),
                guests: STATES.map(in_state).to_vec(),
                state: HostState::ALL.map(|one| (one.name(), u64::from(one == situation.state))).to_vec(),
                usable_bytes: situation.usable_bytes,
                short_bytes: situation.short_bytes(),
                decisions: self.decisions.counts(),
                connections: self.peers.outcomes(),
            },
            domains: self.domains(&views),
            guests,
        }
    }
}
