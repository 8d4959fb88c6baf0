//! Numbers that are lowered below what guests can be squeezed to: nobody is ended for it, and whoever lowered
//! them hears how far it went.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Finished, MIB, Run, Turn, skipped};

/// Half a gibibyte that does not compress, in 450 MiB.
const HOGS: &str = "--guests 4 --memory 128MiB --budget 450MiB --workload hog --duration 75s";
/// A guest that gets no page may be ended after 15 s; this is longer, on a machine that is slow, too.
const BEYOND_STARVATION: Duration = Duration::from_secs(20);

fn host(run: &Run, field: &str) -> Value {
    run.json("/v1/host")[field].clone()
}

fn bytes(run: &Run, field: &str) -> f64 {
    host(run, field).as_f64().unwrap_or(0.0)
}

/// Starts hogs, and waits until they have filled what they may.
fn filled(arguments: &str) -> Run {
    let run = Run::start(arguments);
    run.wait_for(4, "running");
    run.wait_until("memory in use", || bytes(&run, "used_bytes") > 380.0 * MIB);
    run
}

/// Lives on for longer than a guest without a page is left alone.
fn live_on(run: &Run) {
    let since = Instant::now();
    run.wait_until("guests that live on", || {
        assert_eq!(run.metric_where("ballast_host_guests", |labels| labels.contains("lost")), 0.0);
        since.elapsed() > BEYOND_STARVATION
    });
}

/// Every guest has verified all it holds; use may have been above what the budget is at the end.
fn assert_nobody_was_lost(run: &Finished) {
    assert!(run.status.success(), "{}\n{}", run.status, run.summary);
    assert!(run.guests().iter().all(|guest| guest["exit"] == "ok"), "{}", run.summary);
    assert!(run.guests().iter().all(|guest| guest["pages_verified_total"].as_u64() > Some(0)), "{}", run.summary);
    assert_eq!(run.total("pages_corrupt_total"), 0.0, "{}", run.summary);
}

#[test]
fn a_budget_below_what_guests_can_be_squeezed_to_ends_nobody_and_says_how_far_it_was_followed() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = filled(&format!("{HOGS} --swap off"));
    let set = run.order("host set --budget 225MiB --wait 5s");
    let said = String::from_utf8(set.stderr).unwrap();
    assert_eq!((set.status.code(), set.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("reached after 5 s, of 225 MiB that were asked for"), "{said}");
    // Evictors find out what does not compress as fast as they get a CPU.
    let is_known = || host(&run, "why_short").as_str().is_some_and(|why| why.contains("(no swap file)"));
    run.wait_until("guests that are known to be squeezed no further", is_known);
    assert_eq!(bytes(&run, "requested_bytes"), 225.0 * MIB);
    assert!(bytes(&run, "reached_bytes") > 225.0 * MIB && host(&run, "why_short").is_string());
    assert!(run.metric("ballast_host_short_bytes") > 0.0 && run.metric("ballast_guest_floor_bytes") > 225.0 * MIB);
    live_on(&run);
    assert!(bytes(&run, "reached_bytes") <= 450.0 * MIB, "what is in force never grows above what it was");
    assert_nobody_was_lost(&run.finish());
}

#[test]
fn with_the_default_the_same_budget_is_reached() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = filled(&format!("{HOGS} --swap auto"));
    if run.metric("ballast_guest_swap_file_bytes") == 0.0 {
        return skipped("no swap files in /var/tmp: no direct I/O, or no room");
    }
    let set = run.order("host set --budget 225MiB --wait 2m");
    assert!(set.status.success(), "{set:?}");
    assert_eq!(String::from_utf8(set.stdout).unwrap(), "225 MiB reached\n");
    assert_eq!((bytes(&run, "short_bytes"), host(&run, "why_short")), (0.0, Value::Null));
    assert_nobody_was_lost(&run.finish());
}

#[test]
fn whoever_does_not_wait_is_told_nothing() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 1 --memory 64MiB --budget 128MiB --workload idle --duration 1h");
    run.wait_for(1, "running");
    let set = run.order("host set --budget 100MiB --no-wait");
    assert!(set.status.success() && set.stdout.is_empty() && set.stderr.is_empty(), "{set:?}");
    let both = run.order("host set --budget 100MiB --no-wait --wait 1s");
    assert_eq!(both.status.code(), Some(2), "{both:?}");
}

/// A guest that was held while others with forty times its shares took all they could, and fills its memory
/// with what does not compress then.
#[test]
fn an_outbid_guest_that_grows_incompressible_later_is_given_what_it_cannot_run_without() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(
        "--guests 3 --memory 128MiB --budget 300MiB --workload zipf --dedup off --balloon off --swap off --sample-period 2s \
         --guest 0:workload=hog,shares=100 --guest 1:shares=4000,active=90% --guest 2:shares=4000,active=90% --duration 60s",
    );
    run.wait_for(3, "running");
    run.ask("guest pause guest0").unwrap();
    let others = || run.metric_where("ballast_guest_resident_bytes", |labels| !labels.contains("guest0"));
    run.wait_until("others that have taken what they can", || others() > 180.0 * MIB);
    run.ask("guest resume guest0").unwrap();
    live_on(&run);
    assert_nobody_was_lost(&run.finish());
}
