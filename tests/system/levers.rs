//! Each lever can be missing; the others carry the guests, and the figures say what is missing.

use crate::support::{Finished, Run, Turn};

const FOUR: &str = "--guests 4 --memory 64MiB --budget 128MiB --duration 6s";

fn run_without(lever: &str) -> Option<Finished> {
    let _turn = Turn::take_with_kvm()?;
    let run = Run::start(&format!("{FOUR} --{lever} off")).finish();
    run.assert_kept_its_promise();
    Some(run)
}

#[test]
fn without_dedup_nothing_is_shared() {
    let Some(run) = run_without("dedup") else { return };
    assert_eq!(run.number("/reclaimed_bytes/shared"), 0.0);
    assert_eq!(run.number("/dedup/pages_merged_total"), 0.0);
    run.assert_reclaimed_by(&["balloon", "compressed"]);
}

#[test]
fn without_balloons_nothing_is_given_up() {
    let Some(run) = run_without("balloon") else { return };
    assert_eq!(run.number("/reclaimed_bytes/balloon"), 0.0);
    run.assert_reclaimed_by(&["shared", "compressed"]);
}

#[test]
fn without_a_pager_nothing_is_evicted() {
    let Some(run) = run_without("pager") else { return };
    assert_eq!(run.number("/pager/evictions_total"), 0.0);
    assert_eq!(run.number("/reclaimed_bytes/compressed"), 0.0);
    run.assert_reclaimed_by(&["balloon", "shared"]);
}

/// With a budget too small this is refused; see [`crate::bad_input`].
#[test]
fn without_any_lever_guests_get_what_they_were_promised() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 2 --memory 64MiB --budget 160MiB --duration 3s --dedup off --balloon off --pager off");
    let run = run.finish();
    run.assert_kept_its_promise();
    for mechanism in ["balloon", "shared", "compressed"] {
        assert_eq!(run.number(&format!("/reclaimed_bytes/{mechanism}")), 0.0);
    }
}
