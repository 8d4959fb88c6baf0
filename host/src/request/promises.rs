//! What the runs of this machine have promised: the same memory is not promised twice.
//!
//! ```text
//!   /run/ballast                     root's; other users have /run/user/UID/ballast, or /tmp/ballast-UID
//!    ├─ lock                         held while a run looks and promises: one after the other
//!    ├─ run-4711-18f3....json        pid, start, budget, promises to guests; locked while that run lives
//!    └─ run-4242-18e0....json        not locked: that run was killed. Whoever promises next removes it
//! ```
//!
//! A run promises first and looks at the others then, so that of two that start at once at most one goes on.
//! A file gets its name when it is written and locked: nobody sees half of one. Locks are those of an open
//! file description, for writing: the kernel drops them however a process ends, and only who may write to a
//! file can take one. Whoever looks takes none.
//!
//! Believed are root's runs and one's own. What other users say could keep everybody else from starting
//! anything.

mod file;

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::getuid;

use self::file::{Directory, Promised};
use crate::bytes::ByteCount;
use crate::error::Error;
use crate::lock_file::Locked;
use crate::request::machine_memory::{machine_bytes, memory_bytes};
use crate::sync::lock;

/// This run's own promise; gone with the value.
#[derive(Debug)]
pub struct Promise {
    /// Where it is written, if there is such a place.
    directory: Option<Directory>,
    name: String,
    /// Whether it holds whatever others have promised.
    over_promise: bool,
    state: Mutex<PromiseState>,
}

#[derive(Debug)]
struct PromiseState {
    mine: Promised,
    locked: Option<Locked>,
}

impl Promise {
    /// Promises so much to guests of so much RAM; refused where runs of this machine have promised too much
    /// already.
    pub fn make(budget_bytes: u64, promised_bytes: u64, over_promise: bool) -> Result<Promise, Error> {
        let directory = places().iter().find_map(|place| match Directory::ensure(place) {
            Ok(directory) => Some(directory),
            Err(error) => {
                tracing::debug!("{}: {error}", place.display());
                None
            }
        });
        if directory.is_none() {
            tracing::warn!("no place for what this run promises, other runs will not know: make /run/ballast");
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mine = Promised {
            pid: process::id(),
            started_unix_seconds: since_1970.as_secs(),
            budget_bytes,
            promised_bytes,
            group: group(),
        };
        let name = format!("run-{}-{:x}.json", mine.pid, since_1970.as_nanos());
        let promise = Promise { directory, name, over_promise, state: Mutex::new(PromiseState { mine, locked: None }) };
        promise.change(budget_bytes).map_err(|refusal| Error::OverPromised { budget_bytes, refusal })?;
        Ok(promise)
    }

    /// Another budget, unless that is more than before and more than others have left. What is refused
    /// changes nothing.
    pub fn change(&self, budget_bytes: u64) -> Result<(), String> {
        let mut state = self.state();
        let before = state.locked.is_some().then_some(state.mine.budget_bytes);
        let _turn = match &self.directory {
            Some(directory) => {
                let turn = directory.turn().map_err(|error| format!("{}: {error}", directory.path().display()))?;
                directory.remove_stale();
                Some(turn)
            }
            None => None,
        };
        state.mine.budget_bytes = budget_bytes;
        self.publish(&mut state);
        if self.over_promise || before.is_some_and(|before| budget_bytes <= before) {
            return Ok(());
        }
        let refused = Memory::of_this_machine()?.refuses(&state.mine, &others(&self.name));
        match before.filter(|_| refused.is_err()) {
            Some(before) => {
                state.mine.budget_bytes = before;
                self.publish(&mut state);
            }
            None if refused.is_err() => self.withdraw(&mut state),
            None => {}
        }
        refused
    }

    fn publish(&self, state: &mut PromiseState) {
        let Some(directory) = &self.directory else { return };
        match directory.publish(&self.name, &state.mine) {
            Ok(locked) => state.locked = Some(locked),
            Err(error) => {
                tracing::warn!("{}: {error}; other runs do not know what this one promises", directory.path().display())
            }
        }
    }

    fn withdraw(&self, state: &mut PromiseState) {
        if let (Some(directory), Some(locked)) = (&self.directory, state.locked.take()) {
            directory.remove(&self.name);
            drop(locked);
        }
    }

    fn state(&self) -> MutexGuard<'_, PromiseState> {
        lock(&self.state)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.withdraw(&mut self.state());
    }
}

