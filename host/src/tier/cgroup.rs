//! Memory control groups, by the kernel's first and second interface.
//!
//! ```text
//!   where the host was started ── ballast-PID-TICKS ─┬─ host      never swaps; pays for frame stores, too
//!                                                    ├─ guest0    one VMM after the other, with a limit
//!                                                    └─ guest1
//!
//!             v1 (memory.*)                             v2 (memory.*)
//!   limit     limit_in_bytes, no killer (oom_control)   high, and max well above it: max kills
//!   with swap memsw.limit_in_bytes: both together       swap.max: swap alone
//!   usage     usage_in_bytes, stat: rss, swap           current, stat: anon; swap.current
//!   waits     oom_control: under_oom; failcnt           events: max, high
//! ```
//!
//! Named by their host's process and start. What a killed host left has no processes in it, and the next
//! start in the same group removes it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::owner::Owner;

const MOUNTS: &str = "/sys/fs/cgroup";
const PREFIX: &str = "ballast-";
/// On v2, how far above its limit a group is killed at: what throttled threads take at most before they
/// sleep, an estimate.
const MAX_ABOVE_BYTES: u64 = 16 << 20;
/// How long a group may keep processes that are being reaped.
const BUSY_MAX: Duration = Duration::from_secs(2);
const BUSY_INTERVAL: Duration = Duration::from_millis(10);

/// The longest of a group's files has less: `memory.stat`.
const TEXT_BYTES_MAX: usize = 8192;

/// Files that a group keeps open.
pub(crate) const GROUP_FILES: u64 = 5;

/// The kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The groups of a run; removed when this goes.
#[derive(Debug)]
pub(super) struct Groups {
    version: Version,
    home: PathBuf,
    root: PathBuf,
}

/// The group of a guest.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    path: PathBuf,
    /// Open, as they are read many times a second.
    charged: File,
    swapped: Option<File>,
    stat: File,
    events: File,
    hits: Option<File>,
    limit: File,
}

/// What a group has, and how it fared at its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// All that counts against the limit.
    pub(super) charged_bytes: u64,
    /// Part of it that is anonymous memory of its processes, and so in the books of the VMM, or memory in
    /// files of the kernel's, which a VMM has no use for.
    pub(super) anonymous_bytes: u64,
    /// What it has in swap.
    pub(super) swapped_bytes: u64,
    /// The limit that is in force.
    pub(super) limit_bytes: u64,
    /// Times that it met the limit, so that the kernel had to make room.
    pub(super) hits_total: u64,
    /// Its threads wait: no room could be made.
    pub(super) waits: bool,
}

impl Groups {
    /// Makes them, and moves this process into its own.
    pub(super) fn make(owner: Owner) -> Result<Groups, String> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
        let (version, home) = home(&cgroups, Path::new(MOUNTS))?;
        remove_leftovers(&home);
        let groups = Groups { version, root: home.join(format!("{PREFIX}{owner}")), home };
        groups.prepare().map_err(|error| format!("memory cgroup {}: {error}", groups.root.display()))?;
        Ok(groups)
    }

    fn prepare(&self) -> io::Result<()> {
        let host = self.root.join("host");
        fs::create_dir(&self.root)?;
        fs::create_dir(&host)?;
        match self.version {
            Version::V1 => {
                fs::write(host.join("memory.swappiness"), "0")?;
                enter(&host, std::process::id())
            }
            Version::V2 => {
                // A group that hands a controller on has no processes itself.
                enter(&host, std::process::id())?;
                fs::write(self.home.join("cgroup.subtree_control"), "+memory")?;
                fs::write(self.root.join("cgroup.subtree_control"), "+memory")?;
                fs::write(host.join("memory.swap.max"), "0")
            }
        }
    }

    /// The group of this name, made if it is not there.
    pub(super) fn group(&self, name: &str) -> io::Result<Group> {
        let path = self.root.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match self.version {
            Version::V1 => {
                // The kernel kills nobody in it: whoever finds no room waits until the limit is raised.
                fs::write(path.join("memory.oom_control"), "1")?;
                fs::write(path.join("memory.swappiness"), "100")?;
            }
            // Its swap is limited with its memory.
            Version::V2 => {}
        }
        Group::open(self.version, path)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        if let Err(error) = enter(&self.home, std::process::id()).and_then(|()| remove(&self.root, BUSY_MAX)) {
            tracing::warn!("memory cgroup {} is left: {error}", self.root.display());
        }
    }
}

