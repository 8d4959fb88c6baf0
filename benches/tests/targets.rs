//! Every benchmark says what became of each target, `target NAME MEASURED BOUND met|missed`, also when a side
//! fails: here the program under measurement ends at once, or is not there at all.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_ballast-bench")).args(arguments).output();
    output.unwrap()
}

/// Names of targets, with whether they were met. Every line that speaks of a target has its five words.
fn targets(output: &Output) -> Vec<(String, bool)> {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = stdout.lines().filter(|line| line.starts_with("target "));
    let target = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, name, measured, bound, verdict] => {
            assert!(measured.parse::<f64>().is_ok() && bound[2..].parse::<f64>().is_ok(), "{line}");
            assert!(["met", "missed"].contains(&verdict), "{line}");
            (name.to_owned(), verdict == "met")
        }
        _ => panic!("{line}"),
    };
    lines.map(target).collect()
}

#[test]
fn a_program_that_is_not_there_misses_all_that_was_asked_of_it() {
    for (arguments, count) in [(&["soak"][..], 16), (&["wake-all", "--swap", "/var/tmp"], 5)] {
        let output = bench(&[arguments, &["--ballast", "/nowhere/ballast"]].concat());
        let targets = targets(&output);
        assert_eq!(targets.len(), count, "{arguments:?}: {targets:?}");
        assert!(targets.iter().all(|(_, met)| !met), "{arguments:?}: {targets:?}");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn scenarios_whose_program_fails_miss_their_targets_by_name_and_the_file_has_them_too() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("policy.json");
    let scenarios = ["P1-shares", "P3-mixed", "P5-demand-moves", "P6-sampling"];
    let arguments = scenarios.iter().flat_map(|scenario| ["--scenario", scenario]);
    let output = bench(
        &["policy"]
            .into_iter()
            .chain(arguments)
            .chain(["--ballast", "/bin/false", "--json", json.to_str().unwrap()])
            .collect::<Vec<_>>(),
    );
    let targets = targets(&output);
    let of = |scenario: &str| targets.iter().filter(|(name, _)| name.starts_with(&scenario[..3])).count();
    assert_eq!(scenarios.map(of), [1, 2, 4, 1], "{targets:?}");
    assert!(targets.iter().all(|(_, met)| !met), "{targets:?}");
    assert_eq!(output.status.code(), Some(1));
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(figures.as_array().unwrap().len(), scenarios.len());
}
