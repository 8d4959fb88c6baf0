//! Starting `ballast`, watching it from outside, and reading what it leaves.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub const MIB: f64 = (1 << 20) as f64;
/// Longest that anything here may take beyond the run's own time: machines may be ten times slower than the
/// one this was written on.
const PATIENCE: Duration = Duration::from_secs(120);
/// What reads of `/metrics` may take.
const METRICS_PATIENCE: Duration = Duration::from_secs(10);

/// The right to use the machine's memory and CPUs alone.
pub struct Turn(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Turn {
    pub fn take() -> Turn {
        static TURN: Mutex<()> = Mutex::new(());
        Turn(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same for a test that needs KVM; `None`, loudly, where there is none.
    pub fn take_with_kvm() -> Option<Turn> {
        let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        opened.map(|_| Turn::take()).map_err(|error| skipped(&format!("/dev/kvm: {error}"))).ok()
    }
}

/// Says that a test did not run. Written past the test harness, which keeps what passing tests print.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stderr(), "SKIPPED: {test}: {why}");
}

/// A `ballast run` under way.
pub struct Run {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
    arguments: String,
}

/// One that is over.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub summary: String,
    pub report: Value,
}

impl Run {
    /// Starts `ballast run` with these arguments, and a free address and a report file besides. There are no
    /// swap files unless the arguments say so: most tests are of what memory alone has to hold.
    pub fn start(arguments: &str) -> Run {
        Run::start_by(&mut Command::new(env!("CARGO_BIN_EXE_ballast")), free_address(), arguments)
    }

    /// The same, by a shell that allows this many open files, hard and soft; what the run says is kept.
    pub fn start_with_open_files(limit: u32, arguments: &str) -> Run {
        let script = format!("ulimit -n {limit}; for last; do :; done; exec \"$0\" \"$@\" 2>\"$last.log\"");
        Run::start_by(
            Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_ballast")]),
            free_address(),
            arguments,
        )
    }

    /// The same at an address of choice.
    pub fn start_at(address: SocketAddr, arguments: &str) -> Run {
        Run::start_by(&mut Command::new(env!("CARGO_BIN_EXE_ballast")), address, arguments)
    }

    fn start_by(program: &mut Command, address: SocketAddr, arguments: &str) -> Run {
        let no_swap = if arguments.contains("--swap") { "" } else { "--swap off" };
        let folder = tempfile::tempdir().unwrap();
        let process = program
            .arg("run")
            .args(arguments.split_whitespace())
            .args(no_swap.split_whitespace())
            .args(["--metrics", &address.to_string(), "--report"])
            .arg(folder.path().join("report.json"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Run { process, address, folder, arguments: arguments.to_owned() }
    }

    /// What a run said whose words are kept.
    pub fn words(&self) -> String {
        fs::read_to_string(self.folder.path().join("report.json.log")).unwrap_or_default()
    }

    /// Runs to the end, and, if one of these mechanisms never had anything to show, once more for five times
    /// as long: how far guests get in a second is the machine's business. Every run must keep its promise.
    pub fn finish_reclaiming(arguments: &str, seconds: u64, mechanisms: &[&str]) -> Finished {
        let run = |seconds| {
            let run = Run::start(&format!("{arguments} --duration {seconds}s"));
            let mut idle = mechanisms.to_vec();
            while !is_gone(run.pid()) {
                let metrics = run.metrics();
                let reclaimed = |mechanism: &str| {
                    let label = format!("mechanism=\"{mechanism}\"");
                    sum_of(&metrics, "ballast_host_reclaimed_bytes", |labels| labels.contains(&label))
                };
                idle.retain(|mechanism| reclaimed(mechanism) == 0.0);
                std::thread::sleep(Duration::from_millis(100));
            }
            let finished = run.finish();
            finished.assert_kept_its_promise();
            (finished, idle)
        };
        let (first, idle) = run(seconds);
        if idle.is_empty() {
            return first;
        }
        let (second, idle) = run(5 * seconds);
        assert!(idle.is_empty(), "nothing by {idle:?}: {}", second.summary);
        second
    }

    /// Where its metrics are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until so many guests are in this state.
    pub fn wait_for(&self, guests: usize, state: &str) {
        let sought = format!("ballast_host_guests{{state=\"{state}\"}} {guests}\n");
        self.wait_until(&sought, || self.metrics().contains(&sought));
    }

    /// Waits for something that only happens while the run goes on.
    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        wait_until(&format!("{what}, in {}", self.arguments), || {
            assert!(!is_gone(self.pid()), "{} ended before there was: {what}", self.arguments);
            condition()
        });
    }

    /// `/metrics` as text; empty while nobody answers.
    pub fn metrics(&self) -> String {
        get(self.address, "/metrics")
    }

    /// Sum of a family's series.
    pub fn metric(&self, family: &str) -> f64 {
        self.metric_where(family, |_| true)
    }

    /// Sum of those series of a family whose labels are wanted.
    pub fn metric_where(&self, family: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        sum_of(&self.metrics(), family, wanted)
    }

    /// `ballast ARGUMENTS` to this run's address, once it is over.
    pub fn order(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ballast"));
        command.args(arguments.split_whitespace()).args(["--metrics", &self.address.to_string()]).output().unwrap()
    }

    /// What it says, or what it complains of.
    pub fn ask(&self, arguments: &str) -> Result<String, String> {
        let output = self.order(arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// What is at this path, as JSON; null while nobody answers.
    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&get(self.address, path)).unwrap_or_default()
    }

    /// Process ids of the VMMs, in the guests' order.
    pub fn vmms(&self) -> Vec<Pid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let pids = |list: String| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>();
        let mut pids: Vec<_> = children.flat_map(pids).collect();
        pids.sort_unstable();
        pids.into_iter().map(Pid::from_raw).collect()
    }

    /// Process id of the host.
    pub fn host(&self) -> Pid {
        self.pid()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the end, and checks that nothing is left of it.
    pub fn finish(mut self) -> Finished {
        let vmms = self.vmms();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.arguments);
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut summary = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
        for pid in vmms {
            assert!(is_gone(pid), "VMM {pid} outlived the run");
        }
        // A run that was refused wrote none.
        let report = fs::read(self.folder.path().join("report.json")).unwrap_or_default();
        Finished { status, summary, report: serde_json::from_slice(&report).unwrap_or(Value::Null) }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }
}

impl Drop for Run {
    /// A failed test leaves nothing running either.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Finished {
    /// A number of the report, by its JSON pointer.
    pub fn number(&self, pointer: &str) -> f64 {
        self.report
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("no number {pointer} in {self:?}"))
    }

    pub fn guests(&self) -> &[Value] {
        self.report["guests"].as_array().unwrap_or_else(|| panic!("no report: {self:?}"))
    }

    /// One field of every guest, added up.
    pub fn total(&self, field: &str) -> f64 {
        self.guests().iter().map(|guest| guest[field].as_f64().unwrap()).sum()
    }

    /// What a mechanism has to show.
    pub fn reclaimed_bytes(&self, mechanism: &str) -> f64 {
        self.number(&format!("/reclaimed_bytes/{mechanism}"))
    }

    /// The whole promise: exit 0, everything verified, nothing corrupt, use within the budget.
    pub fn assert_kept_its_promise(&self) {
        assert!(self.status.success(), "{}\n{}", self.status, self.summary);
        assert!(self.guests().iter().all(|guest| guest["exit"] == "ok"), "{self:?}");
        assert!(self.guests().iter().all(|guest| guest["pages_verified_total"].as_u64() > Some(0)), "{self:?}");
        self.assert_lost_nothing();
    }

    /// What holds even when a guest was killed: nothing corrupt, use within the budget.
    pub fn assert_lost_nothing(&self) {
        assert_eq!(self.total("pages_corrupt_total"), 0.0, "{}", self.summary);
        let (peak, budget) = (self.number("/host/peak_used_bytes"), self.number("/host/budget_bytes"));
        assert!(peak > 0.0 && peak <= budget, "{peak} of {budget} bytes used");
    }
}

/// Sum of those series of a family, in Prometheus' text, whose labels are wanted.
pub fn sum_of(metrics: &str, family: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(family)?.rsplit_once(' '));
    let of_family = series.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
    of_family.filter(|(labels, _)| wanted(labels)).map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// The body of an HTTP response; empty when there is none.
pub fn get(address: SocketAddr, path: &str) -> String {
    let response = exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    response.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
}

/// Whatever is answered to these words.
pub fn exchange(address: SocketAddr, request: &str) -> String {
    let mut response = String::new();
    if let Ok(mut stream) = TcpStream::connect_timeout(&address, METRICS_PATIENCE) {
        let _ = stream.set_read_timeout(Some(METRICS_PATIENCE));
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut response);
    }
    response
}

/// The status of an HTTP response; none if there is no response.
pub fn status(response: &str) -> Option<u16> {
    response.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

pub fn is_gone(pid: Pid) -> bool {
    // A zombie is over, but holds its number until it is reaped.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
