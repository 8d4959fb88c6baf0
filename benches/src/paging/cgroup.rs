//! A memory cgroup of our own, version 1 or 2, whichever this machine has its memory controller in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    error::Error,
    settings::{Step, Undo},
};

/// Where version 1's memory controller is mounted.
const V1: &str = "/sys/fs/cgroup/memory";
/// Where version 2 is mounted.
const V2: &str = "/sys/fs/cgroup";

/// How much is reclaimed for a process that found nothing to reclaim.
const RELIEF_BYTES: u64 = 1 << 20;

/// A cgroup without processes; dropping it kills those it has got meanwhile, and removes it.
pub struct Cgroup {
    directory: PathBuf,
    limit: &'static str,
    usage: &'static str,
    /// Version 1's switch of the OOM killer.
    oom_control: Option<PathBuf>,
    _undo: Undo,
}

impl Cgroup {
    /// Makes one, in which nobody is killed for want of memory.
    ///
    /// The pages of a guest that has just begun to run look referenced, all of them, so that the kernel gives up reclaiming and kills: in
    /// version 1 they wait instead (see [`Cgroup::relieve`]), in version 2 they are slowed down (`memory.high`, not `memory.max`).
    pub fn new() -> Result<Cgroup, Error> {
        let name = format!("ballast-bench-{}", std::process::id());
        let (parent, limit, usage) = if Path::new(V1).join("memory.limit_in_bytes").exists() {
            (V1, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            // Without this, children have no `memory` files; it is what every systemd machine has set already.
            let controllers = Path::new(V2).join("cgroup.subtree_control");
            fs::write(&controllers, "+memory").map_err(|source| Error::File { path: controllers, source })?;
            (V2, "memory.high", "memory.current")
        };
        let directory = Path::new(parent).join(name);
        let undo = Undo::register(vec![Step::RemoveCgroup(directory.clone())]);
        fs::create_dir(&directory).map_err(|source| Error::File { path: directory.clone(), source })?;
        let oom_control = (parent == V1).then(|| directory.join("memory.oom_control"));
        if let Some(path) = &oom_control {
            fs::write(path, "1").map_err(|source| Error::File { path: path.clone(), source })?;
        }
        Ok(Cgroup { directory, limit, usage, oom_control, _undo: undo })
    }

    /// A process writes its id in here to join.
    pub fn members(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Memory its processes have, bytes.
    pub fn usage_bytes(&self) -> Result<u64, Error> {
        let path = self.directory.join(self.usage);
        let text = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
        Ok(text.trim().parse().unwrap_or(0))
    }

    /// Has the kernel try harder, if a process waits because it found nothing to reclaim: each attempt ages what it looks at.
    pub fn relieve(&self, limit_bytes: u64) -> Result<(), Error> {
        let waits = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("under_oom 1"));
        if self.oom_control.as_ref().is_some_and(waits) {
            self.set_limit(limit_bytes.saturating_sub(RELIEF_BYTES))?;
            self.set_limit(limit_bytes)?;
        }
        Ok(())
    }

    /// How much they may have. Lowering it has the kernel reclaim at once, on this thread.
    pub fn set_limit(&self, bytes: u64) -> Result<(), Error> {
        let path = self.directory.join(self.limit);
        match fs::write(&path, bytes.to_string()) {
            // It could not be reclaimed as fast; the next attempt is the caller's.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
            result => result.map_err(|source| Error::File { path, source }),
        }
    }
}
