//! What a run is asked for: checked against itself, this machine and what others were promised, before any
//! guest starts.

pub(crate) mod admission;
pub(crate) mod descriptors;
pub(crate) mod disks;
pub(crate) mod domain_range;
pub(crate) mod guest_levers;
pub(crate) mod guest_promises;
pub(crate) mod guest_settings;
pub(crate) mod linux;
pub(crate) mod machine_memory;
pub(crate) mod overhead;
pub(crate) mod preflight;
pub mod prerequisite;
pub(crate) mod promises;
pub(crate) mod swap;
pub(crate) mod taps;
