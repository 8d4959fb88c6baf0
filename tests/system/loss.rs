//! Processes die and people lose patience; nothing else is lost.

use nix::sys::signal::{Signal, kill};

use crate::support::{MIB, Run, Turn, has_kvm, is_gone, wait_until};

const FOUR: &str = "--guests 4 --memory 128MiB --budget 256MiB";

#[test]
fn a_killed_vmm_is_named_and_its_memory_goes_to_the_others() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    let run = Run::start(&format!("{FOUR} --duration 10s"));
    run.wait_for(4, "running");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let before = run.metric("ballast_guest_allocation_bytes");
    kill(run.vmms()[1], Signal::SIGKILL).unwrap();
    run.wait_for(1, "lost");
    wait_until("the others get its memory", || run.metric("ballast_guest_allocation_bytes") > before * 0.9);
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1));
    let first = run.summary.lines().next().unwrap();
    assert!(first.starts_with("FAILED: guest") && first.contains("SIGKILL"), "{first}");
    let exits: Vec<_> =
        run.report["guests"].as_array().unwrap().iter().map(|guest| guest["exit"].as_str().unwrap()).collect();
    assert_eq!(exits.iter().filter(|exit| **exit == "ok").count(), 3, "{exits:?}");
    assert_eq!(run.total("pages_corrupt_total"), 0.0);
    assert!(run.number("/host/peak_used_bytes") <= (256 * MIB) as f64);
}

#[test]
fn an_interrupt_ends_all_guests_with_the_summary_so_far() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Run::start(&format!("{FOUR} --duration 1h"));
        run.wait_for(4, "running");
        run.signal(signal);
        let run = run.finish();
        assert!(run.summary.contains("interrupted"), "{}", run.summary);
        assert!(run.number("/host/peak_used_bytes") > 0.0);
    }
}

#[test]
fn two_interrupts_end_all_guests_at_once() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    let run = Run::start(&format!("{FOUR} --duration 1h"));
    run.wait_for(4, "running");
    run.signal(Signal::SIGINT);
    run.signal(Signal::SIGTERM);
    assert!(run.finish().summary.contains("interrupted"));
}

#[test]
fn an_interrupt_while_guests_are_built_leaves_nothing() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    let run = Run::start(&format!("{FOUR} --duration 1h"));
    wait_until("a VMM process", || !run.vmms().is_empty());
    run.signal(Signal::SIGINT);
    assert!(!run.finish().summary.is_empty());
}

#[test]
fn no_vmm_outlives_a_killed_host() {
    let _turn = Turn::take();
    if !has_kvm() {
        return;
    }
    let run = Run::start(&format!("{FOUR} --duration 1h"));
    run.wait_for(4, "running");
    let vmms = run.vmms();
    run.signal(Signal::SIGKILL);
    wait_until("all VMMs are gone", || vmms.iter().all(|&pid| is_gone(pid)));
}
