//! Guests that are ended and started anew while others run: nothing is lost, nothing is left.

use crate::support::{MIB, Run, Turn};

#[test]
fn guests_that_are_started_anew_verify_everything_and_leave_nothing() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 4 --memory 64MiB --budget 160MiB --duration 20s --restart-every 2s");
    run.wait_for(4, "running");
    let first = run.vmms();
    run.wait_until("every first VMM has been replaced", || run.vmms().iter().all(|vmm| !first.contains(vmm)));
    run.wait_until("the new guests share", || {
        run.metric_where("ballast_guest_memory_bytes", |labels| labels.contains("shared")) > MIB
    });
    let run = run.finish();
    run.assert_kept_its_promise();
    assert!(run.total("restarts_total") >= 4.0, "{run:?}");
}

#[test]
fn a_vmm_killed_while_its_guest_is_to_be_started_anew_stays_lost() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 2 --memory 64MiB --budget 128MiB --duration 5s --restart-every 1h");
    run.wait_for(2, "running");
    nix::sys::signal::kill(run.vmms()[0], nix::sys::signal::Signal::SIGKILL).unwrap();
    run.wait_for(1, "lost");
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1));
    run.assert_lost_nothing();
    assert_eq!(run.total("restarts_total"), 0.0);
}
