//! A running host whose budget is changed: it goes through all its states, says in each what it decided, and
//! no guest loses anything.

use std::time::Duration;

use serde_json::Value;

use crate::support::{MIB, Run, Turn};

fn set_budget(run: &Run, bytes: f64) {
    run.ask(&format!("host set --no-wait --budget {}", bytes as u64)).unwrap();
}

/// Waits until `/v1/policy` and `ballast policy explain` say of the host, and of the last decision about each
/// guest, that it is in this state.
fn wait_for_state(run: &Run, state: &str) {
    run.wait_until(&format!("decisions in state {state}"), || {
        let overview = run.json("/v1/policy");
        let guests = overview["guests"].as_array().map_or(&[][..], Vec::as_slice);
        let all = guests.len() == 3 && guests.iter().all(|guest| guest["inputs"]["host_state"] == state);
        overview["host"]["state"] == state && all && {
            let said = run.ask("policy explain --all").unwrap();
            said.starts_with(&format!("host is {state}:"))
                && said.matches(&format!("host         {state}")).count() == 3
        }
    });
}

/// Waits for a decision about a guest, among those kept, in a state that the host may leave a moment later.
fn wait_for_decision(run: &Run, state: &str, fits: impl Fn(&Value) -> bool) {
    run.wait_until(&format!("a decision in state {state}"), || has_decision(run, state, &fits));
}

fn has_decision(run: &Run, state: &str, fits: impl Fn(&Value) -> bool) -> bool {
    let decisions = run.json("/v1/guests/guest0/policy")["decisions"].clone();
    decisions.as_array().into_iter().flatten().any(|one| one["inputs"]["host_state"] == state && fits(one))
}

/// By how much a figure changes within some statuses of all guests.
fn change_of(figure: impl Fn() -> f64) -> f64 {
    let before = figure();
    std::thread::sleep(Duration::from_millis(600));
    (figure() - before).abs()
}

fn used_bytes(run: &Run) -> f64 {
    run.json("/v1/host")["used_bytes"].as_f64().unwrap_or(0.0)
}

#[test]
fn a_host_explains_itself_in_every_state_and_holds_guests_only_while_it_is_low() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(
        "--guests 3 --memory 256MiB --budget 1GiB --workload zipf --dedup off --swap /var/tmp --guest 0:active=90% \
         --guest 1:active=90% --guest 2:active=90% --sample-period 2s --duration 40s",
    );
    run.wait_for(3, "running");
    run.wait_until("memory in use", || used_bytes(&run) > 600.0 * MIB);
    run.wait_until("use that has settled", || change_of(|| used_bytes(&run)) < 0.5 * MIB);
    wait_for_state(&run, "high");
    assert_eq!(run.metric("ballast_guest_held_seconds_total"), 0.0);

    // Three per cent free: what nobody has, nobody needs.
    set_budget(&run, used_bytes(&run) / 0.97);
    wait_for_state(&run, "soft");

    // One and a half: some are asked to give way, and as soon as they have it is over.
    run.wait_until("a decision in state hard", || {
        set_budget(&run, used_bytes(&run) / 0.985);
        has_decision(&run, "hard", |_| true)
    });

    // Half of what is in use. Pages have to be evicted, and until they are, guests above their allocation are
    // held.
    let refused = run.ask("host set --budget 64MiB").unwrap_err();
    assert!(refused.contains("64 MiB is too small") && refused.contains("give at least"), "{refused}");
    set_budget(&run, used_bytes(&run) / 2.0);
    wait_for_decision(&run, "low", |one| {
        one["inputs"]["resident_bytes"].as_f64() > one["result"]["allocation_bytes"].as_f64()
    });
    run.wait_until("guests to be held", || run.metric("ballast_guest_held_seconds_total") > 0.0);
    let fits = || used_bytes(&run) <= run.metric("ballast_host_budget_bytes");
    run.wait_until("use within the new budget", fits);
    let stalled = |decision: &Value| decision["inputs"]["stall_ratio"].as_f64() > Some(0.0);
    assert!(run.json("/v1/policy")["guests"].as_array().unwrap().iter().all(stalled), "being held counts as stall");

    // With enough again nobody is held, and all work.
    set_budget(&run, 1024.0 * MIB);
    wait_for_state(&run, "high");
    // What was held before is reported a moment later.
    run.wait_until("nobody to be held", || change_of(|| run.metric("ballast_guest_held_seconds_total")) == 0.0);
    let operations = run.metric("ballast_guest_operations_total");
    run.wait_until("guests at work", || run.metric("ballast_guest_operations_total") > operations);
    run.finish().assert_kept_its_promise();
}