/// What all runs that live have promised, as far as they are believed.
pub fn living() -> Vec<Promised> {
    others("")
}

/// The same without one's own.
fn others(own_name: &str) -> Vec<Promised> {
    places().iter().flat_map(|place| Directory::living(place, own_name)).collect()
}

/// Where promises are looked for, and, in the first that may be written to, made.
fn places() -> Vec<PathBuf> {
    let uid = getuid().as_raw();
    let of_session = Path::new("/run/user").join(uid.to_string());
    let mut places = vec![PathBuf::from("/run/ballast")];
    // What `$XDG_RUNTIME_DIR` names, for those of a user's runs too that do not have the variable.
    places.extend(of_session.is_dir().then(|| of_session.join("ballast")));
    places.push(PathBuf::from(format!("/tmp/ballast-{uid}")));
    places
}

fn group() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// What may be promised from.
#[derive(Clone, Copy, Debug)]
struct Memory {
    machine_bytes: u64,
    /// What the group of this run may have of it.
    group_bytes: u64,
}

impl Memory {
    fn of_this_machine() -> Result<Memory, String> {
        Ok(Memory { machine_bytes: machine_bytes()?, group_bytes: memory_bytes()? })
    }

    /// Why `mine` cannot be promised beside what others have.
    fn refuses(self, mine: &Promised, others: &[Promised]) -> Result<(), String> {
        let sum = |runs: &mut dyn Iterator<Item = &Promised>| {
            runs.fold(0, |sum: u64, run| sum.saturating_add(run.budget_bytes))
        };
        let in_all = sum(&mut others.iter());
        let in_group = sum(&mut others.iter().filter(|other| other.group == mine.group));
        let left = self.machine_bytes.saturating_sub(in_all).min(self.group_bytes.saturating_sub(in_group));
        // Alone, a run is judged by what the machine has, and has been.
        if others.is_empty() || mine.budget_bytes <= left {
            return Ok(());
        }
        // As it can be typed: a rounded figure may be too much.
        let instead = match left >> 20 {
            0 => "end one of them".to_owned(),
            left_mib => format!("give at most {left_mib}MiB, end one of them"),
        };
        Err(format!(
            "of this machine's {} other runs have promised {} already ({}): {instead}, or say --over-promise at the start",
            ByteCount(self.machine_bytes.min(self.group_bytes)),
            ByteCount(in_all),
            list(others)
        ))
    }
}

/// Runs by process and budget, for a line.
pub fn list(runs: &[Promised]) -> String {
    let one = |run: &Promised| format!("pid {}: {}", run.pid, ByteCount(run.budget_bytes));
    runs.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn run(pid: u32, budget_bytes: u64, group: &str) -> Promised {
        Promised { pid, started_unix_seconds: 1, budget_bytes, promised_bytes: 4 * GIB, group: group.into() }
    }

    #[test]
    fn what_others_have_left_may_be_promised_and_no_more() {
        let memory = Memory { machine_bytes: 24 * GIB, group_bytes: 24 * GIB };
        let others = [run(7, 10 * GIB, "/"), run(8, 6 * GIB, "/")];
        assert_eq!(memory.refuses(&run(9, 8 * GIB, "/"), &others), Ok(()));
        let refusal = memory.refuses(&run(9, 8 * GIB + 1, "/"), &others).unwrap_err();
        for word in ["24 GiB", "16 GiB", "pid 7: 10 GiB, pid 8: 6 GiB", "at most 8192MiB", "--over-promise"] {
            assert!(refusal.contains(word), "{word:?} is missing in {refusal}");
        }
        let full = memory.refuses(&run(9, 1, "/"), &[run(7, 24 * GIB, "/")]).unwrap_err();
        assert!(full.contains("end one of them") && !full.contains("at most"), "{full}");
    }

    #[test]
    fn a_groups_limit_counts_for_the_runs_in_it() {
        let memory = Memory { machine_bytes: 24 * GIB, group_bytes: 4 * GIB };
        assert_eq!(memory.refuses(&run(9, 4 * GIB, "/a"), &[run(7, 16 * GIB, "/b")]), Ok(()));
        assert!(memory.refuses(&run(9, 2 * GIB, "/a"), &[run(7, 3 * GIB, "/a")]).is_err());
        assert!(memory.refuses(&run(9, 2 * GIB, "/a"), &[run(7, 23 * GIB, "/b")]).is_err());
    }
}
