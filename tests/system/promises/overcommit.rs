//! Guests get more memory than there is, and lose nothing.

use crate::support::{MIB, Run, Turn};
use crate::tier::kit;

/// 2.9 times as much memory as there is; the budget is little more than the sum of what is reserved.
const EIGHT: &str = "--guests 8 --memory 64MiB --budget 176MiB";
const MECHANISMS: [&str; 4] = ["balloon", "shared", "zero", "compressed"];

#[test]
fn eight_guests_live_in_a_third_of_their_memory_by_all_mechanisms() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::finish_reclaiming(EIGHT, 10, &MECHANISMS);
    assert_eq!(run.report["host"]["vcpu"], "kvm");
    assert!(run.number("/host/overcommit_ratio") > 2.9);
    for figure in ["/dedup/same_address_total", "/dedup/alias_total", "/dedup/cow_breaks_total", "/pager/faults_total"]
    {
        assert!(run.number(figure) > 0.0, "{figure} is 0: {}", run.report);
    }
}

#[test]
fn the_kernel_helps_where_it_is_asked_to() {
    let Some(_turn) = kit::turn() else { return };
    let run =
        Run::finish_reclaiming(&format!("{EIGHT} --kernel-tier auto"), 10, &["balloon", "shared", "zero", "kernel"]);
    assert!(run.number("/host/overcommit_ratio") > 2.9);
}

#[test]
fn host_threads_keep_the_same_promise() {
    let _turn = Turn::take();
    let arguments = format!("{EIGHT} --vcpu hosted");
    let run = Run::finish_reclaiming(&arguments, 10, &MECHANISMS);
    assert_eq!(run.report["host"]["vcpu"], "hosted");
}

#[test]
fn sixteen_guests_of_two_vcpus_keep_it_too() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 16 --memory 64MiB --budget 448MiB --vcpus 2 --duration 10s").finish();
    run.assert_kept_its_promise();
    assert_eq!(run.guests().len(), 16);
}

/// The worst case: every guest wants all it has, and nothing of it can be shared or compressed. Only balloons
/// help, and they must hold some pages less than the allocation: a fault that waits for the last ones waits
/// in vain.
#[test]
fn guests_that_touch_all_they_can_are_held_by_their_balloons() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 12 --memory 32MiB --budget 277MiB --workload hog --duration 5s");
    run.wait_until("balloons", || run.metric("ballast_guest_balloon_actual_bytes") > 64.0 * MIB);
    run.finish().assert_kept_its_promise();
}
