//! Starting `ballast`, watching it from outside, and reading what it leaves.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The right to use the machine's memory and CPUs alone.
pub struct Turn(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Turn {
    pub fn take() -> Turn {
        static TURN: Mutex<()> = Mutex::new(());
        Turn(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether guests can run in KVM here.
pub fn has_kvm() -> bool {
    let there = Path::new("/dev/kvm").exists();
    if !there {
        eprintln!("SKIPPED: no /dev/kvm");
    }
    there
}

/// A `ballast run` under way.
pub struct Run {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

/// One that is over.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub summary: String,
    pub report: Value,
}

impl Run {
    /// Starts `ballast run` with these arguments, and a free address and a report file besides.
    pub fn start(arguments: &str) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_ballast"))
            .arg("run")
            .args(arguments.split_whitespace())
            .args(["--metrics", &address.to_string(), "--report"])
            .arg(folder.path().join("report.json"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Run { process, address, folder }
    }

    /// Waits until so many guests are in this state.
    pub fn wait_for(&self, guests: usize, state: &str) {
        let sought = format!("ballast_host_guests{{state=\"{state}\"}} {guests}\n");
        wait_until(&sought, || self.metrics().contains(&sought));
    }

    /// `/metrics` as text; empty while nobody answers.
    pub fn metrics(&self) -> String {
        let mut response = String::new();
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let _ = write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut response);
        }
        response
    }

    /// Sum of a family's series.
    pub fn metric(&self, family: &str) -> f64 {
        let metrics = self.metrics();
        let series =
            metrics.lines().filter(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' '])));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Process ids of the VMMs.
    pub fn vmms(&self) -> Vec<Pid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children
            .flat_map(|pids| pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect::<Vec<_>>())
            .collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    /// Waits for the end, and checks that nothing is left of it.
    pub fn finish(mut self) -> Finished {
        let vmms = self.vmms();
        let mut summary = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
        let status = self.process.wait().unwrap();
        for pid in vmms {
            assert!(is_gone(pid), "VMM {pid} outlived the run");
        }
        let report = fs::read(self.folder.path().join("report.json")).unwrap();
        Finished { status, summary, report: serde_json::from_slice(&report).unwrap_or(Value::Null) }
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

    /// One field of every guest, added up.
    pub fn total(&self, field: &str) -> f64 {
        self.report["guests"].as_array().unwrap().iter().map(|guest| guest[field].as_f64().unwrap()).sum()
    }

    /// The whole promise: exit 0, everything verified, nothing corrupt, use within the budget.
    pub fn assert_kept_its_promise(&self) {
        assert!(self.status.success(), "{}\n{}", self.status, self.summary);
        assert!(self.report["guests"].as_array().unwrap().iter().all(|guest| guest["exit"] == "ok"), "{self:?}");
        assert_eq!(self.total("pages_corrupt_total"), 0.0);
        assert!(self.total("pages_verified_total") > 0.0, "{}", self.summary);
        let (peak, budget) = (self.number("/host/peak_used_bytes"), self.number("/host/budget_bytes"));
        assert!(peak > 0.0 && peak <= budget, "{peak} of {budget} bytes used");
    }
}

pub fn is_gone(pid: Pid) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
