//! The endpoint's thread: it accepts, bounds and ends connections, and calls the router for each request.
//!
//! ```text
//!   accept -- a place (`peers`) --> head within 5 s --> body and answer within 10 s in all --> closed
//! ```
//!
//! One thread with an ordinary nice value does all of it: whatever peers do, the threads that read what
//! guests report and grant them memory go before it, and it never takes more than their shares of a CPU
//! (`peers`, [`metered`]). A connection serves one request, so that none is ever idle, and one deadline
//! bounds everything a peer may be slow at: its head, its body, taking the answer.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::peers::{Account, Ending, Peers, Place};
use crate::clock::thread_cpu_time;

/// How long the head of a request may take.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take in all, what is left of an answer included: 16 MiB at 13 Mbit/s.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Longest head of a request, bytes; browsers and scrapers send less than two KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Share of one CPU that accepting and refusing connections may take: ten thousand a second.
const ACCEPT_CPU_SHARE: f64 = 0.1;
/// How long nothing is accepted after the system could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What somebody hears for whom there is no room, if the kernel takes it at once.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The thread that serves; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Serves `router` to `peers`, on a thread with the caller's nice value.
    pub(super) fn start(listener: std::net::TcpListener, router: Router, peers: Arc<Peers>) -> io::Result<Endpoint> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    error = accept(listener, router, peers) => tracing::error!(%error, "metrics are served no more"),
                }
            });
        };
        let thread = std::thread::Builder::new().name("endpoint".into()).spawn(serve)?;
        Ok(Endpoint { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Nothing on it waits for anything but peers; a panic was reported when it happened.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Accepts connections until it is dropped; an error is one of the listener itself.
async fn accept(listener: std::net::TcpListener, router: Router, peers: Arc<Peers>) -> io::Error {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let accepting = Account::new(ACCEPT_CPU_SHARE);
    let mut failing = false;
    loop {
        match metered(&accepting, listener.accept()).await {
            Ok((stream, address)) => {
                failing = false;
                let Some(place) = peers.admit(address.ip(), Instant::now()) else {
                    let _ = stream.try_write(NO_ROOM);
                    continue;
                };
                let id = place.id();
                let task = tokio::spawn(serve(stream, address, place, router.clone(), Arc::clone(&peers)));
                Place::served_by(&peers, id, task.abort_handle());
            }
            // The peer left before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "no connection to the metrics address can be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request of a connection.
async fn serve(stream: TcpStream, address: SocketAddr, place: Place, router: Router, peers: Arc<Peers>) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        place.asked();
        request.extensions_mut().insert(ConnectInfo(address));
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let connection = http.keep_alive(false).serve_connection(TokioIo::new(stream), service);
    peers.count(match timeout(CONNECTION_MAX, metered(place.account(), connection)).await {
        Ok(Ok(())) => Ending::Served,
        Ok(Err(error)) if !error.is_timeout() => Ending::Broken,
        Ok(Err(_)) | Err(_) => Ending::Expired,
    });
}

/// Does some work at the cost of an account: while that is overdrawn, the work rests.
async fn metered<F: Future>(account: &Account, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut rest = None;
    poll_fn(|context| {
        loop {
            if let Some(rest) = &mut rest {
                ready!(Future::poll(std::pin::Pin::as_mut(rest), context));
            }
            rest = account.owed(Instant::now()).map(|owed| Box::pin(sleep(owed)));
            if rest.is_none() {
                let begun = thread_cpu_time();
                let polled = work.as_mut().poll(context);
                // If that was too much, it shows before the next time.
                let _ = account.spend(thread_cpu_time().saturating_sub(begun), Instant::now());
                return polled;
            }
        }
    })
    .await
}
