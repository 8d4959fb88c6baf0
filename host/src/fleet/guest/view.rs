//! A guest at one moment, as everybody may read it.

use control::GuestStatus;

use crate::fleet::freshness::Freshness;
use crate::fleet::guest::reclaim::Reclaiming;
use crate::fleet::orders::Grant;
use crate::fleet::phase::Phase;
use crate::request::guest_promises::Promises;

/// A guest at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Unique in the run.
    pub name: String,
    /// Its sharing domain.
    pub domain: String,
    /// Process id of its VMM.
    pub pid: u32,
    /// Where it stands.
    pub phase: Phase,
    /// What it said last; all zero before its first status.
    pub status: GuestStatus,
    /// What it was given last.
    pub grant: Grant,
    /// What breaks of its shared pages are expected to take; see [`crate::control::cow`].
    pub cow_expected_bytes: u64,
    /// What it did in earlier lives.
    pub past: Past,
    /// How old `status` is.
    pub freshness: Freshness,
    /// It has said nothing for so long that it is named for it.
    pub unresponsive: bool,
    /// What it was promised.
    pub promises: Promises,
    /// What is reclaimed from it by hand, or was last.
    pub reclaiming: Option<Reclaiming>,
}

/// What a guest did before it was last started anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Times it was started anew.
    pub restarts: u64,
    /// Operations of its workload.
    pub operations: u64,
    /// Pages it read whole and found right.
    pub pages_verified: u64,
}

impl View {
    /// A guest that runs, of which this was said last.
    #[cfg(test)]
    pub(crate) fn running(name: &str, status: GuestStatus) -> View {
        View {
            name: name.to_owned(),
            domain: "default".into(),
            pid: 1,
            phase: Phase::Running,
            status,
            grant: Grant::default(),
            cow_expected_bytes: 0,
            past: Past::default(),
            freshness: Freshness::default(),
            unresponsive: false,
            promises: Promises::default(),
            reclaiming: None,
        }
    }

    /// Operations of its workload, in all its lives.
    pub fn operations(&self) -> u64 {
        self.past.operations + self.status.workload.operations_total
    }

    /// Pages it read whole and found right, in all its lives.
    pub fn pages_verified(&self) -> u64 {
        self.past.pages_verified + self.status.workload.pages_verified_total
    }

    /// Whether its process is reaped, so that it costs nothing any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Where it stands, in a word; one of [`STATES`].
    pub fn state(&self) -> &'static str {
        if self.unresponsive { UNRESPONSIVE } else { self.phase.name() }
    }

    /// Whether it may be using more than it was given, by its last word.
    pub(super) fn is_above_its_allocation(&self) -> bool {
        self.status.pager.committed_bytes > self.grant.allocation_bytes
    }
}

const UNRESPONSIVE: &str = "unresponsive";

/// Every state there is: those of [`Phase`], and that of a VMM which says nothing in one of them.
pub const STATES: [&str; 10] = {
    let [starting, ready, running, paused, verifying, stopping, ok, failed, lost] = Phase::NAMES;
    [starting, ready, running, paused, verifying, stopping, UNRESPONSIVE, ok, failed, lost]
};