impl Group {
    fn open(version: Version, path: PathBuf) -> io::Result<Group> {
        let open = |file: &str| File::open(path.join(file));
        let (charged, swapped, events, hits, limit) = match version {
            // Without books of swap, `stat` has it.
            Version::V1 => (
                open("memory.usage_in_bytes")?,
                None,
                open("memory.oom_control")?,
                Some(open("memory.failcnt")?),
                open("memory.limit_in_bytes")?,
            ),
            Version::V2 => (
                open("memory.current")?,
                Some(open("memory.swap.current")?),
                open("memory.events")?,
                None,
                open("memory.high")?,
            ),
        };
        let stat = open("memory.stat")?;
        Ok(Group { version, path, charged, swapped, stat, events, hits, limit })
    }

    /// Moves a process into it, with all its threads.
    pub(super) fn enter(&self, pid: u32) -> io::Result<()> {
        enter(&self.path, pid)
    }

    /// What it has now.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        let mut buffer = [0; TEXT_BYTES_MAX];
        let stat = text(&self.stat, &mut buffer)?;
        let anonymous = if self.version == Version::V1 { "rss" } else { "anon" };
        let anonymous_bytes = field(stat, anonymous) + field(stat, "shmem");
        let swapped_bytes = field(stat, "swap");
        let mut number = |file: &File| text(file, &mut buffer).map(parse_bytes);
        let (charged_bytes, limit_bytes) = (number(&self.charged)?, number(&self.limit)?);
        let swapped_bytes = self.swapped.as_ref().map_or(Ok(swapped_bytes), &mut number)?;
        let hits = self.hits.as_ref().map_or(Ok(0), number)?;
        let events = text(&self.events, &mut buffer)?;
        Ok(Usage {
            charged_bytes,
            anonymous_bytes,
            swapped_bytes,
            limit_bytes,
            hits_total: hits + field(events, "high") + field(events, "max"),
            waits: field(events, "under_oom") == 1,
        })
    }

    /// Limits its memory, and what it has in all, swap included. Below what it has, the kernel makes room
    /// first, on this thread; where it cannot, nothing changes (v1).
    pub(super) fn limit(&self, bytes: u64, all_bytes: u64, charged_bytes: u64) -> io::Result<()> {
        let write = |file: &str, bytes: u64| fs::write(self.path.join(file), bytes.to_string());
        match self.version {
            Version::V1 => {
                // Refused while the other is above it.
                let limited = write("memory.memsw.limit_in_bytes", all_bytes);
                write("memory.limit_in_bytes", bytes.min(all_bytes))?;
                limited.or_else(|_| write("memory.memsw.limit_in_bytes", all_bytes))
            }
            Version::V2 => {
                write("memory.swap.max", all_bytes)?;
                write("memory.max", bytes.max(charged_bytes).saturating_add(MAX_ABOVE_BYTES))?;
                write("memory.high", bytes)
            }
        }
    }
}

/// Whether groups can be made here, or why not.
pub(super) fn probe() -> Result<(), String> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    home(&cgroups, Path::new(MOUNTS)).map(|_| ())
}

/// The group of a process in the hierarchy that accounts for memory, by its `/proc/PID/cgroup`.
fn home(cgroups: &str, mounts: &Path) -> Result<(Version, PathBuf), String> {
    let fields = |line: &'_ str| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.trim_start_matches('/').to_owned()))
    };
    let groups: Vec<_> = cgroups.lines().filter_map(fields).collect();
    let v1 = groups.iter().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    let v2 = groups.iter().find(|(controllers, _)| controllers.is_empty());
    let (version, path) = match (v1, v2) {
        (Some((_, group)), _) => (Version::V1, mounts.join("memory").join(group)),
        (None, Some((_, group))) => (Version::V2, mounts.join(group)),
        (None, None) => return Err("no cgroup accounts for memory here".into()),
    };
    let file = path.join(if version == Version::V1 { "memory.limit_in_bytes" } else { "cgroup.subtree_control" });
    match file.exists() {
        true => Ok((version, path)),
        false => Err(format!("no {}: is the memory cgroup mounted, and of this container?", file.display())),
    }
}

