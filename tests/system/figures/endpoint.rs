//! Peers of the endpoint that say nothing, say it slowly, say too much, or too often; and web pages. Guests
//! must not notice.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, prlimit};

use crate::support::{MIB, Run, Turn, exchange, skipped, status, sum_of};

/// Connections of the report that this stands for.
const CONNECTIONS: usize = 362;
/// Most that a test opens in all, of one kind.
const OPENED_MAX: usize = 20_000;

/// Ends what goes on beside a test, when that is over or fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps so many connections open that have sent only `words`, and opens others for those that are closed.
fn hold<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    over: &'env AtomicBool,
    address: SocketAddr,
    count: usize,
    words: &'static str,
) {
    scope.spawn(move || {
        let (mut open, mut opened) = (Vec::<TcpStream>::new(), 0);
        while !over.load(Ordering::Relaxed) && opened < OPENED_MAX {
            open.retain_mut(
                |stream| matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock),
            );
            for _ in open.len()..count {
                let Ok(mut stream) = TcpStream::connect(address) else { break };
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write_all(words.as_bytes());
                open.push(stream);
                opened += 1;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
}

/// Asks for `/metrics` as fast as it is answered, from one address of this machine.
fn flood<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    over: &'env AtomicBool,
    asked: &'env AtomicUsize,
    address: SocketAddr,
    from: [u8; 4],
) {
    scope.spawn(move || {
        while !over.load(Ordering::Relaxed) && asked.fetch_add(1, Ordering::Relaxed) < OPENED_MAX {
            let Ok(mut stream) = connect_from(from, address) else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
}

fn connect_from(from: [u8; 4], address: SocketAddr) -> nix::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd as _;
    let SocketAddr::V4(address) = address else { unreachable!("flooded at an IPv4 address") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let [a, b, c, d] = from;
    bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    Ok(TcpStream::from(socket))
}

/// CPU time of the thread that serves the endpoint.
fn endpoint_cpu(host: Pid) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{host}/task")).unwrap().flatten();
    let mut stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let stat = stats.find(|stat| stat.contains("(endpoint)")).unwrap();
    let mut fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11);
    let mut ticks = || fields.next().unwrap().parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks() + ticks()))
}

fn open_files(process: Pid) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

#[test]
fn idle_connections_cost_no_guest_its_next_start() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run =
        Run::start_with_open_files(256, "--guests 4 --memory 64MiB --budget 160MiB --duration 25s --restart-every 1s");
    run.wait_for(4, "running");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ending = Ending(&over);
        hold(scope, &over, run.address(), CONNECTIONS, "");
        run.wait_until("more connections than there is room for", || {
            run.metric_where("ballast_host_connections_total", |labels| labels.contains("refused")) > 100.0
        });
        let before = run.metric("ballast_guest_restarts_total");
        run.wait_until("every guest started anew meanwhile", || {
            assert!(open_files(run.host()) < 200, "{} files are open", open_files(run.host()));
            run.metric("ballast_guest_restarts_total") >= before + 6.0
        });
    });
    let run = run.finish();
    run.assert_kept_its_promise();
    assert!(run.total("restarts_total") >= 6.0, "{run:?}");
}

#[test]
fn a_start_without_descriptors_is_tried_again() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run =
        Run::start_with_open_files(512, "--guests 2 --memory 64MiB --budget 160MiB --duration 15s --restart-every 1s");
    run.wait_for(2, "running");
    let host = rustix::process::Pid::from_raw(run.host().as_raw());
    let allow =
        |current| prlimit(host, Resource::Nofile, Rlimit { current: Some(current), maximum: Some(512) }).unwrap();
    allow(3);
    run.wait_until("a start that found none", || run.words().contains("not started anew"));
    allow(512);
    run.wait_until("it started after all", || {
        run.metric("ballast_guest_restarts_total") >= 1.0 && run.vmms().len() == 2
    });
    run.finish().assert_kept_its_promise();
}

