//! Memory taken from one guest by hand: it says by what, keeps it for a while, and gives it back.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{MIB, Run, Turn};

const CALM: &str =
    "--guests 2 --memory 128MiB --budget 300MiB --workload zipf --dedup off --swap /var/tmp --duration 1h";

fn show(run: &Run) -> Value {
    run.json("/v1/guests/guest0")
}

fn resident(run: &Run) -> f64 {
    show(run)["resident_bytes"].as_f64().unwrap_or(0.0)
}

fn has_all(run: &Run) -> bool {
    show(run)["allocation_bytes"].as_f64() >= Some(128.0 * MIB)
}

#[test]
fn memory_is_taken_told_by_what_held_and_given_back() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    // Guest 0 fills its memory and then uses a fiftieth of it.
    let run = Run::start(&format!("{CALM} --guest 0:workload=tide,active=2%-2%"));
    run.wait_for(2, "running");
    run.wait_until("memory in use", || resident(&run) > 110.0 * MIB);
    let before = resident(&run);
    let said = run.ask("guest reclaim guest0 48MiB --hold 5s --json");
    let said = said.unwrap_or_else(|complaint| panic!("{complaint}{}", show(&run)));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["state"], &said["reached"]), (&"held".into(), &"all".into()), "{said}");
    assert!(said["won_bytes"].as_f64() >= Some(47.0 * MIB), "{said}");
    let by = said["won_by_bytes"].as_object().unwrap();
    assert!(by.values().filter_map(Value::as_f64).sum::<f64>() >= 40.0 * MIB, "{said}");
    assert!(resident(&run) < before - 40.0 * MIB);
    let explained = run.ask("policy explain guest0 --all").unwrap();
    assert!(explained.contains("shrinks: it may have less than it had"), "{explained}");

    let refused = run.ask("guest reclaim guest0 1MiB").unwrap_err();
    assert!(refused.contains("one at a time") && refused.contains("--hold 0"), "{refused}");
    // On a busy machine the little that it touches takes long enough for it to get its memory back early.
    run.wait_until("its end", || ["over", "stalled"].contains(&show(&run)["reclaim"]["why"].as_str().unwrap_or("")));
    run.wait_until("its memory back", || has_all(&run));

    // More than there is: it goes as far as its reservation, exits 1, and is ended by order.
    let shorted = run.ask("guest reclaim guest0 1GiB");
    assert!(shorted.is_err(), "{shorted:?}");
    let shown = show(&run);
    assert!(shown["reclaim"]["state"] == "ended" || shown["reclaim"]["reached"] != "all", "{shown}");
    assert!(
        shown["resident_bytes"].as_f64() >= shown["reservation_bytes"].as_f64().map(|bytes| bytes / 2.0),
        "{shown}"
    );
    if shown["reclaim"]["state"] == "held" {
        run.ask("guest reclaim guest0 --hold 0").unwrap();
    }
    run.wait_until("its memory back", || has_all(&run));
    assert!(run.ask("guest reclaim guest0 --hold 0").unwrap_err().contains("nothing is reclaimed from guest0"));
    run.signal(Signal::SIGINT);
    run.finish().assert_lost_nothing();
}

#[test]
fn a_guest_that_waits_for_what_was_taken_gets_it_back_at_once() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(&format!("{CALM} --guest 0:workload=zipf,active=90%"));
    run.wait_for(2, "running");
    run.wait_until("memory in use", || resident(&run) > 100.0 * MIB);
    let refused = run.ask("guest reclaim guest0 80MiB --hold 1h");
    run.wait_until("its end", || show(&run)["reclaim"]["why"] == "stalled");
    assert!(refused.is_err() || show(&run)["reclaim"]["reached"] == "all", "{refused:?}");
    let shown = run.ask("guest show guest0").unwrap();
    assert!(shown.contains("given back, as the guest waited for memory"), "{shown}");
    run.wait_until("its memory back", || has_all(&run));
    run.signal(Signal::SIGINT);
    run.finish().assert_lost_nothing();
}
