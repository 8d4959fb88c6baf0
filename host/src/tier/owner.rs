//! A process, told from all others that had its number before or get it later: by when it started.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// See the module's description. In text `PID-TICKS`, the ticks of the kernel's clock since the machine
/// started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pid: u32,
    started_ticks: u64,
}

impl Owner {
    /// This process.
    pub(super) fn of_this_process() -> Result<Owner, String> {
        let pid = std::process::id();
        let started_ticks = started_ticks(Path::new("/proc"), pid);
        started_ticks
            .map(|started_ticks| Owner { pid, started_ticks })
            .ok_or("/proc/self/stat: is /proc mounted?".into())
    }

    /// Whether it is there, and not only waits to be reaped.
    pub(super) fn is_alive(self) -> bool {
        started_ticks(Path::new("/proc"), self.pid) == Some(self.started_ticks)
    }

    /// Sixteen bytes that no other process makes while the machine runs.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = *b"\0\0\0\0\0\0\0\0\0\0\0\0BLST";
        bytes[..4].copy_from_slice(&self.pid.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.started_ticks.to_le_bytes());
        bytes
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.started_ticks)
    }
}

impl FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Owner, ()> {
        let (pid, ticks) = text.split_once('-').ok_or(())?;
        Ok(Owner { pid: pid.parse().map_err(|_| ())?, started_ticks: ticks.parse().map_err(|_| ())? })
    }
}

/// When a process started that has not ended: field 22 of its `stat` (proc(5)). Its name, field 2, may hold
/// anything.
fn started_ticks(proc: &Path, pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?;
    fields.nth(18).filter(|_| !matches!(state, "Z" | "X"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_under_its_number_and_start_only() {
        let this = Owner::of_this_process().unwrap();
        assert!(this.is_alive());
        assert!(!Owner { started_ticks: this.started_ticks + 1, ..this }.is_alive());
        assert_eq!(this.to_string().parse(), Ok(this));
        assert!("7".parse::<Owner>().is_err() && "7-x".parse::<Owner>().is_err());
    }

    #[test]
    fn a_name_with_brackets_hides_nothing_and_a_zombie_is_dead() {
        let proc = tempfile::tempdir().unwrap();
        let stat = |pid: u32, state: &str| {
            fs::create_dir_all(proc.path().join(pid.to_string())).unwrap();
            let fields = (4..=52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
            fs::write(proc.path().join(format!("{pid}/stat")), format!("{pid} (a) R (b) {state} {fields}\n")).unwrap();
            started_ticks(proc.path(), pid)
        };
        assert_eq!((stat(7, "S"), stat(8, "Z"), started_ticks(proc.path(), 9)), (Some(22), None, None));
    }
}
