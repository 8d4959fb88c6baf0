//! Hosts and VMMs that are killed at any moment: whatever they were at, nothing is left.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kit::{SHORT, group_of, records, start, turn};
use crate::support::{Run, is_gone, wait_until};

const ROUNDS: u32 = 8;
/// From one round to the next: the rounds' moments lie between the first system call and pages in swap.
const STEP: Duration = Duration::from_millis(170);

fn begin(arguments: &str) -> Run {
    Run::start(&format!("--guests 2 --kernel-tier auto {SHORT} {arguments}"))
}

/// Records of devices and groups that are of these hosts. A device is there no longer than its record.
fn left_of(hosts: &[Pid]) -> Vec<String> {
    let groups = fs::read_dir(group_of(Pid::this())).unwrap().map(|entry| entry.unwrap().file_name());
    let groups = groups.filter_map(|name| name.to_str()?.strip_prefix("ballast-").map(str::to_owned));
    let things = records().into_iter().map(|(_, owner)| owner).chain(groups);
    things.filter(|thing| hosts.iter().any(|host| thing.starts_with(&format!("{host}-")))).collect()
}

#[test]
fn nothing_is_left_of_hosts_that_are_killed_at_any_moment_once_another_has_started() {
    let Some(_turn) = turn() else { return };
    let killed: Vec<_> = (0..ROUNDS)
        .map(|round| {
            // Every second one may be at its end.
            let run = begin(if round % 2 == 0 { "--duration 1h" } else { "--duration 1s" });
            sleep(STEP * round);
            let (host, vmms) = (run.host(), run.vmms());
            let _ = kill(host, Signal::SIGKILL);
            drop(run);
            wait_until("its VMMs go", || vmms.iter().all(|&vmm| is_gone(vmm)));
            host
        })
        .collect();
    let (run, _) = start("--duration 1s");
    assert_eq!(left_of(&killed), [""; 0]);
    run.finish().assert_kept_its_promise();
}

#[test]
fn nothing_is_left_of_vmms_that_are_killed_at_any_moment() {
    let Some(_turn) = turn() else { return };
    for round in 0..ROUNDS {
        let run = begin("--duration 1h");
        // Before them there may be programs that switch swap.
        run.wait_until("VMMs", || run.vmms().len() == 2);
        sleep(STEP * round);
        kill(run.vmms()[0], Signal::SIGKILL).unwrap();
        run.wait_for(1, "lost");
        let host = run.host();
        run.signal(Signal::SIGINT);
        let run = run.finish();
        assert_eq!(run.status.code(), Some(1), "{}", run.summary);
        run.assert_lost_nothing();
        assert_eq!(left_of(&[host]), [""; 0]);
    }
}
