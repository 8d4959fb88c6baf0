//! A guest as it is to be: what a checked request made of it, and everybody after that goes by.

use std::path::PathBuf;

use control::Levers;
use wire::PAGE_BYTES;
use wire::machine::Workload;

use crate::request::disks::DiskRequest;
use crate::request::guest_promises::Promises;
use crate::request::taps::TapRequest;

/// A guest that may start.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedGuest {
    /// Unique in the run.
    pub name: String,
    /// RAM, bytes.
    pub memory_bytes: u64,
    /// What is started in it, if it is not the bare guest.
    pub linux: Option<PlannedLinux>,
    /// What RAM starts from.
    pub image: Option<PathBuf>,
    /// What it does.
    pub workload: Workload,
    /// Address-space areas its aliases may cost.
    pub vma_budget: u32,
    /// Sharing domain, unique in the run.
    pub domain: String,
    /// The levers it has.
    pub levers: Levers,
    /// Length of its swap file, 0 for none.
    pub swap_bytes: u64,
    /// What it was promised of the host's memory.
    pub promises: Promises,
    /// Thousandths of RAM that its workload uses, before and after it changes.
    pub active_permille: Option<[u16; 2]>,
}

/// A kernel, and what it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLinux {
    /// Its file.
    pub kernel: PathBuf,
    /// An initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// All that it is told.
    pub command_line: String,
    /// Its disks.
    pub disks: Vec<DiskRequest>,
    /// Its taps.
    pub taps: Vec<TapRequest>,
    /// What is published of kernel and initial RAM disk before they are loaded, bytes; 0 for nothing.
    pub preload_bytes: u64,
}

impl PlannedGuest {
    /// One that nobody asked anything special of.
    #[cfg(test)]
    pub(crate) fn idle(name: String, memory_bytes: u64) -> PlannedGuest {
        use control::Dedup;

        PlannedGuest {
            name,
            memory_bytes,
            linux: None,
            image: None,
            workload: Workload::Idle,
            vma_budget: 1,
            domain: "default".into(),
            levers: Levers { dedup: Dedup::On, balloon: true, pager: true },
            swap_bytes: 0,
            promises: Promises::default(),
            active_permille: None,
        }
    }

    /// Eight of them, of 256 MiB each.
    #[cfg(test)]
    pub(crate) fn eight() -> Vec<PlannedGuest> {
        (0..8).map(|number| PlannedGuest::idle(format!("guest{number}"), 256 << 20)).collect()
    }

    /// Pages of RAM.
    pub fn pages(&self) -> u32 {
        // `RAM_BYTES_MAX` is far below 2^32 pages.
        (self.memory_bytes / PAGE_BYTES as u64) as u32
    }
}
