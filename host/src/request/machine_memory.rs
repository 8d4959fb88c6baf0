//! How much memory there is to be promised: the machine's, and what our control group may have of it.

use std::fs;
use std::path::Path;

/// Memory that a budget may be promised from: the machine's, or what our cgroup is limited to.
pub fn memory_bytes() -> Result<u64, String> {
    let total = machine_bytes()?;
    Ok(cgroup_limit_bytes().map_or(total, |limit| limit.min(total)))
}

/// The machine's memory, whatever our cgroup may have of it.
pub fn machine_bytes() -> Result<u64, String> {
    let meminfo =
        fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}; is /proc mounted?"))?;
    let total =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    Ok(total.map(|kib: u64| kib << 10).ok_or("/proc/meminfo names no MemTotal")?)
}

/// The tightest memory limit on the way from our cgroup to the root, v2 or v1; `None` where there is none.
fn cgroup_limit_bytes() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = membership.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let groups = Path::new(group).ancestors().map(|group| group.strip_prefix("/").unwrap_or(group).join(file));
        groups
            .filter_map(|file| fs::read_to_string(Path::new(root).join(file)).ok()?.trim().parse::<u64>().ok())
            .collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_bytes().unwrap() > 64 << 20);
    }
}
