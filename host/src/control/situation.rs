//! The host's side of a decision: what there was to be divided, and what it was short of.

use policy::Host;
use policy::state::HostState;

/// The host's side of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// How short the host is.
    pub state: HostState,
    /// What the run may use, bytes.
    pub budget_bytes: u64,
    /// What the world outside leaves of that, bytes.
    pub usable_bytes: u64,
    /// What of that is not in use, bytes.
    pub free_bytes: u64,
    /// What guests may keep or have not let go of yet, frames and upkeep, bytes.
    pub in_force_bytes: u64,
    /// What there was when that last fitted, bytes; more is never in force.
    pub ceiling_bytes: u64,
    /// What it could be brought down to now at best, bytes.
    pub floor_bytes: u64,
    /// The host as policy was told of it.
    pub host: Host,
}

impl Situation {
    /// What is in force above what can be used, bytes: a number was lowered, and guests cannot be squeezed so
    /// far, or not yet.
    pub fn short_bytes(&self) -> u64 {
        self.in_force_bytes.saturating_sub(self.usable_bytes)
    }

    /// How far a budget is followed, bytes: it, or what is in force above it.
    pub fn reached_bytes(&self) -> u64 {
        self.in_force_bytes.max(self.budget_bytes)
    }
}
