//! A zram device made for a run, and what becomes of it when things go wrong.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};

use super::kit::{Hog, OtherGroup, exists, group_of, is_swap, limit_bytes, records, start, turn, unlimit};
use crate::support::{MIB, wait_until};

#[test]
fn each_vmm_is_limited_to_its_allocation_and_the_host_swaps_nothing() {
    let Some(_turn) = turn() else { return };
    let (run, _) = start("--duration 1h");
    let groups: Vec<_> = run.vmms().into_iter().map(group_of).collect();
    for group in &groups {
        assert!(group.display().to_string().contains(&format!("ballast-{}-", run.host())), "{group:?}");
        run.wait_until("a limit near the allocation", || limit_bytes(group) < 256 << 20);
        // Whoever changes it from outside changes it for a tick.
        unlimit(group);
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
    let group = OtherGroup::make(&run, 16 << 20);
    let _hog = Hog::start(group.path(), 80);
    let others = || run.metric_where("ballast_host_kernel_tier_memory_bytes", |labels| labels.contains("others"));
    run.wait_until("pages of others in the device", || others() > 48.0 * MIB);
    run.signal(Signal::SIGINT);
    run.finish().assert_lost_nothing();
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
