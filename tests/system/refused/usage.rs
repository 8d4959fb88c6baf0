//! What cannot work is refused in one line that names the value and the way out, before any guest starts.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

/// Exit code and standard error of `ballast` with these arguments.
fn refusal(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ballast")).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to standard output");
    assert_eq!(said.lines().count(), 1, "{arguments:?} was answered with\n{said}");
    (output.status.code().unwrap(), said)
}

/// Refused as bad usage, with a line that has all of these words.
fn assert_refused(arguments: &[&str], words: &[&str]) {
    let (code, said) = refusal(&[&["run", "--metrics", "127.0.0.1:0"], arguments].concat());
    assert_eq!(code, 2, "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {word:?} is missing in {said}");
    }
}

#[test]
fn numbers_outside_their_range_are_refused_with_the_range() {
    assert_refused(&["--guests", "0"], &["--guests 0", "1 to 256"]);
    assert_refused(&["--guests", "100000"], &["100000", "1 to 256"]);
    assert_refused(&["--guests", "-1"], &["-1"]);
    assert_refused(&["--vcpus", "0"], &["--vcpus 0", "1 to 16"]);
    assert_refused(&["--duration", "0s"], &["--duration", "1s to"]);
    assert_refused(&["--duration", "20"], &["20s"]);
    assert_refused(&["--vcpu", "qemu"], &["qemu", "kvm", "hosted"]);
    assert_refused(&["--dedup", "maybe"], &["maybe", "on", "zero-pages-only", "off"]);
    assert_refused(&["--dedup-cpu", "500%"], &["--dedup-cpu 500%", "0.1% to 100%"]);
    assert_refused(&["--dedup-cpu", "much"], &["much", "per cent"]);
    assert_refused(&["--vma-budget", "4000000000"], &["--vma-budget 4000000000", "vm.max_map_count"]);
}

#[test]
fn sizes_that_no_guest_can_have_are_refused_with_the_range() {
    assert_refused(&["--memory", "3M"], &["--memory 3 MiB", "16 MiB to 256 GiB"]);
    assert_refused(&["--memory", "1T"], &["--memory 1 TiB", "16 MiB to 256 GiB"]);
    assert_refused(&["--memory", "67108865"], &["67108865", "page size"]);
    assert_refused(&["--memory", "-1"], &["-1", "512MiB"]);
    assert_refused(&["--memory", "1.5G"], &["1.5G", "whole number"]);
    assert_refused(&["--memory", "64MB"], &["64MB", "MiB"]);
}

#[test]
fn budgets_that_cannot_be_kept_are_refused_with_the_numbers() {
    assert_refused(&["--budget", "0"], &["--budget 0 B", "allowed"]);
    assert_refused(&["--budget", "1000T"], &["--budget 1000 TiB", "this machine"]);
    assert_refused(&["--budget", "64M"], &["--budget 64 MiB", "raise the budget"]);
    let off = ["--dedup", "off", "--balloon", "off", "--pager", "off"];
    assert_refused(&off, &["--budget 768 MiB", "raise the budget", "start at most 2"]);
}

#[test]
fn domains_that_no_guest_can_be_in_are_refused() {
    assert_refused(&["--domain", "we b"], &["we b", "NAME=COUNT"]);
    assert_refused(&["--domain", "web:zero"], &["web:zero", "zero-pages-only"]);
    assert_refused(&["--guests", "4", "--domain", "web=3,db=2"], &["--domain db=2", "1 to 1 guests, of 4"]);
    assert_refused(&["--domain", "web", "--domain", "db=1"], &["--domain db=1", "all 8 guests"]);
    assert_refused(&["--domain", "web=1,web=1:zero-pages-only"], &["--domain web", "one or the other"]);
}

#[test]
fn an_unknown_workload_is_refused_with_the_known_ones() {
    assert_refused(
        &["--workload", "nope"],
        &["nope", "idle", "identical", "zipf", "churn", "stream", "gups", "hog", "mixed"],
    );
}

