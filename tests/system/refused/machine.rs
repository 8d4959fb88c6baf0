//! What a machine or a user lacks is named in one line, with the way out, before any guest starts.
//!
//! The lack is made: `/dev` is hidden in a mount namespace, root becomes nobody. Both take root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::support::skipped;

/// `nobody`.
const NOBODY: &str = "65534";

/// Standard error of a run that is refused as the machine's fault.
fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
    said
}

fn is_root(test_needs: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped(test_needs);
    }
    root
}

#[test]
fn without_kvm_a_run_is_refused_and_hosted_vcpus_are_named() {
    if !is_root("hiding /dev takes root") {
        return;
    }
    let script = "mount -t tmpfs none /dev && exec \"$0\" run --metrics 127.0.0.1:0 2>/proc/self/fd/2";
    let output =
        Command::new("unshare").args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_ballast")]).output().unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        return skipped("no mount namespaces here");
    }
    let said = refusal(&output);
    assert!(said.contains("/dev/kvm") && said.contains("modprobe") && said.contains("--vcpu hosted"), "{said}");
}

#[test]
fn without_hardware_virtualisation_a_linux_guest_of_ours_is_refused_with_what_can_be_done() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap();
    if cpu.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        return skipped("this processor runs stock kernels");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["run", "--linux", "--metrics", "127.0.0.1:0"])
        .output()
        .unwrap();
    let said = refusal(&output);
    assert!(said.contains("vmx nor svm") && said.contains("guest-image/machine"), "{said}");
}

#[test]
fn without_the_right_to_kernel_faults_a_run_is_refused_with_the_ways_to_get_it() {
    if !is_root("becoming nobody takes root") {
        return;
    }
    if fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|value| value.trim() != "0") {
        return skipped("everybody has the right here (vm.unprivileged_userfaultfd)");
    }
    // A copy, because nobody may not enter the folder of this one.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("ballast");
    fs::copy(env!("CARGO_BIN_EXE_ballast"), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(&program)
        .args(["run", "--vcpu", "hosted", "--metrics", "127.0.0.1:0"])
        .output()
        .unwrap();
    let said = refusal(&output);
    assert!(said.contains("userfaultfd") && said.contains("root"), "{said}");
}
