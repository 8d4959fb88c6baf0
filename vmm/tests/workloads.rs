//! The real guest, on KVM and hosted vCPUs, over plain anonymous memory: every workload starts, works, stops
//! when told to, and finds every page right. What the pager and the balloon do to it is tested elsewhere.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use vmm::{
    Error,
    board::{Board, Bus, Firmware},
    devices::Console,
    kvm::{self, Vm},
    sys::{mapping::Mapping, ram::Ram},
    vcpus::Vcpus,
};
use wire::machine::{BootInfo, CONSOLE_BASE, VcpuReport, Workload};

const RAM_BYTES: u64 = 64 << 20;
const IMAGE: &[u8] = include_bytes!(env!("BALLAST_BARE_GUEST"));
/// How long each workload works; longer with `BALLAST_TEST_MS`, for figures.
const WORK: Duration = Duration::from_millis(200);
/// For verifying 64 MiB, and whatever else the machine does meanwhile.
const LONG: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kvm,
    Hosted,
}

/// A guest at the gate, and what it runs on.
struct Machine {
    board: Arc<Board>,
    vcpus: Vcpus,
    /// After `vcpus`: it is in use for as long as they run.
    _ram: Mapping,
}

/// Says so past the test harness's capture, or nobody would see it.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// `None`, loudly, where there is no KVM.
fn machine(kind: Kind, workload: Workload, vcpus: u32) -> Option<Machine> {
    if let (Kind::Kvm, Err(error @ Error::KvmMissing)) = (kind, kvm::open()) {
        skipped(&error.to_string());
        return None;
    }
    let memory = Mapping::anonymous(RAM_BYTES as usize).unwrap();
    // SAFETY: each test joins the vCPUs before `memory` goes, and nobody refers to what is in it.
    let ram = unsafe { Ram::new(memory.address(), RAM_BYTES) };
    let boot = BootInfo { seed: 42, guest: 3, vcpus, ..BootInfo::new(RAM_BYTES, workload as u32) };
    let mut firmware = Firmware::new(boot).unwrap();
    let start = firmware.load(IMAGE).unwrap();
    let firmware = Arc::new(firmware);
    let mut bus = Bus::default();
    let console = Console::new(move |line| eprintln!("{kind:?} {workload:?}: {line}"));
    bus.attach(CONSOLE_BASE, 0x1000, Arc::new(console)).unwrap();
    let board = Arc::new(Board::new(firmware.clone(), bus, Arc::default()));
    let vcpus = match kind {
        Kind::Kvm => Vcpus::kvm(&Vm::new(ram, firmware, start).unwrap(), board.clone()).unwrap(),
        Kind::Hosted => Vcpus::hosted(ram, board.clone()).unwrap(),
    };
    Some(Machine { board, vcpus, _ram: memory })
}

/// Runs a guest for [`WORK`], pausing it once on the way.
fn run(kind: Kind, workload: Workload, vcpus: u32) {
    let Some(machine) = machine(kind, workload, vcpus) else { return };
    let firmware = &machine.board.firmware;
    let work = std::env::var("BALLAST_TEST_MS").map_or(WORK, |ms| Duration::from_millis(ms.parse().unwrap()));
    let began = Instant::now();
    let tick_until = |end: Duration| {
        while began.elapsed() < end && !machine.vcpus.wait(Duration::from_millis(10)) {
            machine.board.set_clock();
        }
    };
    machine.vcpus.resume();
    tick_until(work / 2);
    machine.vcpus.pause(LONG).unwrap();
    machine.vcpus.resume();
    tick_until(work);
    let cpu_seconds: f64 = machine.vcpus.thread_ids().into_iter().map(cpu_seconds).sum();
    let stopping = Instant::now();
    machine.board.stop_guest();
    assert!(machine.vcpus.wait(LONG), "{kind:?} {workload:?}: does not stop");
    let stopped_ms = stopping.elapsed().as_millis();
    assert_eq!(machine.vcpus.join().unwrap(), vec![0; vcpus as usize]);

    let sum = |counter: fn(&VcpuReport) -> u64| firmware.reports().map(counter).sum::<u64>();
    let operations = sum(|report| report.operations.load(Ordering::Relaxed));
    let verified = sum(|report| report.pages_verified.load(Ordering::Relaxed));
    eprintln!(
        "{kind:?} {workload:?} x{vcpus}: {cpu_seconds:.2} CPU seconds, for each of them {:.0} operations, {:.0} pages verified; \
         stopped in {stopped_ms} ms",
        operations as f64 / cpu_seconds,
        verified as f64 / cpu_seconds,
    );
    assert_eq!(sum(|report| report.pages_corrupt.load(Ordering::Relaxed)), 0);
    assert!(verified > 0 || workload == Workload::Idle, "{kind:?} {workload:?} verified nothing");
}

/// CPU time of a thread, the guest's included; 0 when it has ended.
fn cpu_seconds(tid: i32) -> f64 {
    let schedstat = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).unwrap_or_default();
    schedstat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

/// Everything on one kind of vCPU, with one of them and with two.
fn run_all(kind: Kind) {
    for (_, workload) in Workload::NAMES {
        for vcpus in [1, 2] {
            run(kind, workload, vcpus);
        }
    }
}

#[test]
fn every_workload_verifies_its_pages_on_kvm() {
    run_all(Kind::Kvm);
}

#[test]
fn every_workload_verifies_its_pages_hosted() {
    run_all(Kind::Hosted);
}

#[test]
fn a_working_guest_of_either_kind_can_be_killed() {
    for kind in [Kind::Kvm, Kind::Hosted] {
        let Some(machine) = machine(kind, Workload::Zipf, 2) else { continue };
        machine.vcpus.resume();
        let deadline = Instant::now() + LONG;
        while machine.board.firmware.reports().any(|report| report.operations.load(Ordering::Relaxed) == 0) {
            assert!(Instant::now() < deadline, "{kind:?}: the guest does not work");
            std::thread::yield_now();
        }
        machine.vcpus.kill();
        assert!(machine.vcpus.wait(LONG), "{kind:?}: the guest does not end");
        assert!(matches!(machine.vcpus.join(), Err(Error::VcpuKilled(0))), "{kind:?}");
    }
}
