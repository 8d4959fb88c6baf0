//! What tests of the kernel tier share: the device of a run, its guests' groups, and who takes memory.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::support::{Run, Turn, skipped, wait_until};

const RECORDS: &str = "/run/ballast";
/// Half of its RAM is what each uses.
pub const SHORT: &str = "--memory 128MiB --budget 112MiB --workload zipf --balloon off";

/// The turn, where a zram device can be made.
pub fn turn() -> Option<Turn> {
    let zram = fs::metadata("/sys/class/zram-control/hot_add").is_ok();
    if !(geteuid().is_root() && zram) {
        skipped("needs root and zram");
        return None;
    }
    Turn::take_with_kvm()
}

/// The devices that hosts have on record, with what the record says.
pub fn records() -> Vec<(String, String)> {
    let files = fs::read_dir(RECORDS).into_iter().flatten().flatten();
    let record = |file: fs::DirEntry| {
        let number = file.file_name().to_str()?.strip_prefix("zram-")?.to_owned();
        Some((format!("/dev/zram{number}"), fs::read_to_string(file.path()).ok()?))
    };
    files.filter_map(record).collect()
}

/// The device of a run.
pub fn device_of(run: &Run) -> Option<String> {
    let owner = format!("{}-", run.host());
    records().into_iter().find(|(_, text)| text.starts_with(&owner)).map(|(device, _)| device)
}

pub fn is_swap(device: &str) -> bool {
    fs::read_to_string("/proc/swaps").unwrap().lines().any(|line| line.split_whitespace().next() == Some(device))
}

pub fn exists(device: &str) -> bool {
    fs::metadata(device.replace("/dev/", "/sys/block/")).is_ok()
}

/// A run with a tier that runs two guests, and its device.
pub fn start(arguments: &str) -> (Run, String) {
    start_of("--memory 64MiB --budget 128MiB", arguments)
}

/// The same, of guests that use more memory than they get.
pub fn start_short(arguments: &str) -> (Run, String) {
    start_of(SHORT, arguments)
}

fn start_of(size: &str, arguments: &str) -> (Run, String) {
    let run = Run::start(&format!("--guests 2 --kernel-tier auto {size} {arguments}"));
    run.wait_for(2, "running");
    let device = device_of(&run).unwrap();
    assert!(is_swap(&device) && exists(&device), "{device}");
    (run, device)
}

/// The memory cgroup of a process, on either version.
pub fn group_of(pid: Pid) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |sought: &str, mount: &str| {
        let path = groups
            .lines()
            .find_map(|line| line.split_once(':')?.1.strip_prefix(sought)?.strip_prefix(":/").map(str::to_owned))?;
        Some(Path::new("/sys/fs/cgroup").join(mount).join(path))
    };
    of("memory", "memory").or_else(|| of("", "")).unwrap()
}

/// The file that limits a group.
pub fn limit_of(group: &Path) -> PathBuf {
    let v1 = group.join("memory.limit_in_bytes");
    if v1.exists() { v1 } else { group.join("memory.high") }
}

pub fn limit_bytes(group: &Path) -> u64 {
    fs::read_to_string(limit_of(group)).unwrap().trim().parse().unwrap_or(u64::MAX)
}

/// Takes a group's limits away.
pub fn unlimit(group: &Path) {
    const ALL: &str = "1099511627776";
    let memory_and_swap = group.join("memory.memsw.limit_in_bytes");
    if memory_and_swap.exists() {
        fs::write(memory_and_swap, ALL).unwrap();
    }
    fs::write(limit_of(group), ALL).unwrap();
}

/// A process that takes so many MiB that do not compress, and keeps them, in a group of the kernel's.
pub struct Hog(Child);

impl Hog {
    pub fn start(group: &Path, mib: u32) -> Hog {
        let take = format!("(head -c {mib}M /dev/urandom; sleep 3600) | tail -c {mib}M");
        let script = format!("echo $$ > {}/cgroup.procs; {take}", group.display());
        let mut shell = Command::new("sh");
        // Of its own, since it may hang while it writes to one.
        shell.args(["-c", &script]).process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        Hog(shell.spawn().unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        kill(Pid::from_raw(-(self.0.id() as i32)), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

/// A group beside those of a run, for this much memory; gone when this goes.
pub struct OtherGroup(PathBuf);

impl OtherGroup {
    pub fn make(run: &Run, bytes: u64) -> OtherGroup {
        let group = group_of(Pid::this()).join(format!("ballast-test-{}", run.host()));
        fs::create_dir(&group).unwrap();
        fs::write(limit_of(&group), bytes.to_string()).unwrap();
        OtherGroup(group)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OtherGroup {
    fn drop(&mut self) {
        wait_until("the other's group goes", || fs::remove_dir(&self.0).is_ok());
    }
}
