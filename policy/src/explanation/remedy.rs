//! What would change a decision, found by deciding again: with more budget, with another limit.
//!
//! ```text
//!   a guest that is short, or has to give way
//!     budget   the least, in whole MiB, with which it would get a step (or keep what it has)
//!     limit    the same for its own limit, and for the end of what is reclaimed from it by hand
//!     idle     who holds idle memory above its entitlement: to be had as soon as that is noticed
//! ```
//!
//! Nothing here is an estimate of what happens later: each remedy was tried on the measurements that the
//! decision was made from.

use crate::allocate::{Decision, Reason, allocate};
use crate::guest::{Config, GuestInput, Host, STEP_DIVISOR};

/// In what steps budget and limits are tried, bytes.
const UNIT_BYTES: u64 = 1 << 20;

/// Something that would change what a guest was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// More to divide.
    Budget {
        /// At least so much more, bytes.
        bytes: u64,
        /// What the guest would have more at the next tick, bytes.
        gains_bytes: u64,
    },
    /// Another limit.
    Limit {
        /// At least so much more, bytes.
        bytes: u64,
        /// As above.
        gains_bytes: u64,
    },
    /// The end of what is reclaimed from it by hand.
    Uncapped {
        /// As above.
        gains_bytes: u64,
    },
    /// Memory that another does not use.
    Idle {
        /// Place of the other in the caller's list.
        guest: usize,
        /// What it holds above its entitlement and does not use, bytes.
        bytes: u64,
    },
}

/// What would give guest `at` more, or leave it what it has. Nothing for a guest that gets what it wants.
pub fn remedies(config: &Config, host: &Host, guests: &[GuestInput], at: usize) -> Vec<Remedy> {
    let decisions = allocate(config, host, guests);
    let (Some(guest), Some(decision)) = (guests.get(at), decisions.get(at)) else { return Vec::new() };
    let before = guest.usage.allocation_bytes;
    let now = before.max(decision.allocation_bytes);
    // No further up than the ladder's next rung.
    let step = (guest.memory_bytes / STEP_DIVISOR).min(guest.useful_bytes().saturating_sub(now)).max(1);
    let (wanted, wanted_below_limit) = match decision.reason {
        Reason::Waits | Reason::AtLimit | Reason::Exhausted => {
            let room = guest.limit_bytes.saturating_sub(now).max(1);
            (now.saturating_add(step), now.saturating_add(step.min(room)))
        }
        Reason::Yields | Reason::Outbid | Reason::Squeezed | Reason::Lowered => (before, before),
        Reason::Settled | Reason::Stalls | Reason::Surplus | Reason::Slack => return Vec::new(),
    };
    // What the guest would have more, if that is what it wants.
    let gain = |host: &Host, changed: GuestInput, wanted: u64| {
        let mut guests = guests.to_vec();
        guests[at] = changed;
        let given = allocate(config, host, &guests)[at].allocation_bytes;
        (given >= wanted).then(|| given.saturating_sub(decision.allocation_bytes))
    };
    let mut found = Vec::new();
    if guest.cap_bytes.is_some() {
        let uncapped = gain(host, GuestInput { cap_bytes: None, ..*guest }, now.saturating_add(1));
        found.extend(uncapped.map(|gains_bytes| Remedy::Uncapped { gains_bytes }));
    }
    let all: u64 = guests.iter().map(cost_bytes_max).fold(0, u64::saturating_add);
    let more = |count: u64| Host { budget_bytes: host.budget_bytes.saturating_add(count * UNIT_BYTES), ..*host };
    let budget = least(all.div_ceil(UNIT_BYTES), |count| gain(&more(count), *guest, wanted_below_limit));
    found.extend(budget.map(|(count, gains_bytes)| Remedy::Budget { bytes: count * UNIT_BYTES, gains_bytes }));

    let room = cost_bytes_max(guest).saturating_sub(guest.limit_bytes);
    let raised =
        |count: u64| GuestInput { limit_bytes: guest.limit_bytes.saturating_add(count * UNIT_BYTES), ..*guest };
    let limit = least(room.div_ceil(UNIT_BYTES), |count| gain(host, raised(count), wanted));
    found.extend(limit.map(|(count, gains_bytes)| Remedy::Limit { bytes: count * UNIT_BYTES, gains_bytes }));

    found.extend(idle(guests, &decisions, at));
    found
}

/// Who holds memory above its entitlement and does not use it, the most first.
fn idle(guests: &[GuestInput], decisions: &[Decision], at: usize) -> Vec<Remedy> {
    let above = |(other, (guest, decision)): (usize, (&GuestInput, &Decision))| {
        let held = guest.usage.resident_bytes.min(guest.usage.allocation_bytes);
        let used = guest.used_bytes()?.saturating_add(guest.overhead_bytes);
        let bytes = held.saturating_sub(used.max(decision.entitlement_bytes));
        (other != at && bytes >= UNIT_BYTES).then_some((bytes, other))
    };
    let mut all: Vec<_> = guests.iter().zip(decisions).enumerate().filter_map(above).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    all.into_iter().map(|(bytes, guest)| Remedy::Idle { guest, bytes }).collect()
}

fn cost_bytes_max(guest: &GuestInput) -> u64 {
    guest.memory_bytes.saturating_add(guest.overhead_bytes)
}

