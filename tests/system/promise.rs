//! Guests get more memory than there is, and lose nothing.

use crate::support::{Run, Turn};

/// 3.2 times as much memory as there is.
const EIGHT: &str = "--guests 8 --memory 64MiB --budget 160MiB --duration 10s";
const MECHANISMS: [&str; 4] = ["balloon", "shared", "zero", "compressed"];

#[test]
fn eight_guests_live_in_a_third_of_their_memory_by_all_mechanisms() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(EIGHT).finish();
    run.assert_kept_its_promise();
    run.assert_reclaimed_by(&MECHANISMS);
    assert_eq!(run.report["host"]["vcpu"], "kvm");
    assert_eq!(run.number("/host/overcommit_ratio"), 3.2);
    for figure in ["/dedup/same_address_total", "/dedup/alias_total", "/dedup/cow_breaks_total", "/pager/faults_total"] {
        assert!(run.number(figure) > 0.0, "{figure} is 0: {}", run.report);
    }
}

#[test]
fn host_threads_keep_the_same_promise() {
    let _turn = Turn::take();
    let run = Run::start(&format!("{EIGHT} --vcpu hosted")).finish();
    run.assert_kept_its_promise();
    run.assert_reclaimed_by(&MECHANISMS);
    assert_eq!(run.report["host"]["vcpu"], "hosted");
}

#[test]
fn sixteen_guests_of_two_vcpus_keep_it_too() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 16 --memory 64MiB --budget 448MiB --vcpus 2 --duration 10s").finish();
    run.assert_kept_its_promise();
    assert_eq!(run.guests().len(), 16);
}

/// The worst case: every guest wants all it has, and nothing of it can be shared or compressed. Only balloons help.
#[test]
fn guests_that_touch_all_they_can_are_held_by_their_balloons() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 6 --memory 64MiB --budget 240MiB --workload hog --duration 5s").finish();
    run.assert_kept_its_promise();
    run.assert_reclaimed_by(&["balloon"]);
}