#[test]
fn images_that_are_no_memory_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: u64| {
        let path = folder.path().join(name);
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    assert_refused(&["--image", "/no/such.mem"], &["/no/such.mem", "No such file"]);
    assert_refused(&["--image", folder.path().to_str().unwrap()], &["readable file"]);
    assert_refused(&["--image", &file("empty.mem", 0)], &["empty.mem", "0 bytes"]);
    assert_refused(&["--image", &file("odd.mem", (16 << 20) + 1)], &["odd.mem", "truncated"]);
    assert_refused(
        &["--image", &file("half.mem", 32 << 20), "--memory", "64MiB"],
        &["half.mem", "truncated", "--memory"],
    );
}

#[test]
fn an_address_in_use_is_refused_before_any_guest_starts() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = refusal(&["run", "--vcpu", "hosted", "--metrics", &address]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&address) && said.contains("another address"), "{said}");
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_any_guest_starts() {
    assert_refused(&["--report", "/no/such/folder/report.json"], &["/no/such/folder/report.json"]);
}

#[test]
fn unknown_words_are_refused_in_one_line() {
    assert_eq!(refusal(&["run", "--frobnicate"]).0, 2);
    assert_eq!(refusal(&["frobnicate"]).0, 2);
}

#[test]
fn doctor_names_every_prerequisite() {
    let output = Command::new(env!("CARGO_BIN_EXE_ballast")).args(["doctor", "--json"]).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = found.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kvm", "userfaultfd", "vm.max_map_count", "open files", "memory", "kernel tier"]);
}

#[test]
fn swap_directories_that_cannot_be_used_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    fs::write(path("file"), "").unwrap();
    assert_refused(&["--swap", &path("missing")], &[&path("missing"), "no such directory"]);
    assert_refused(&["--swap", &path("file")], &[&path("file"), "no directory"]);
    assert_refused(&["--swap", &format!("{}:1.5G", path(""))], &["1.5G", "whole number"]);
    assert_refused(&["--swap", "/proc"], &["--swap /proc"]);
    let (code, said) = refusal(&[
        "run",
        "--metrics",
        "127.0.0.1:0",
        "--guests",
        "256",
        "--memory",
        "256G",
        "--budget",
        "900M",
        "--swap",
        &path(""),
    ]);
    assert!(code == 2 && (said.contains("no room") || said.contains("--budget")), "{said}");
}

#[test]
fn what_cannot_be_started_as_linux_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (text, short) = (file("text", b"no kernel"), file("short", &[0; 511]));
    assert_refused(&["--kernel", "/no/such/kernel"], &["--kernel", "/no/such/kernel", "No such file"]);
    assert_refused(&["--kernel", &text], &["--kernel", &text, "neither an ELF file nor a bzImage"]);
    assert_refused(&["--kernel", &text, "--initrd", "/none"], &["--initrd", "/none", "No such file"]);
    assert_refused(&["--kernel", &text, "--vcpu", "hosted"], &["--vcpu hosted contradicts --kernel"]);
    assert_refused(&["--kernel", &text, "--image", &text], &["--image"]);
    assert_refused(&["--kernel", &text, "--until-poweroff", "--duration", "5s"], &["--until-poweroff", "--duration"]);
    assert_refused(&["--linux", "--kernel", &text], &["--linux", "--kernel"]);
    assert_refused(&["--linux", "--duration", "5s"], &["--linux", "--duration"]);
    assert_refused(&["--kernel", &text, "--disk", ""], &["--disk", "FILE:ro"]);
    assert_refused(&["--kernel", &text, "--net", "tap0"], &["tap0", "tap=NAME"]);
    assert_refused(&["--disk", &short], &["--kernel"]);
    assert_refused(&["--guests", "1", "--guest", &format!("0:disk={short}")], &["--guest 0:disk=", "with --kernel"]);
}