/// The least count up to `most` that brings something, where one less does not, and what it brings.
fn least(most: u64, brings: impl Fn(u64) -> Option<u64>) -> Option<(u64, u64)> {
    let (mut fails, mut works) = (0, most.min(1));
    let mut gain = loop {
        match brings(works) {
            Some(gain) if works > 0 => break gain,
            _ if works >= most => return None,
            _ => (fails, works) = (works, (works * 2).min(most)),
        }
    };
    while works - fails > 1 {
        let middle = fails + (works - fails) / 2;
        match brings(middle) {
            Some(less) => (works, gain) = (middle, less),
            None => fails = middle,
        }
    }
    Some((works, gain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn config() -> Config {
        Config::default()
    }

    /// One of 256 MiB that holds `held` MiB, uses `active` of it, and waits.
    fn guest(held: u64, active: u64, stall_ratio: f64) -> GuestInput {
        let mut guest = GuestInput::new(&config(), 256 * MIB, 4 * MIB);
        let usage = &mut guest.usage;
        usage.allocation_bytes = held * MIB;
        usage.resident_bytes = held * MIB;
        usage.committed_bytes = held * MIB;
        usage.active_bytes = Some(active * MIB);
        usage.stall_ratio = stall_ratio;
        guest
    }

    fn host(mib: u64) -> Host {
        Host { budget_bytes: mib * MIB, ..Host::default() }
    }

    #[test]
    fn two_that_have_nothing_to_give_are_helped_by_a_budget_that_is_named() {
        let guests = [guest(100, 200, 0.2), guest(100, 200, 0.2)];
        let found = remedies(&config(), &host(200), &guests, 0);
        let budget = found.iter().find_map(|one| match one {
            Remedy::Budget { bytes, gains_bytes } => Some((bytes / MIB, *gains_bytes)),
            _ => None,
        });
        // Two steps of a 64th: they share what there is more.
        assert_eq!(budget, Some((8, 4 * MIB)), "{found:?}");
    }

    #[test]
    fn what_another_does_not_use_is_named_with_its_holder() {
        let mut guests = [guest(100, 200, 0.2), guest(160, 20, 0.0)];
        guests[1].usage.spared = true;
        guests[1].usage.committed_bytes = 160 * MIB;
        let found = idle(&guests, &allocate(&config(), &host(260), &guests), 0);
        assert!(matches!(found[..], [Remedy::Idle { guest: 1, bytes }] if bytes >= MIB), "{found:?}");
    }

    #[test]
    fn a_guest_at_its_limit_is_helped_by_another_limit_and_by_nothing_else() {
        let guests = [GuestInput { limit_bytes: 100 * MIB, ..guest(100, 200, 0.2) }];
        let found = remedies(&config(), &host(1000), &guests, 0);
        assert!(matches!(found[..], [Remedy::Limit { bytes, .. }] if bytes <= 4 * MIB), "{found:?}");
    }

    #[test]
    fn a_guest_that_wants_nothing_is_told_nothing() {
        assert_eq!(remedies(&config(), &host(200), &[guest(100, 50, 0.0)], 0), []);
        assert_eq!(remedies(&config(), &host(200), &[], 0), []);
    }

    prop_compose! {
        fn any_guest()(
            held in 20u64..200, active in 1u64..250, stall in 0.0..0.5f64, limit in 40u64..260, spared: bool,
        ) -> GuestInput {
            let mut guest = guest(held, active, stall);
            guest.usage.spared = spared;
            guest.limit_bytes = (limit * MIB).max(guest.reservation_bytes);
            guest
        }
    }

    proptest! {
        #[test]
        fn a_remedy_that_is_applied_helps_and_a_little_less_does_not(
            guests in prop::collection::vec(any_guest(), 1..5), budget in 50u64..900,
        ) {
            let given = |host: &Host, guest: GuestInput| {
                let mut guests = guests.clone();
                guests[0] = guest;
                allocate(&config(), host, &guests)[0].allocation_bytes
            };
            let before = given(&host(budget), guests[0]);
            for remedy in remedies(&config(), &host(budget), &guests, 0) {
                match remedy {
                    Remedy::Budget { bytes, gains_bytes } => {
                        let with = |bytes: u64| given(&host(budget + bytes / MIB), guests[0]) - before;
                        prop_assert_eq!(with(bytes), gains_bytes);
                        prop_assert!(gains_bytes > 0 && with(bytes - MIB) < gains_bytes);
                    }
                    Remedy::Limit { bytes, gains_bytes } => {
                        let limit = guests[0].limit_bytes;
                        let with = |limit_bytes| given(&host(budget), GuestInput { limit_bytes, ..guests[0] }) - before;
                        prop_assert_eq!(with(limit + bytes), gains_bytes);
                        prop_assert!(gains_bytes > 0 && with(limit + bytes - MIB) < gains_bytes);
                    }
                    Remedy::Uncapped { .. } => prop_assert!(false, "nothing was reclaimed"),
                    Remedy::Idle { guest, bytes } => {
                        let usage = &guests[guest].usage;
                        prop_assert!(guest != 0 && bytes <= usage.allocation_bytes - usage.active_bytes.unwrap_or(0));
                    }
                }
            }
        }
    }
}
