//! Guests that the operator holds and lets go on.

use serde_json::Value;

use crate::support::{MIB, Run, Turn};

fn show(run: &Run, name: &str) -> Value {
    run.json(&format!("/v1/guests/{name}"))
}

#[test]
fn a_paused_guest_stands_still_goes_on_and_loses_nothing() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 3 --memory 128MiB --budget 136MiB --workload zipf --dedup off --duration 10s");
    run.wait_for(3, "running");
    let resident = || show(&run, "guest1")["resident_bytes"].as_f64().unwrap();
    run.wait_until("memory in use", || resident() > 32.0 * MIB);
    run.ask("guest pause guest1").unwrap();
    run.wait_until("guest1 paused", || show(&run, "guest1")["state"] == "paused");
    let paused = show(&run, "guest1")["operations_total"].clone();
    run.wait_for(1, "paused");
    // While another gets on.
    let operations = |name| show(&run, name)["operations_total"].as_f64().unwrap();
    let before = operations("guest0");
    run.wait_until("guest0 at work", || operations("guest0") > before + 10_000.0);
    assert_eq!(show(&run, "guest1")["operations_total"], paused, "it stands still");
    assert!(run.ask("guest list").unwrap().contains("paused"));
    assert!(run.ask("guest pause guest9").unwrap_err().contains("there is no guest \"guest9\""));
    run.ask("guest resume guest1").unwrap();
    run.wait_until("guest1 at work", || operations("guest1") > paused.as_f64().unwrap());
    // One that is paused at the end verifies like the others.
    run.ask("guest pause guest2").unwrap();
    run.finish().assert_kept_its_promise();
}