fn enter(group: &Path, pid: u32) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), pid.to_string())
}

fn remove_leftovers(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<Owner>().ok());
        if owner.is_some_and(|owner| !owner.is_alive()) {
            match remove(&entry.path(), BUSY_MAX) {
                Ok(()) => tracing::info!("{}: of a run that was killed; removed", entry.path().display()),
                Err(error) => tracing::warn!("{}: of a run that was killed, and left: {error}", entry.path().display()),
            }
        }
    }
}

/// Removes a group and those in it, as soon as they are empty.
fn remove(root: &Path, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    let children = fs::read_dir(root)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    for group in children.chain([root.to_owned()]) {
        loop {
            match fs::remove_dir(&group) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    thread::sleep(BUSY_INTERVAL);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// What the file says from its beginning on.
fn text<'a>(file: &File, buffer: &'a mut [u8; TEXT_BYTES_MAX]) -> io::Result<&'a str> {
    let bytes = file.read_at(buffer, 0)?;
    std::str::from_utf8(&buffer[..bytes]).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// A number, or the word for no limit.
fn parse_bytes(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

/// The number behind this name, at the beginning of a line; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        let group = Group::open(version, folder.path().to_owned()).unwrap();
        (folder, group)
    }

    #[test]
    fn usage_is_read_from_either_interface() {
        let (_folder, v1) = group(
            Version::V1,
            &[
                ("memory.usage_in_bytes", "9000\n"),
                ("memory.limit_in_bytes", "12288\n"),
                ("memory.failcnt", "3\n"),
                ("memory.oom_control", "oom_kill_disable 1\nunder_oom 1\noom_kill 0\n"),
                ("memory.stat", "cache 100\nrss 8000\nshmem 192\nrss_huge 1\nswap 4096\nswapcached 7\ntotal_rss 99\n"),
            ],
        );
        let (folder, v2) = group(
            Version::V2,
            &[
                ("memory.current", "9000\n"),
                ("memory.high", "max\n"),
                ("memory.swap.current", "4096\n"),
                ("memory.events", "low 0\nhigh 2\nmax 1\noom 0\noom_kill 0\n"),
                ("memory.stat", "anon 8000\nshmem 192\nfile 100\nkernel 5\n"),
            ],
        );
        let common = Usage {
            charged_bytes: 9000,
            anonymous_bytes: 8192,
            swapped_bytes: 4096,
            hits_total: 3,
            ..Usage::default()
        };
        assert_eq!(v1.usage().unwrap(), Usage { limit_bytes: 12288, waits: true, ..common });
        assert_eq!(v2.usage().unwrap(), Usage { limit_bytes: u64::MAX, ..common });
        v2.limit(1 << 20, 3 << 20, 9000).unwrap();
        let written = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((written("memory.high"), written("memory.max")), ("1048576".into(), (17 << 20).to_string()));
        assert_eq!(written("memory.swap.max"), (3 << 20).to_string());
        assert!(Group::open(Version::V1, folder.path().to_owned()).is_err());
    }

    #[test]
    fn the_host_finds_its_own_group() {
        let mounts = tempfile::tempdir().unwrap();
        let hybrid = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/c\n";
        assert!(home(hybrid, mounts.path()).unwrap_err().contains("memory/a/b/memory.limit_in_bytes"));
        for (file, cgroups, version) in [
            ("memory/a/b/memory.limit_in_bytes", hybrid, Version::V1),
            ("c/cgroup.subtree_control", "0::/c\n", Version::V2),
        ] {
            let file = mounts.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            assert_eq!(home(cgroups, mounts.path()).unwrap(), (version, file.parent().unwrap().to_owned()));
        }
        assert!(home("1:cpu:/\n", mounts.path()).is_err());
    }

    #[test]
    fn groups_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let home = tempfile::tempdir().unwrap();
        let living = format!("{PREFIX}{}", Owner::of_this_process().unwrap());
        for name in [living.as_str(), "ballast-4194304-1", "ballast-x", "other"] {
            fs::create_dir_all(home.path().join(name).join("guest0")).unwrap();
        }
        remove_leftovers(home.path());
        let mut left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut kept = vec![living.as_str(), "ballast-x", "other"];
        kept.sort_unstable();
        assert_eq!(left, kept);
    }
}
