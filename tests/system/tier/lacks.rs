//! Machines on which there can be no kernel tier: runs go as without, and say in one line why; and so does
//! `ballast doctor`. What is lacking is hidden in a mount namespace, or root becomes nobody.

use std::process::Command;

use super::kit::turn;
use crate::support::skipped;

const RUN: &str = "run --guests 1 --memory 16MiB --budget 64MiB --duration 1s --swap off --metrics 127.0.0.1:0";

/// Where `hide`, a shell's command, was done, a run goes on and `doctor` is content, both with these words.
fn goes_without(hide: &str, words: &str) {
    let Some(_turn) = turn() else { return };
    let ask = |arguments: &str| {
        let script = format!("{hide} \"$0\" {arguments} 2>&1");
        let output = Command::new("unshare").args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_ballast")]).output();
        let output = output.unwrap();
        (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if !ask("--version").0.success() {
        return skipped("nothing can be hidden here");
    }
    let (_, said) = ask("doctor");
    let of_tier = said.lines().find(|line| line.contains("kernel tier")).unwrap_or_else(|| panic!("{said}"));
    assert!(of_tier.contains("none here, runs go without") && of_tier.contains(words), "{of_tier}");
    let (status, said) = ask(&format!("{RUN} --vcpu hosted --kernel-tier auto"));
    let of_tier: Vec<_> = said.lines().filter(|line| line.contains("kernel tier")).collect();
    assert!(status.success() && of_tier.len() == 1 && of_tier[0].contains(words), "{said}");
    let (status, said) = ask(&format!("{RUN} --vcpu hosted --kernel-tier /dev/zram4000"));
    assert!(!status.success() && said.contains("--kernel-tier") && said.contains(words), "{said}");
}

#[test]
fn a_run_without_zram_goes_on() {
    goes_without("mount -t tmpfs none /sys/class/zram-control && exec", "modprobe zram");
}

#[test]
fn a_run_without_a_memory_cgroup_goes_on() {
    goes_without("mount -t tmpfs none /sys/fs/cgroup && exec", "is the memory cgroup mounted");
}

#[test]
fn a_run_without_swapon_goes_on() {
    goes_without("mount -t tmpfs none /usr/sbin && exec", "install util-linux");
}

#[test]
fn a_run_of_somebody_else_than_root_goes_on() {
    const CAPABILITIES: &str = "--inh-caps +sys_ptrace,+dac_override --ambient-caps +sys_ptrace,+dac_override";
    goes_without(&format!("exec setpriv --reuid 65534 --regid 65534 --clear-groups {CAPABILITIES}"), "only root");
}
