//! What the world outside says of memory: our control group's limit, the machine's pressure, what is
//! available.

use std::fs;
use std::path::{Path, PathBuf};

use policy::state::Outside;

const PRESSURE: &str = "/proc/pressure/memory";
const MEMINFO: &str = "/proc/meminfo";
const OWN_GROUPS: &str = "/proc/self/cgroup";
/// Where version 2 is mounted, alone or beside version 1, and where version 1's memory controller is.
const GROUP_ROOTS: [(&str, &str, &str); 3] = [
    ("", "/sys/fs/cgroup", "memory.max"),
    ("", "/sys/fs/cgroup/unified", "memory.max"),
    ("memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// Reads it, three small files; what is missing or malformed says nothing.
pub fn outside() -> Outside {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Outside {
        limit_bytes: limit_bytes(&read(OWN_GROUPS)),
        pressure: pressure(&read(PRESSURE)),
        available_bytes: available_bytes(&read(MEMINFO)),
    }
}

/// `some avg10=1.53 avg60=...` is in per cent of the time.
fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent = some.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse::<f64>().ok()?;
    Some(percent / 100.0)
}

fn available_bytes(text: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The tightest limit from our group up to the root of its tree.
fn limit_bytes(own_groups: &str) -> Option<u64> {
    let limits = GROUP_ROOTS.iter().filter_map(|&(controller, root, file)| {
        let path = own_groups.lines().find_map(|line| group(line, controller))?;
        let mut folder = PathBuf::from(root).join(path.trim_start_matches('/'));
        let mut tightest = None;
        while folder.starts_with(root) {
            let limit = read_limit(&folder.join(file));
            tightest = tightest.into_iter().chain(limit).min();
            if !folder.pop() {
                break;
            }
        }
        tightest
    });
    limits.min()
}

/// The path in a line `number:controllers:path`, if the line is about this controller; version 2's line names
/// none.
fn group<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    controllers.split(',').any(|name| name == controller).then_some(path)
}

/// `max`, and version 1's largest number, are no limit.
fn read_limit(path: &Path) -> Option<u64> {
    let limit = fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()?;
    (limit < 1 << 62).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_and_memory_are_read_as_the_kernel_writes_them() {
        let text = "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(pressure(text), Some(0.125));
        assert_eq!(available_bytes("MemTotal:       2 kB\nMemAvailable:   1024 kB\n"), Some(1 << 20));
        for nonsense in ["", "some", "some avg10=x", "MemAvailable: many kB"] {
            assert_eq!((pressure(nonsense), available_bytes(nonsense)), (None, None), "{nonsense}");
        }
    }

    #[test]
    fn a_group_is_found_by_its_controller() {
        assert_eq!(group("0::/system.slice/ballast.service", ""), Some("/system.slice/ballast.service"));
        assert_eq!(group("7:cpu,memory:/a:b", "memory"), Some("/a:b"));
        assert_eq!((group("7:cpuset:/a", "memory"), group("nonsense", "")), (None, None));
    }
}
