//! Each lever can be missing; the others carry the guests, and the figures say what is missing.

use crate::support::{Finished, Run, Turn, has_kvm};

fn run_without(lever: &str) -> Option<Finished> {
    has_kvm().then(|| {
        let run =
            Run::start(&format!("--guests 4 --memory 64MiB --budget 160MiB --duration 6s --{lever} off")).finish();
        run.assert_kept_its_promise();
        run
    })
}

#[test]
fn without_dedup_nothing_is_shared() {
    let _turn = Turn::take();
    let Some(run) = run_without("dedup") else { return };
    assert_eq!(run.number("/reclaimed_bytes/shared"), 0.0);
    assert_eq!(run.number("/dedup/same_address_total") + run.number("/dedup/alias_total"), 0.0);
}

#[test]
fn without_balloons_nothing_is_given_up() {
    let _turn = Turn::take();
    let Some(run) = run_without("balloon") else { return };
    assert_eq!(run.number("/reclaimed_bytes/balloon"), 0.0);
    assert!(run.number("/reclaimed_bytes/compressed") > 0.0, "{}", run.summary);
}

#[test]
fn without_a_pager_nothing_is_evicted() {
    let _turn = Turn::take();
    let Some(run) = run_without("pager") else { return };
    assert_eq!(run.number("/pager/evictions_total"), 0.0);
    assert_eq!(run.number("/reclaimed_bytes/compressed"), 0.0);
    assert!(run.number("/reclaimed_bytes/balloon") > 0.0, "{}", run.summary);
}
