//! Levers that single guests do not have: the others keep them, and the figures say who has which.

use std::process::Command;

use crate::support::{Run, Turn};

fn of_guest(run: &Run, family: &str, guest: u32) -> f64 {
    let label = format!("guest=\"guest{guest}\"");
    run.metric_where(family, |labels| labels.contains(&label))
}

#[test]
fn a_guest_without_a_lever_lives_beside_others_that_have_it() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start(
        "--guests 4 --memory 64MiB --budget 128MiB --workload mixed --swap /var/tmp --duration 12s --guest 0:dedup=off \
         --guest 1:balloon=off --guest 2:swap=off --guest 3:dedup=zero-pages-only",
    );
    run.wait_for(4, "running");
    let shared = |guest: u32| run.json(&format!("/v1/guests/guest{guest}"))["by_state_bytes"]["shared"].as_u64();
    run.wait_until("pages shared by those that share", || shared(1) > Some(0) && shared(2) > Some(0));
    run.wait_until("balloons of those that have one", || of_guest(&run, "ballast_guest_balloon_actual_bytes", 2) > 0.0);
    for (guest, dedup, balloon, swap) in
        [(0, "off", true, true), (1, "on", false, true), (2, "on", true, false), (3, "zero-pages-only", true, true)]
    {
        let shown = run.json(&format!("/v1/guests/guest{guest}"));
        assert_eq!(shown["levers"], serde_json::json!({ "dedup": dedup, "balloon": balloon, "swap": swap }));
        assert_eq!(of_guest(&run, "ballast_guest_swap_file_bytes", guest) > 0.0, swap, "guest{guest}");
        assert!(balloon || of_guest(&run, "ballast_guest_balloon_actual_bytes", guest) == 0.0, "guest{guest}");
        let in_words = run.ask(&format!("guest show guest{guest}")).unwrap();
        assert!(in_words.contains(&format!("dedup {dedup}")), "{in_words}");
    }
    assert_eq!(run.json("/v1/guests/guest1")["balloon"]["requested_bytes"], 0, "it is asked for nothing");
    assert_eq!((shared(0), shared(3)), (Some(0), Some(0)));
    assert_eq!(of_guest(&run, "ballast_guest_merges_total", 0), 0.0);
    run.finish().assert_kept_its_promise();
}

#[test]
fn more_than_the_run_has_is_refused_with_both_options() {
    for (arguments, words) in [
        ("--dedup off --guest 0:dedup=on", ["--guest 0:dedup=on", "--dedup off"]),
        ("--domain web:zero-pages-only --guest 0:dedup=on", ["--guest 0:dedup=on", "--domain web:zero-pages-only"]),
        ("--balloon off --guest 0:balloon=on", ["--guest 0:balloon=on", "--balloon off"]),
        ("--swap off --guest 0:swap=on", ["--guest 0:swap=on", "--swap off"]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ballast"));
        let output = command.arg("run").args(arguments.split(' ')).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(words.iter().all(|word| complaint.contains(word)), "{complaint}");
    }
}
