//! One look at a `ballast run` from outside: its metrics, and what the kernel says of its process.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf};

use nix::unistd::Pid;

use crate::kit::{
    books::field,
    error::Error,
    scrape::{children, get, sum_of},
};

/// What makes memory cost nothing, as the metrics name it.
pub const TIERS: [&str; 5] = ["balloon", "shared", "zero", "compressed", "swapped"];

/// A run at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Host memory in use, and what is allowed, bytes.
    pub used_bytes: f64,
    /// As above.
    pub budget_bytes: f64,
    /// Frames, and guest memory that shares them, bytes.
    pub frames_bytes: f64,
    /// As above.
    pub shared_bytes: f64,
    /// Guest memory that was in use and costs nothing, bytes, in the order of [`TIERS`].
    pub tiers: [f64; TIERS.len()],
    /// Guests whose vCPUs run.
    pub running: f64,
    /// Pages that guests found wrong.
    pub corrupt_pages: f64,
    /// Since the guests that live now were started: pages merged, shared pages broken, pages evicted.
    pub merges: f64,
    /// As above.
    pub breaks: f64,
    /// As above.
    pub evictions: f64,
    /// Open files of the host process.
    pub host_descriptors: f64,
    /// Anonymous memory of the host process, bytes.
    pub host_bytes: f64,
    /// Processes of the guests.
    pub vmms: BTreeSet<u32>,
}

impl Sample {
    /// Looks at process `host`, whose metrics are at `address`; nothing while it does not answer.
    pub fn take(host: Pid, address: SocketAddr) -> Result<Option<Sample>, Error> {
        let metrics = get(address).unwrap_or_default();
        let sum = |family: &str| sum_of(&metrics, family, "");
        if sum("ballast_host_budget_bytes") == 0.0 {
            return Ok(None);
        }
        let process = PathBuf::from(format!("/proc/{host}"));
        let descriptors = fs::read_dir(process.join("fd")).map_or(0, |entries| entries.count());
        Ok(Some(Sample {
            used_bytes: sum("ballast_host_used_bytes"),
            budget_bytes: sum("ballast_host_budget_bytes"),
            frames_bytes: sum("ballast_host_frames_bytes"),
            shared_bytes: sum_of(&metrics, "ballast_guest_memory_bytes", "state=\"shared\""),
            tiers: TIERS.map(|tier| sum_of(&metrics, "ballast_host_reclaimed_bytes", &format!("mechanism=\"{tier}\""))),
            running: sum_of(&metrics, "ballast_host_guests", "state=\"running\""),
            corrupt_pages: sum("ballast_guest_pages_corrupt_total"),
            merges: sum("ballast_guest_merges_total"),
            breaks: sum("ballast_guest_breaks_total"),
            evictions: sum("ballast_guest_evictions_total"),
            host_descriptors: descriptors as f64,
            host_bytes: (field(&process.join("status").to_string_lossy(), "RssAnon:")? << 10) as f64,
            vmms: children(&process),
        }))
    }
}
