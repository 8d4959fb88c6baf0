//! Processes die and people lose patience; nothing else is lost.

use nix::sys::signal::{Signal, kill};

use crate::support::{Finished, MIB, Run, Turn, is_gone, wait_until};

const FOUR: &str = "--guests 4 --memory 128MiB --budget 200MiB";
const RESIDENT: &str = "ballast_guest_resident_bytes";

#[test]
fn a_killed_vmm_is_named_and_the_others_use_its_memory() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(&format!("{FOUR} --duration 30s"));
    run.wait_for(4, "running");
    run.wait_until("guests fill the budget", || run.metric(RESIDENT) > 80.0 * MIB);
    let victim = run.vmms()[1];
    let survivors = |family| run.metric_where(family, |labels| !labels.contains("guest1\""));
    let before = survivors(RESIDENT);
    let held = run.metric(RESIDENT) - before;
    kill(victim, Signal::SIGKILL).unwrap();
    run.wait_for(1, "lost");
    run.wait_until("the others use half of its memory", || survivors(RESIDENT) > before + held / 2.0);
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1));
    run.assert_lost_nothing();
    let first = run.summary.lines().next().unwrap();
    assert!(first.starts_with("FAILED: guest1 lost") && first.contains("SIGKILL"), "{first}");
    for (number, guest) in run.guests().iter().enumerate() {
        assert_eq!(guest["exit"] == "ok", number != 1, "{guest}");
    }
    assert_eq!(run.guests()[1]["pid"], victim.as_raw());
}

#[test]
fn every_vmm_killed_at_once_ends_the_run() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(&format!("{FOUR} --duration 1h"));
    run.wait_for(4, "running");
    run.vmms().into_iter().for_each(|pid| kill(pid, Signal::SIGKILL).unwrap());
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(run.summary.lines().filter(|line| line.starts_with("FAILED: guest")).count(), 4, "{}", run.summary);
}

/// Interrupts a run of an hour and checks what it leaves.
fn finish_interrupted(run: Run, signals: &[Signal]) -> Finished {
    signals.iter().for_each(|&signal| run.signal(signal));
    let run = run.finish();
    assert!(run.summary.contains("interrupted"), "{}", run.summary);
    assert_eq!(run.total("pages_corrupt_total"), 0.0);
    run
}

#[test]
fn an_interrupt_ends_all_guests_with_the_summary_so_far() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Run::start(&format!("{FOUR} --duration 1h"));
        run.wait_for(4, "running");
        run.wait_until("pages are verified", || run.metric("ballast_guest_pages_verified_total") > 0.0);
        finish_interrupted(run, &[signal]).assert_lost_nothing();
    }
}

#[test]
fn two_interrupts_end_all_guests_at_once() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(&format!("{FOUR} --duration 1h"));
    run.wait_for(4, "running");
    finish_interrupted(run, &[Signal::SIGINT, Signal::SIGTERM]);
}

#[test]
fn an_interrupt_while_guests_are_built_leaves_nothing() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(&format!("{FOUR} --duration 1h"));
    run.wait_until("a VMM process", || !run.vmms().is_empty());
    finish_interrupted(run, &[Signal::SIGINT]);
}

#[test]
fn no_vmm_outlives_a_killed_host() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(&format!("{FOUR} --duration 1h"));
    run.wait_for(4, "running");
    let vmms = run.vmms();
    assert_eq!(vmms.len(), 4);
    run.signal(Signal::SIGKILL);
    wait_until("all VMMs are gone", || vmms.iter().all(|&pid| is_gone(pid)));
}
