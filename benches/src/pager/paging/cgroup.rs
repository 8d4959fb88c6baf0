//! A memory cgroup of our own, version 1 or 2, whichever this machine has its memory controller in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::kit::{
    error::Error,
    settings::{Step, Undo},
};

/// Where version 1's memory controller is mounted.
const V1: &str = "/sys/fs/cgroup/memory";
/// Where version 2 is mounted.
const V2: &str = "/sys/fs/cgroup";

/// How far above what it should have a cgroup is stopped, bytes. The kernel may fail to reclaim anything from
/// a guest whose pages have all been referenced lately, however often it tries, and a vCPU that gets no page
/// is ended: so we reclaim from outside, and it is stopped late.
const HEADROOM_BYTES: u64 = 2 << 20;

/// A cgroup without processes; dropping it kills those it has got meanwhile, and removes it.
pub struct Cgroup {
    directory: PathBuf,
    limit: &'static str,
    usage: &'static str,
    _undo: Undo,
}

impl Cgroup {
    /// Makes one.
    pub fn new() -> Result<Cgroup, Error> {
        let name = format!("ballast-bench-{}", std::process::id());
        let (parent, limit, usage) = if Path::new(V1).join("memory.limit_in_bytes").exists() {
            (V1, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            // Without this, children have no `memory` files; it is what every systemd machine has set
            // already.
            let controllers = Path::new(V2).join("cgroup.subtree_control");
            fs::write(&controllers, "+memory").map_err(|source| Error::File { path: controllers, source })?;
            (V2, "memory.high", "memory.current")
        };
        let directory = Path::new(parent).join(name);
        let undo = Undo::register(vec![Step::RemoveCgroup(directory.clone())]);
        fs::create_dir(&directory).map_err(|source| Error::File { path: directory.clone(), source })?;
        Ok(Cgroup { directory, limit, usage, _undo: undo })
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

    /// Has who is at the limit wait for memory, where they would be killed: somebody makes room. (Version 2
    /// is limited by `memory.high`, which kills nobody.)
    pub fn spare(&self) -> Result<(), Error> {
        let path = self.directory.join("memory.oom_control");
        let spared = if path.exists() { fs::write(&path, "1") } else { Ok(()) };
        spared.map_err(|source| Error::File { path, source })
    }

    /// Whether who is at the limit waits: no room could be made. (Never on version 2.)
    pub fn waits(&self) -> bool {
        let control = fs::read_to_string(self.directory.join("memory.oom_control"));
        control.is_ok_and(|text| text.lines().any(|line| line == "under_oom 1"))
    }

    /// Has the kernel reclaim, on this thread, what they have above `bytes`, and stops them a little later.
    pub fn hold(&self, bytes: u64) -> Result<(), Error> {
        if self.usage_bytes()? > bytes {
            // Version 1 changes the limit only once it has reclaimed enough.
            self.set_limit(bytes)?;
        }
        self.limit_above(bytes)
    }

    /// Stops them a little above `bytes`.
    pub fn limit_above(&self, bytes: u64) -> Result<(), Error> {
        self.set_limit(bytes + HEADROOM_BYTES)
    }

    fn set_limit(&self, bytes: u64) -> Result<(), Error> {
        let path = self.directory.join(self.limit);
        match fs::write(&path, bytes.to_string()) {
            // It could not be reclaimed as fast; the next attempt is the caller's.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
            result => result.map_err(|source| Error::File { path, source }),
        }
    }
}
