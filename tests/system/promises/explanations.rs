//! `policy explain`: each distinct decision once, at most a screen, and what would change the last one, which
//! then does.

use serde_json::Value;

use crate::support::{Run, Turn};

#[test]
fn a_short_guest_is_told_once_why_and_by_what_budget_that_would_change() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(
        "--guests 2 --memory 128MiB --budget 128MiB --workload zipf --dedup off --duration 20s --sample-period 2s \
         --guest 0:active=90% --guest 1:active=90%",
    );
    run.wait_for(2, "running");
    let policy = || run.json("/v1/guests/guest0/policy");
    let remedy = |policy: &Value| {
        let all = policy["would_change_it"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["what"] == "budget")
    };
    run.wait_until("a guest that is short", || remedy(&policy()).is_some());
    run.wait_until("words for it", || {
        let said = run.ask("policy explain guest0").unwrap();
        said.contains("would change it: ") && said.contains("more budget")
    });
    let number = |one: &Value, field: &str| one[field].as_u64().unwrap();
    let listed = |policy: &Value| policy["decisions"].as_array().cloned().unwrap_or_default();
    run.wait_until("ten ticks in a line", || listed(&policy()).iter().any(|one| number(one, "count") >= 10));
    let told = policy();
    let decisions = listed(&told);
    assert!(decisions.iter().map(|one| number(one, "count")).sum::<u64>() > decisions.len() as u64 + 8, "{told}");
    assert!(decisions.iter().all(|one| number(one, "from_unix_ms") <= number(one, "to_unix_ms")), "{told}");
    assert!(decisions.windows(2).all(|two| number(&two[0], "to_unix_ms") >= number(&two[1], "to_unix_ms")), "{told}");

    for arguments in ["policy explain", "policy explain guest0"] {
        let said = run.ask(arguments).unwrap();
        assert!(said.lines().count() <= 24, "{said}");
    }
    assert!(run.ask("policy explain guest0 --all").unwrap().lines().count() >= decisions.len());

    // What it says is what happens: with so much more, the guest grows.
    let budget = remedy(&policy()).or(remedy(&told)).map_or(16 << 20, |one| number(&one, "bytes"));
    let allocation = || run.json("/v1/guests/guest0")["allocation_bytes"].as_u64().unwrap();
    let before = allocation();
    run.ask(&format!("host set --budget {}", (128 << 20) + 2 * budget)).unwrap();
    run.wait_until("a guest that grows", || allocation() > before);
    run.finish().assert_kept_its_promise();
}