#[test]
fn slow_long_and_frequent_requests_leave_guests_their_host() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 4 --memory 64MiB --budget 200MiB --workload zipf --duration 1h");
    run.wait_for(4, "running");
    let address = run.address();
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let long = |length: &str, body: &str| {
        exchange(
            address,
            &format!(
                "PATCH /v1/host HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{length}\r\n\r\n{body}"
            ),
        )
    };
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _ending = Ending(&over);
        hold(scope, &over, address, 40, "GET /metrics HTTP/1.1\r\nHost: loc");
        hold(
            scope,
            &over,
            address,
            40,
            "PATCH /v1/host HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n",
        );
        for peer in 2..6 {
            (0..4).for_each(|_| flood(scope, &over, &asked, address, [127, 0, 0, peer]));
        }
        let (begun, cpu) = (Instant::now(), endpoint_cpu(run.host()));
        run.wait_until("thousands of requests", || asked.load(Ordering::Relaxed) > 3_000);
        // The operator still has a way in, and what is ordered is done.
        let body = format!("{{\"budget_bytes\":{}}}", 160 << 20);
        run.wait_until("the budget to be changed", || {
            status(&long(&format!("Content-Length: {}", body.len()), &body)) == Some(204)
        });
        run.wait_until("guests told to keep to it", || {
            let metrics = run.metrics();
            let allocated = sum_of(&metrics, "ballast_guest_allocation_bytes", |_| true);
            (1.0..=160.0 * MIB).contains(&allocated)
        });
        // No guest was left alone for long at any moment that we saw, and the endpoint kept to its part of a
        // CPU.
        run.wait_until("figures", || run.metric("ballast_guest_up") == 4.0);
        let (took, cpu) = (begun.elapsed(), endpoint_cpu(run.host()) - cpu);
        assert!(cpu < took / 2 + Duration::from_millis(500), "{cpu:?} of CPU in {took:?}");
        assert!(open_files(run.host()) < 200, "{} files are open", open_files(run.host()));
    });
    run.wait_until("a head that is too long to be refused", || {
        status(&exchange(address, &huge)).is_none_or(|status| status == 431)
    });
    run.wait_until("a body that is too long to be refused", || status(&long("Content-Length: 20000", "")) == Some(413));
    run.wait_until("all its guests up", || run.metric("ballast_guest_up") == 4.0);
}

#[test]
fn a_request_that_does_not_end_is_ended() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 1 --memory 64MiB --budget 96MiB --workload idle --duration 1h");
    run.wait_for(1, "running");
    let address = run.address();
    let head = format!(
        "PATCH /v1/host HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    );
    for words in ["", "GET /metrics HT", &head] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        let begun = Instant::now();
        // Whatever is said before it is closed.
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert!(begun.elapsed() > Duration::from_secs(2), "{words:?}: closed at once");
    }
    assert_eq!(run.metric_where("ballast_host_connections_total", |labels| labels.contains("expired")), 3.0);
}

/// A change of a guest's state, from whom, to whom.
fn pause(address: SocketAddr, host: &str, origin: Option<&str>) -> u16 {
    let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
    let body = "{\"state\":\"paused\"}";
    let response = exchange(
        address,
        &format!(
            "PATCH /v1/guests/guest0 HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    status(&response).unwrap_or_else(|| panic!("{response:?} for {host}"))
}

#[test]
fn web_pages_can_neither_pause_guests_nor_read() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 1 --memory 64MiB --budget 96MiB --duration 1h --allow-host ballast.example");
    run.wait_for(1, "running");
    let (address, port) = (run.address(), run.address().port());
    let evil = format!("evil.example:{port}");
    assert_eq!(pause(address, &evil, Some(&format!("http://{evil}"))), 421);
    assert_eq!(pause(address, &evil, None), 421);
    assert_eq!(pause(address, &address.to_string(), Some(&format!("http://{evil}"))), 403);
    assert_eq!(pause(address, &address.to_string(), Some("null")), 403);
    for path in ["/metrics", "/v1/guests", "/v1/host", "/v1/policy", "/healthz", "/nothing"] {
        let get = |headers: &str| status(&exchange(address, &format!("GET {path} HTTP/1.1\r\n{headers}\r\n")));
        assert_eq!(get(&format!("Host: {evil}\r\n")), Some(421), "{path}");
        assert_eq!(get(&format!("Host: {address}\r\nOrigin: http://{evil}\r\n")), Some(403), "{path}");
        assert_eq!(get(""), Some(400), "{path}");
    }
    assert!(run.metrics().contains("ballast_host_guests{state=\"running\"} 1\n"), "nobody has paused it");
    for host in [address.to_string(), format!("localhost:{port}"), "ballast.example".into(), "10.0.0.1".into()] {
        assert_eq!(pause(address, &host, None), 204, "{host}");
        assert_eq!(pause(address, &host, Some(&format!("http://{host}"))), 204, "{host}");
    }
    run.wait_for(1, "paused");
}

#[test]
fn an_ipv6_address_is_an_address() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let Ok(address) = TcpListener::bind("[::1]:0").and_then(|listener| listener.local_addr()) else {
        return skipped("no IPv6 loopback");
    };
    let run = Run::start_at(address, "--guests 1 --memory 64MiB --budget 96MiB --duration 1h");
    run.wait_for(1, "running");
    assert_eq!(pause(address, &address.to_string(), Some(&format!("http://{address}"))), 204);
    assert_eq!(pause(address, &format!("[::1].evil.example:{}", address.port()), None), 421);
}

#[test]
fn fewer_descriptors_than_guests_need_are_refused_with_the_number() {
    let run = Run::start_with_open_files(150, "--guests 40 --memory 64MiB --budget 4GiB --duration 1s");
    let address = run.address();
    crate::support::wait_until("a refusal", || run.words().contains("ulimit -n"));
    let words = run.words();
    assert!(words.contains("150 files") && words.contains("40 guests"), "{words}");
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(TcpListener::bind(address).is_ok());
}
