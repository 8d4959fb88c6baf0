//! What is decided about one guest in one tick: all that its VMM is to be told, and the record of why.

use crate::Reason;
use crate::explanation::record::Record;
use crate::state::HostState;

/// A guest that has all but this part of its entitlement has what is due to it: two guests that are alike are
/// never exactly so.
const DUE_DIVISOR: u64 = 40;

/// See the module's description.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// What it gets, from what and why.
    pub record: Record,
    /// It is held back: the host is low, and it is above its allocation.
    pub held_back: bool,
    /// It ends if it finds no page: nobody took from it, or holds, what it wants.
    pub ends_if_starved: bool,
}

impl Verdict {
    /// What follows from a decision while so much is in force above what can be used, bytes.
    pub fn of(record: Record, short_bytes: u64) -> Verdict {
        let Record { state, guest, decision, .. } = record;
        let held_back = state == HostState::Low && guest.usage.resident_bytes > decision.allocation_bytes;
        // It may only end if the budget is one that guests can be squeezed into, no memory is on its way to
        // it, and it has what is due to it.
        let is_settled = matches!(decision.reason, Reason::Settled | Reason::Exhausted | Reason::AtLimit);
        let due_bytes = decision.entitlement_bytes - decision.entitlement_bytes / DUE_DIVISOR;
        let ends_if_starved = short_bytes == 0 && is_settled && decision.allocation_bytes >= due_bytes;
        Verdict { record, held_back, ends_if_starved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restraint::backoff::Standing;
    use crate::{Config, Decision, GuestInput};

    const MIB: u64 = 1 << 20;

    fn verdict(state: HostState, reason: Reason, allocation_mib: u64, short_bytes: u64) -> Verdict {
        let config = Config::default();
        let mut guest = GuestInput::new(&config, 256 * MIB, 0);
        guest.usage.resident_bytes = 100 * MIB;
        let (allocation_bytes, entitlement_bytes) = (allocation_mib * MIB, 100 * MIB);
        let decision = Decision { allocation_bytes, balloon_bytes: 0, entitlement_bytes, reason };
        Verdict::of(Record::new(&config, state, &guest, decision, Standing::Settled), short_bytes)
    }

    #[test]
    fn a_guest_without_a_page_ends_only_when_it_has_what_is_due_and_nobody_has_more() {
        let ends = |reason, mib, short| verdict(HostState::High, reason, mib, short).ends_if_starved;
        assert!(ends(Reason::Exhausted, 120, 0));
        assert!(ends(Reason::AtLimit, 98, 0));
        assert!(!ends(Reason::Exhausted, 90, 0), "others hold what is due");
        assert!(!ends(Reason::Waits, 120, 0), "memory is on its way");
        assert!(!ends(Reason::Outbid, 120, 0), "it was just taken from");
        assert!(!ends(Reason::Exhausted, 120, 310 * MIB), "a number was lowered");
    }

    #[test]
    fn who_is_above_its_allocation_is_held_back_while_the_host_is_low() {
        let held = |state, mib| verdict(state, Reason::Squeezed, mib, 0).held_back;
        assert!(held(HostState::Low, 99));
        assert!(!held(HostState::Low, 100) && !held(HostState::Hard, 99));
    }
}
