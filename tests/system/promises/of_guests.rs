//! Promises that are changed while guests run: checked as at the start, in force at once.

use crate::support::{MIB, Run, Turn};

#[test]
fn a_limit_is_kept_at_once_and_a_reservation_that_does_not_fit_is_refused_with_what_would() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(
        "--guests 2 --memory 128MiB --budget 240MiB --workload zipf --dedup off --swap /var/tmp --duration 20s --guest 0:active=80% \
         --guest 1:active=80%",
    );
    run.wait_for(2, "running");
    let bytes = |field: &str| run.json("/v1/guests/guest0")[field].as_f64().unwrap();
    run.wait_until("memory in use", || bytes("resident_bytes") > 80.0 * MIB);
    run.ask("guest set guest0 limit=64MiB shares=3000").unwrap();
    run.wait_until("an allocation within the limit", || bytes("allocation_bytes") <= 64.0 * MIB);
    run.wait_until("use within the limit", || bytes("resident_bytes") <= 64.0 * MIB);
    assert_eq!((bytes("shares"), bytes("limit_bytes")), (3000.0, 64.0 * MIB));
    let (list, shown) = (run.ask("guest list").unwrap(), run.ask("guest show guest0").unwrap());
    assert!(list.contains("3000") && list.contains("64 MiB"), "{list}");
    assert!(shown.contains("64 MiB at most, 3000 shares"), "{shown}");
    run.wait_until("an explanation with it", || {
        run.ask("policy explain guest0").unwrap().contains("64.0 MiB at most, 3000 shares")
    });

    let refusal = run.ask("guest set guest1 reservation=133MiB").unwrap_err();
    assert!(refusal.contains("guest1 can have reservations from"), "{refusal}");
    run.ask("guest set guest0 limit=120MiB reservation=120MiB").unwrap();
    let refusal = run.ask("guest set guest1 reservation=130MiB").unwrap_err();
    let (_, most) = refusal.split_once("reserve at most ").unwrap_or_else(|| panic!("{refusal}"));
    let most: u64 = most.split(' ').next().unwrap().parse().unwrap();
    assert!(refusal.contains("do not fit the budget of 240 MiB") && most < 130, "{refusal}");
    run.ask(&format!("guest set guest1 reservation={most}MiB")).unwrap();
    run.wait_until("the reservation to be kept", || bytes("allocation_bytes") >= 120.0 * MIB);
    run.finish().assert_kept_its_promise();
}
