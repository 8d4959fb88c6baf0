//! What one run has promised is nothing that another may promise too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{Run, Turn, get, skipped, wait_until};

/// This machine's memory, MiB.
fn memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map(|kib: u64| kib / 1024).unwrap()
}

fn start(budget_mib: u64, arguments: &str) -> Run {
    Run::start(&format!("--guests 1 --memory 32MiB --workload idle --budget {budget_mib}MiB {arguments}"))
}

fn ballast(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ballast")).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code(), said)
}

/// What `ballast run` with this budget says where it is refused.
fn refusal(budget_mib: u64) -> String {
    let budget = format!("{budget_mib}MiB");
    let (code, said) = ballast(&[
        "run",
        "--guests",
        "1",
        "--memory",
        "32MiB",
        "--budget",
        &budget,
        "--duration",
        "1s",
        "--metrics",
        "127.0.0.1:0",
    ]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    said
}

/// The file in which a run says what it has promised.
fn file_of(run: &Run) -> Option<PathBuf> {
    let prefix = format!("run-{}-", run.host());
    let entries = fs::read_dir("/run/ballast").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix))
}

#[test]
fn memory_that_one_run_has_promised_is_refused_to_the_next() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skipped("promises of another user than root are in another place");
    }
    let most = memory_mib() * 6 / 10;
    let first = start(most, "--duration 1h");
    first.wait_for(1, "running");
    let pid = format!("pid {}: ", first.host());
    let said = refusal(most);
    for word in ["--budget", &pid, "give at most", "--over-promise"] {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
    let doctor = ballast(&["doctor"]).1;
    assert!(doctor.contains(&pid), "{doctor}");

    // Beside each other they fit, until one wants more.
    let small = start(200, "--duration 1h");
    small.wait_for(1, "running");
    let address = small.address().to_string();
    let set = |mib: u64| ballast(&["host", "set", "--metrics", &address, "--budget", &format!("{mib}MiB")]);
    let (code, said) = set(most);
    assert!(code == Some(1) && said.contains(&pid) && said.contains("give at most"), "{said}");
    assert!(get(small.address(), "/v1/host").contains(&format!("\"budget_bytes\":{}", 200 << 20)));
    assert_eq!(set(300).0, Some(0));
    assert!(fs::read_to_string(file_of(&small).unwrap()).unwrap().contains(&format!("{}", 300 << 20)));
    let files = [file_of(&first).unwrap(), file_of(&small).unwrap()];
    small.signal(Signal::SIGINT);
    small.finish();
    assert!(!files[1].exists(), "a run that ends takes its promise back");

    // Those who know better.
    let other = start(most, "--duration 1s --over-promise").finish();
    assert_eq!(other.status.code(), Some(0), "{}", other.summary);
    assert!(files[0].exists());

    // A run that is killed has promised nothing any more, and the next removes what it left.
    let pid = first.host();
    first.signal(Signal::SIGKILL);
    wait_until("the host is gone", || crate::support::is_gone(pid));
    assert!(files[0].exists());
    let next = start(most, "--duration 1s").finish();
    assert_eq!(next.status.code(), Some(0), "{}", next.summary);
    assert!(!files[0].exists());
    assert!(Path::new("/run/ballast").exists());
}
