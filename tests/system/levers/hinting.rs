//! Free page hinting while memory is short: what guests name goes, and nothing that they need.

use nix::sys::signal::Signal;

use crate::support::{Run, Turn};

#[test]
fn guests_short_of_memory_name_free_pages_and_lose_nothing_else() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 4 --memory 64MiB --budget 128MiB --workload mixed --duration 600s");
    let pages = |kind: &str| {
        let kind = format!("kind=\"{kind}\"");
        run.metric_where("ballast_guest_balloon_pages_total", |labels| labels.contains(&kind))
    };

    run.wait_until("pages dropped by hints", || pages("hint_dropped") > 0.0);

    assert!(pages("hinted") >= pages("hint_dropped"));
    run.signal(Signal::SIGINT);
    run.finish().assert_kept_its_promise();
}
