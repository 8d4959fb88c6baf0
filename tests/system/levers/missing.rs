//! Each lever can be missing; the others carry the guests, and the figures say what is missing.

use crate::support::{Finished, Run, Turn};

const FOUR: &str = "--guests 4 --memory 64MiB --budget 128MiB";

/// A run without one lever, in which these mechanisms have something to show.
fn run_without(lever: &str, others: &[&str]) -> Option<Finished> {
    let _turn = Turn::take_with_kvm()?;
    Some(Run::finish_reclaiming(&format!("{FOUR} --{lever} off"), 6, others))
}

#[test]
fn without_dedup_nothing_is_shared() {
    let Some(run) = run_without("dedup", &["balloon", "compressed"]) else { return };
    assert_eq!(run.reclaimed_bytes("shared"), 0.0);
    assert_eq!(run.number("/dedup/pages_merged_total"), 0.0);
}

#[test]
fn without_balloons_nothing_is_given_up() {
    let Some(run) = run_without("balloon", &["shared", "compressed"]) else { return };
    assert_eq!(run.reclaimed_bytes("balloon"), 0.0);
}

#[test]
fn without_a_pager_nothing_is_evicted() {
    let Some(run) = run_without("pager", &["balloon", "shared"]) else { return };
    assert_eq!(run.number("/pager/evictions_total"), 0.0);
    assert_eq!(run.reclaimed_bytes("compressed"), 0.0);
}

/// With a budget too small this is refused; see [`crate::refused::usage`].
#[test]
fn without_any_lever_guests_get_what_they_were_promised() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run =
        Run::start("--guests 2 --memory 64MiB --budget 160MiB --duration 3s --dedup off --balloon off --pager off");
    let run = run.finish();
    run.assert_kept_its_promise();
    for mechanism in ["balloon", "shared", "compressed"] {
        assert_eq!(run.reclaimed_bytes(mechanism), 0.0);
    }
}
