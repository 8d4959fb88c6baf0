//! Guests get more memory than there is, and lose nothing.

use std::fs;

use nix::unistd::Pid;

use crate::support::{Run, Turn, has_kvm, wait_until};

const EIGHT: &str = "--guests 8 --memory 64MiB --budget 224MiB --duration 8s";

#[test]
fn eight_guests_live_in_less_than_half_their_memory() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    let run = Run::start(EIGHT).finish();
    run.assert_kept_its_promise();
    assert_eq!(run.report["host"]["vcpu"], "kvm");
    assert!(run.number("/host/overcommit_ratio") > 2.2);
    for mechanism in ["balloon", "shared", "zero", "compressed"] {
        assert!(run.number(&format!("/reclaimed_bytes/{mechanism}")) > 0.0, "nothing by {mechanism}: {}", run.summary);
    }
}

#[test]
fn host_threads_keep_the_same_promise() {
    let _turn = Turn::take();
    let run = Run::start(&format!("{EIGHT} --vcpu hosted")).finish();
    run.assert_kept_its_promise();
    assert_eq!(run.report["host"]["vcpu"], "hosted");
}

#[test]
fn sixteen_guests_of_two_vcpus_keep_it_too() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    let run = Run::start("--guests 16 --memory 64MiB --budget 448MiB --vcpus 2 --duration 10s").finish();
    run.assert_kept_its_promise();
    assert_eq!(run.report["guests"].as_array().unwrap().len(), 16);
}

/// The page-state tables' own sum against the kernel's: both are read from outside, from guests that hold still.
#[test]
fn the_tables_agree_with_the_kernel_within_two_per_cent() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    let run = Run::start("--guests 4 --memory 128MiB --budget 320MiB --workload identical --duration 20s");
    run.wait_for(4, "running");
    wait_until("guests hold memory", || run.metric("ballast_guest_resident_bytes") > 64e6);
    let mut errors: Vec<f64> = (0..15)
        .map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(500));
            let before = run.metric("ballast_guest_resident_bytes");
            let kernel: u64 = run.vmms().into_iter().map(anonymous_bytes).sum();
            let after = run.metric("ballast_guest_resident_bytes");
            let table = (before + after) / 2.0;
            (table - kernel as f64).abs() / kernel as f64
        })
        .collect();
    run.finish().assert_kept_its_promise();
    errors.sort_by(f64::total_cmp);
    assert!(errors[errors.len() / 2] < 0.02, "median error of {errors:?}");
}

fn anonymous_bytes(pid: Pid) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss_Anon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
