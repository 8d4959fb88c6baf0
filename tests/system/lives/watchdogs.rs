//! Whoever was stopped and goes on has lost nothing: patience is measured by time in which its owner was
//! there to hear.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Run, Turn, get};

/// Longer than any watchdog's patience: 30 s of silence.
const STOPPED: Duration = Duration::from_secs(45);

/// Sends a signal to processes that exist.
fn signal(pids: &[Pid], signal: Signal) {
    pids.iter().for_each(|&pid| kill(pid, signal).unwrap());
}

/// The state of a guest, as `/v1/guests` has it.
fn state_of(run: &Run, guest: usize) -> String {
    let answer = get(run.address(), "/v1/guests");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    answer["guests"][guest]["state"].as_str().unwrap_or_default().to_owned()
}

/// Guests that need each other's answers and memory; their host is stopped, then it and all VMMs are.
#[test]
fn a_host_that_was_stopped_goes_on_with_all_its_guests() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 4 --memory 128MiB --budget 200MiB --duration 75s");
    run.wait_for(4, "running");
    run.wait_until("guests share pages and verify", || {
        run.metric("ballast_guest_merges_total") > 0.0 && run.metric("ballast_guest_pages_verified_total") > 0.0
    });
    let (host, vmms) = ([run.host()], run.vmms());
    signal(&host, Signal::SIGSTOP);
    sleep(STOPPED);
    signal(&host, Signal::SIGCONT);
    run.wait_for(4, "running");
    // In the order in which a suspended machine would not go on: the host first, which hears nothing then.
    let all = [vmms.as_slice(), &host].concat();
    signal(&all, Signal::SIGSTOP);
    sleep(Duration::from_secs(35));
    signal(&host, Signal::SIGCONT);
    sleep(Duration::from_secs(1));
    signal(&vmms, Signal::SIGCONT);
    run.finish().assert_kept_its_promise();
}

/// Nobody waits for memory, and nothing is shared: nothing is needed of a VMM that is stopped.
#[test]
fn a_vmm_that_is_stopped_is_named_and_left_alone_while_nobody_needs_anything_of_it() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 3 --memory 64MiB --budget 512MiB --workload zipf --dedup off --duration 50s");
    run.wait_for(3, "running");
    let verified =
        |guest: &str| run.metric_where("ballast_guest_pages_verified_total", |labels| labels.contains(guest));
    run.wait_until("all verify", || ["guest0", "guest1", "guest2"].iter().all(|guest| verified(guest) > 0.0));
    let (vmms, begun) = (run.vmms(), Instant::now());
    signal(&vmms[1..], Signal::SIGSTOP);
    run.wait_for(2, "unresponsive");
    assert_eq!(run.metric_where("ballast_guest_unresponsive", |labels| labels.contains("guest1")), 1.0);
    assert_eq!((state_of(&run, 0).as_str(), state_of(&run, 1).as_str()), ("running", "unresponsive"));
    run.wait_until("longer than the bound", || {
        assert_eq!(state_of(&run, 1), "unresponsive");
        begun.elapsed() > Duration::from_secs(35)
    });
    // One goes on by itself; the other is told to when it is to end.
    signal(&vmms[1..2], Signal::SIGCONT);
    run.wait_for(1, "unresponsive");
    assert_eq!(state_of(&run, 1), "running");
    run.finish().assert_kept_its_promise();
}

/// Whether it holds a frame that others gave up, only it can say; or it has memory that they wait for.
#[test]
fn a_vmm_that_is_stopped_while_others_need_something_of_it_is_killed_and_named() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 4 --memory 128MiB --budget 200MiB --duration 45s");
    run.wait_for(4, "running");
    run.wait_until("guests share pages", || run.metric("ballast_guest_merges_total") > 0.0);
    signal(&run.vmms()[1..2], Signal::SIGSTOP);
    run.wait_for(1, "lost");
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1));
    run.assert_lost_nothing();
    for (number, guest) in run.guests().iter().enumerate() {
        assert_eq!(guest["exit"] == "ok", number != 1, "{guest}");
    }
    let end = run.guests()[1]["exit"].as_str().unwrap();
    assert!(
        end.contains("did not answer the frame store") || end.contains("kept memory that others wait for"),
        "{end}"
    );
}
