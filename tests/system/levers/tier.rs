//! The kernel tier: a zram device made for a run, and what becomes of it when things go wrong.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::support::{MIB, Run, Turn, skipped, wait_until};

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

/// The memory cgroup of a process, on either version.
fn group_of(pid: Pid) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |sought: &str, mount: &str| {
        let path = groups
            .lines()
            .find_map(|line| line.split_once(':')?.1.strip_prefix(sought)?.strip_prefix(":/").map(str::to_owned))?;
        Some(Path::new("/sys/fs/cgroup").join(mount).join(path))
    };
    of("memory", "memory").or_else(|| of("", "")).unwrap()
}

/// The file that limits a group.
fn limit_of(group: &Path) -> PathBuf {
    let v1 = group.join("memory.limit_in_bytes");
    if v1.exists() { v1 } else { group.join("memory.high") }
}

fn limit_bytes(group: &Path) -> u64 {
    fs::read_to_string(limit_of(group)).unwrap().trim().parse().unwrap_or(u64::MAX)
}

#[test]
fn each_vmm_is_limited_to_its_allocation_and_the_host_swaps_nothing() {
    let Some(_turn) = turn() else { return };
    let (run, _) = start("--duration 1h");
    let groups: Vec<_> = run.vmms().into_iter().map(group_of).collect();
    for group in &groups {
        assert!(group.display().to_string().contains(&format!("ballast-{}-", run.host())), "{group:?}");
        run.wait_until("a limit near the allocation", || limit_bytes(group) < 256 << 20);
        // Whoever changes it from outside changes it for a tick.
        fs::write(limit_of(group), (1u64 << 40).to_string()).unwrap();
        run.wait_until("the limit is back", || limit_bytes(group) < 256 << 20);
    }
    let host = group_of(run.host());
    let [v1, v2] = ["memory.swappiness", "memory.swap.max"].map(|file| fs::read_to_string(host.join(file)).ok());
    assert_eq!(v1.or(v2).unwrap().trim(), "0");
    run.signal(Signal::SIGINT);
    run.finish();
    assert!(groups.iter().chain([&host]).all(|group| !group.exists()), "{groups:?} are left");
}

#[test]
fn a_guest_whose_group_is_taken_away_goes_on() {
    let Some(_turn) = turn() else { return };
    let (run, _) = start("--duration 5s");
    let vmm = run.vmms()[0];
    let group = group_of(vmm);
    let above = group.parent().unwrap().parent().unwrap();
    fs::write(above.join("cgroup.procs"), vmm.to_string()).unwrap();
    wait_until("the empty group goes", || fs::remove_dir(&group).is_ok());
    run.finish().assert_kept_its_promise();
    assert!(!group.parent().unwrap().exists());
}

#[test]
fn pages_of_others_in_the_device_are_told_from_the_guests() {
    let Some(_turn) = turn() else { return };
    let (run, _) = start("--duration 1h");
    // Who wants more memory than its limit has the kernel swap, to the first device there is.
    let group = group_of(Pid::this()).join(format!("ballast-test-{}", run.host()));
    fs::create_dir(&group).unwrap();
    fs::write(limit_of(&group), (16u64 << 20).to_string()).unwrap();
    let script =
        format!("echo $$ > {}/cgroup.procs; (head -c 80M /dev/urandom; sleep 3600) | tail -c 80M", group.display());
    let mut other = Command::new("sh").args(["-c", &script]).process_group(0).stdout(Stdio::null()).spawn().unwrap();
    let others = || run.metric_where("ballast_host_kernel_tier_memory_bytes", |labels| labels.contains("others"));
    run.wait_until("pages of others in the device", || others() > 48.0 * MIB);
    run.signal(Signal::SIGINT);
    run.finish().assert_lost_nothing();
    kill(Pid::from_raw(-(other.id() as i32)), Signal::SIGKILL).unwrap();
    other.wait().unwrap();
    wait_until("the other's group goes", || fs::remove_dir(&group).is_ok());
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
