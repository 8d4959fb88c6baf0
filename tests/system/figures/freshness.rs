//! A VMM that has stopped: its figures are the last it said, and everybody who shows them says how old they
//! are.

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::support::{Run, Turn};

fn guests(run: &Run) -> Vec<Value> {
    run.json("/v1/guests")["guests"].as_array().cloned().unwrap_or_default()
}

fn listed(run: &Run) -> String {
    run.ask("guest list").unwrap()
}

#[test]
fn figures_of_a_vmm_that_has_stopped_are_marked_as_old() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 2 --memory 64MiB --budget 160MiB --duration 1h");
    run.wait_for(2, "running");
    for guest in ["\"guest0\"", "\"guest1\""] {
        run.wait_until("both up, and what they say themselves", || {
            let figure = |family| run.metric_where(family, |labels| labels.contains(guest));
            figure("ballast_guest_up") == 1.0 && figure("ballast_guest_own_total_bytes") > 0.0
        });
    }
    let of_guest0 = |family: &str| run.metric_where(family, |labels| labels.contains("\"guest0\""));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let started = of_guest0("ballast_guest_start_time_seconds");
    assert!((now - 600.0..=now).contains(&started), "{started} at {now}");
    let (total, free) = (of_guest0("ballast_guest_own_total_bytes"), of_guest0("ballast_guest_own_free_bytes"));
    assert!(free <= total && total <= f64::from(64 << 20) && total > 0.0, "{free} of {total}");
    assert!(of_guest0("ballast_guest_own_available_bytes") >= free);
    assert!(!listed(&run).contains("(old)"));

    // Started first: the lower of two process ids.
    let vmm = run.vmms()[0];
    kill(vmm, Signal::SIGSTOP).unwrap();
    run.wait_until("guest0 not up", || of_guest0("ballast_guest_up") == 0.0);
    run.wait_until("its age", || of_guest0("ballast_guest_status_age_seconds") > 4.0);
    assert!(of_guest0("ballast_guest_own_age_seconds") > 4.0);
    let all = guests(&run);
    assert!(all.iter().all(|guest| guest["own"]["total_bytes"].is_u64()), "{all:?}");
    assert_eq!((&all[0]["old"], &all[1]["old"]), (&Value::Bool(true), &Value::Bool(false)), "{all:?}");
    let table = listed(&run);
    let marked: Vec<_> = table.lines().filter(|line| line.contains("(old)")).collect();
    assert!(marked.len() == 1 && marked[0].starts_with("guest0 "), "{table}");
    assert!(run.metric_where("ballast_guest_up", |labels| labels.contains("\"guest1\"")) == 1.0);

    kill(vmm, Signal::SIGCONT).unwrap();
    run.wait_until("guest0 up again", || of_guest0("ballast_guest_up") == 1.0);
    run.signal(Signal::SIGINT);
    run.finish().assert_lost_nothing();
}
