//! The kernel tier: a zram device made for a run, and what becomes of it when things go wrong.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;

use crate::support::{Run, Turn, skipped, wait_until};

const RECORDS: &str = "/run/ballast";

/// The turn, where a zram device can be made.
fn turn() -> Option<Turn> {
    let zram = fs::metadata("/sys/class/zram-control/hot_add").is_ok();
    if !(geteuid().is_root() && zram) {
        skipped("needs root and zram");
        return None;
    }
    Turn::take_with_kvm()
}

/// The devices that hosts have on record, with what the record says.
fn records() -> Vec<(String, String)> {
    let files = fs::read_dir(RECORDS).into_iter().flatten().flatten();
    let record = |file: fs::DirEntry| {
        let number = file.file_name().to_str()?.strip_prefix("zram-")?.to_owned();
        Some((format!("/dev/zram{number}"), fs::read_to_string(file.path()).ok()?))
    };
    files.filter_map(record).collect()
}

/// The device of a run.
fn device_of(run: &Run) -> Option<String> {
    let owner = format!("{}-", run.host());
    records().into_iter().find(|(_, text)| text.starts_with(&owner)).map(|(device, _)| device)
}

fn is_swap(device: &str) -> bool {
    fs::read_to_string("/proc/swaps").unwrap().lines().any(|line| line.split_whitespace().next() == Some(device))
}

fn exists(device: &str) -> bool {
    fs::metadata(device.replace("/dev/", "/sys/block/")).is_ok()
}

/// A run with a tier that runs guests, and its device.
fn start(arguments: &str) -> (Run, String) {
    let run = Run::start(&format!("--guests 2 --memory 64MiB --budget 128MiB --kernel-tier auto {arguments}"));
    run.wait_for(2, "running");
    let device = device_of(&run).unwrap();
    assert!(is_swap(&device) && exists(&device), "{device}");
    (run, device)
}

#[test]
fn a_device_is_there_while_its_run_is_and_goes_with_it() {
    let Some(_turn) = turn() else { return };
    let (run, device) = start("--duration 3s");
    run.finish().assert_kept_its_promise();
    assert!(!is_swap(&device) && !exists(&device), "{device} is left");
    let (run, device) = start("--duration 1h");
    run.signal(Signal::SIGINT);
    run.finish();
    assert!(!is_swap(&device) && !exists(&device), "{device} is left after an interrupt");
}

#[test]
fn what_a_killed_host_left_goes_with_the_next_start_and_that_of_a_living_one_stays() {
    let Some(_turn) = turn() else { return };
    let (living, theirs) = start("--duration 1h");
    let (killed, left) = start("--duration 1h");
    let host = killed.host();
    kill(host, Signal::SIGKILL).unwrap();
    drop(killed);
    assert!(is_swap(&left), "nothing was left of host {host}");
    let (run, own) = start("--duration 1s");
    assert!(is_swap(&theirs) && exists(&theirs), "{theirs} was not ours to take");
    assert!(records().iter().all(|(_, text)| !text.starts_with(&format!("{host}-"))), "{:?}", records());
    run.finish().assert_kept_its_promise();
    living.signal(Signal::SIGINT);
    living.finish();
    for device in [theirs, left, own] {
        assert!(!is_swap(&device) && !exists(&device), "{device} is left");
    }
}

#[test]
fn a_run_whose_device_is_taken_out_of_use_goes_on_without_it() {
    let Some(_turn) = turn() else { return };
    let (run, device) = start("--duration 4s");
    assert!(Command::new("/usr/sbin/swapoff").arg(&device).status().unwrap().success());
    run.finish().assert_kept_its_promise();
    wait_until("the device is gone", || !exists(&device));
}

#[test]
fn a_device_that_somebody_uses_or_that_is_none_is_refused() {
    let Some(_turn) = turn() else { return };
    let (run, device) = start("--duration 1h");
    for (given, words) in [(device.as_str(), "has a size"), ("/dev/null", "is no zram device"), ("on", "auto, off")] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ballast")).args(["run", "--kernel-tier", given]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("--kernel-tier") && said.contains(words), "{said}");
    }
    run.signal(Signal::SIGINT);
    run.finish();
}
