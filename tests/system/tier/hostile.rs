//! A VMM that keeps no books: what the kernel gives it all the same.

use std::fs;

use nix::sys::signal::{Signal, kill};

use super::kit::{Hog, group_of, limit_bytes, start_short, turn};
use crate::support::MIB;

/// What a limit may be above the allocation: an eighth of the RAM, 32 MiB, and what is set aside for a guest.
const ABOVE_MIB: f64 = 16.0 + 32.0 + 2.0;

/// The process that takes memory is put into the VMM's group, as what a taken-over VMM takes is in it.
#[test]
fn a_vmm_that_takes_more_than_it_was_given_gets_no_more() {
    let Some(_turn) = turn() else { return };
    let (run, _) = start_short("--duration 1h");
    let of = |family: &str, label: &str| {
        run.metric_where(family, |labels| labels.contains("\"guest0\"") && labels.contains(label))
    };
    let vmm = run.vmms()[0];
    let group = group_of(vmm);
    let hog = Hog::start(&group, 400);
    run.wait_until("it waits for memory", || of("ballast_guest_limit_meetings_total", "waited") >= 10.0);
    for _ in 0..20 {
        let (limit, allocation) = (limit_bytes(&group) as f64, of("ballast_guest_allocation_bytes", ""));
        assert!(limit <= allocation + ABOVE_MIB * MIB, "{limit} of {allocation}");
        let waited = of("ballast_guest_limit_meetings_total", "waited");
        run.wait_until("a tick at which it waits", || of("ballast_guest_limit_meetings_total", "waited") > waited);
    }
    // The other guest goes on.
    let operations = || run.metric_where("ballast_guest_operations_total", |labels| labels.contains("\"guest1\""));
    let before = operations();
    run.wait_until("an operation", || operations() > before);
    assert_eq!(run.metric("ballast_guest_pages_corrupt_total"), 0.0);
    // It dies, and all that it took is there again.
    kill(vmm, Signal::SIGKILL).unwrap();
    drop(hog);
    let members = || fs::read_to_string(group.join("cgroup.procs")).unwrap();
    run.wait_until("its group is empty", || members().is_empty());
    run.wait_until("the budget is kept", || {
        run.metric("ballast_host_used_bytes") < run.metric("ballast_host_budget_bytes")
    });
    run.signal(Signal::SIGINT);
    let report = run.finish().report;
    assert_eq!(report["guests"][1]["exit"], "ok", "{report}");
}
