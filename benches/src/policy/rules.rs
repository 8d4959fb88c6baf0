//! Who decides: [`allocate`], or a rule that others have published, for comparison on the same guests with
//! the same levers. The product knows [`allocate`] alone; a host that is started here is given another
//! ([`Rule::function`]).
//!
//! Both others look every ten seconds, and set how large each guest may be:
//!
//! ```text
//!             memory is left                                   memory is short
//!   Proxmox   guests that say they have little free grow       guests that say they have much free, or
//!             towards their part by shares,                    else all, shrink towards their part by
//!             by 100 MiB at most                               shares, by 100 MiB at most
//!   MOM       every guest grows by 5 %                         every guest shrinks by 5 %
//! ```
//!
//! Proxmox VE's `PVE/AutoBalloon.pm` (as of 2025) and MOM's `doc/balloon.rules`. Both leave a fifth of the
//! host free; here the budget is what they may use, so nothing more is left free, and neither grows anybody
//! beyond it. A guest that has all its memory in some use, however seldom, says that it has little free.

use std::ops::Range;

use clap::ValueEnum;
use policy::{Config, Decision, GuestInput, Host, Reason, allocate, balloon_request_bytes, total_bytes};

/// How often the others decide, ms.
const OTHERS_MS: u64 = 10_000;
/// Proxmox: at most so much a guest and step, and nothing for less than so much in all.
const PROXMOX_STEP_BYTES: i64 = 100 << 20;
const PROXMOX_NOTICED_BYTES: i64 = 10 << 20;
/// Proxmox: a guest has much free that has more than this part of its minimum free.
const PROXMOX_FREE_DIVISOR: u64 = 4;
/// MOM: so much of a guest a step (`max_balloon_change_percent`), and nothing for less
/// (`min_balloon_change_percent`).
const MOM_STEP: f64 = 0.05;
const MOM_NOTICED: f64 = 0.0025;

/// A rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// [`allocate`].
    #[default]
    Ballast,
    /// Proxmox VE's automatic ballooning.
    Proxmox,
    /// MOM's example policy.
    Mom,
}

impl Rule {
    /// All.
    pub const ALL: [Rule; 3] = [Rule::Ballast, Rule::Proxmox, Rule::Mom];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Ballast => "ballast",
            Rule::Proxmox => "proxmox",
            Rule::Mom => "mom",
        }
    }

    /// What a host takes instead of its own.
    pub fn function(self) -> Option<host::Rule> {
        match self {
            Rule::Ballast => None,
            Rule::Proxmox => Some(|config, host, guests, ms| Rule::Proxmox.decide(config, host, guests, ms)),
            Rule::Mom => Some(|config, host, guests, ms| Rule::Mom.decide(config, host, guests, ms)),
        }
    }

    /// Allocations for the next tick; `ms` begins with the last tick and ends with this one, by the caller's
    /// clock.
    pub fn decide(self, config: &Config, host: &Host, guests: &[GuestInput], ms: Range<u64>) -> Vec<Decision> {
        let due = ms.end / OTHERS_MS > ms.start / OTHERS_MS;
        let sizes = match self {
            Rule::Ballast => return allocate(config, host, guests),
            _ if !due => guests.iter().map(|guest| guest.usage.allocation_bytes).collect(),
            Rule::Proxmox => proxmox(left_bytes(host, guests), guests),
            Rule::Mom => mom(left_bytes(host, guests), guests),
        };
        let sizes = within(total_bytes(host), guests, sizes);
        guests.iter().zip(sizes).map(|(guest, bytes)| decision(config, guest, bytes)).collect()
    }
}

/// What is left of the budget, or, below 0, missing.
fn left_bytes(host: &Host, guests: &[GuestInput]) -> i64 {
    let in_force = guests.iter().map(|guest| guest.usage.allocation_bytes.max(guest.usage.committed_bytes));
    total_bytes(host) as i64 - in_force.sum::<u64>() as i64
}

/// Sizes that fit into `total_bytes`: what is too much is taken at once, from all above their reservations
/// alike. Neither rule has that, as both live on hosts with room to spare; here what the host itself takes
/// may grow between two of their decisions, and the budget is a promise.
fn within(total_bytes: u64, guests: &[GuestInput], sizes: Vec<u64>) -> Vec<u64> {
    let excess = sizes.iter().sum::<u64>().saturating_sub(total_bytes);
    let above = |guest: &GuestInput, bytes: u64| bytes.saturating_sub(guest.reservation_bytes);
    let all: u64 = guests.iter().zip(&sizes).map(|(guest, &bytes)| above(guest, bytes)).sum();
    let part = if all == 0 { 0.0 } else { (excess as f64 / all as f64).min(1.0) };
    guests.iter().zip(sizes).map(|(guest, bytes)| bytes - (above(guest, bytes) as f64 * part).ceil() as u64).collect()
}

fn decision(config: &Config, guest: &GuestInput, bytes: u64) -> Decision {
    let allocation_bytes = bytes.clamp(guest.reservation_bytes, guest.limit_bytes);
    let reason = match allocation_bytes.cmp(&guest.usage.allocation_bytes) {
        std::cmp::Ordering::Less => Reason::Squeezed,
        std::cmp::Ordering::Equal => Reason::Settled,
        std::cmp::Ordering::Greater => Reason::Surplus,
    };
    let balloon_bytes = balloon_request_bytes(config, guest, allocation_bytes);
    Decision { allocation_bytes, balloon_bytes, entitlement_bytes: 0, reason }
}

fn proxmox(left: i64, guests: &[GuestInput]) -> Vec<u64> {
    let mut sizes: Vec<i64> = guests.iter().map(|guest| guest.usage.allocation_bytes as i64).collect();
    let all: Vec<usize> = (0..guests.len()).collect();
    let has_free =
        |&&index: &&usize| guests[index].usage.free_bytes > guests[index].reservation_bytes / PROXMOX_FREE_DIVISOR;
    let (free, pressed): (Vec<usize>, Vec<usize>) = all.iter().partition(has_free);
    if left.abs() > PROXMOX_NOTICED_BYTES {
        let first = if left > 0 { pressed } else { free };
        let rest = spread(guests, &mut sizes, &first, left);
        // No progress with those.
        if rest.abs() >= left.abs() {
            spread(guests, &mut sizes, &all, rest);
        }
    }
    sizes.into_iter().map(|bytes| bytes.max(0) as u64).collect()
}

/// Divides `bytes`, which may be less than 0, among guests by shares; what is left of it.
fn spread(guests: &[GuestInput], sizes: &mut [i64], list: &[usize], bytes: i64) -> i64 {
    let mut rest = bytes;
    let mut list = list.to_vec();
    // A guest that has arrived leaves the list, and the others divide anew: as many rounds as guests, and one
    // in which nothing changes.
    for _ in 0..=guests.len() {
        let least = |index: usize| guests[index].reservation_bytes as i64;
        let above: i64 = list.iter().map(|&index| sizes[index] - least(index)).sum();
        let shares: f64 = list.iter().map(|&index| f64::from(guests[index].shares)).sum();
        let before = rest;
        list.retain(|&index| {
            let (guest, held) = (&guests[index], guests[index].usage.allocation_bytes as i64);
            let part = (above + before) as f64 * f64::from(guest.shares) / shares;
            let wanted = (least(index) + part as i64).min(guest.limit_bytes as i64).max(least(index));
            let size = match wanted - held {
                more if more > 0 && bytes > 0 => wanted.min(held + PROXMOX_STEP_BYTES),
                less if less < 0 => wanted.max(held - PROXMOX_STEP_BYTES),
                _ => return false,
            };
            rest -= size - sizes[index];
            sizes[index] = size;
            true
        });
        if rest == before {
            break;
        }
    }
    rest
}

fn mom(left: i64, guests: &[GuestInput]) -> Vec<u64> {
    let mut left = left;
    let mut size = |guest: &GuestInput| {
        let now = guest.usage.allocation_bytes;
        let step = (now as f64 * MOM_STEP) as u64;
        let wanted = if left < 0 {
            now.saturating_sub(step).max(guest.reservation_bytes)
        } else {
            (now + step).min(guest.limit_bytes).min(now + left as u64)
        };
        if now.abs_diff(wanted) as f64 <= now as f64 * MOM_NOTICED {
            return now;
        }
        // Memory that one guest gives up is there for others the next time.
        left -= wanted.saturating_sub(now) as i64;
        wanted
    };
    guests.iter().map(&mut size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn guests(sizes: &[u64]) -> Vec<GuestInput> {
        let guest = |&mib: &u64| {
            let mut guest = GuestInput::new(&Config::default(), 1024 * MIB, 0);
            guest.usage.allocation_bytes = mib * MIB;
            guest.usage.committed_bytes = mib * MIB;
            guest
        };
        sizes.iter().map(guest).collect()
    }

    fn decided(rule: Rule, budget_mib: u64, guests: &[GuestInput], now_ms: u64) -> Vec<u64> {
        let host = Host { budget_bytes: budget_mib * MIB, ..Host::default() };
        let decisions = rule.decide(&Config::default(), &host, guests, now_ms - 100..now_ms);
        decisions.iter().map(|decision| decision.allocation_bytes / MIB).collect()
    }

    #[test]
    fn the_others_decide_every_ten_seconds() {
        for rule in [Rule::Proxmox, Rule::Mom] {
            assert_eq!(decided(rule, 2000, &guests(&[400, 400]), 9_900), [400, 400]);
            assert_ne!(decided(rule, 2000, &guests(&[400, 400]), 10_000), [400, 400]);
        }
    }

    #[test]
    fn proxmox_gives_a_hundred_mib_a_step_to_those_with_little_free() {
        let mut guests = guests(&[400, 400]);
        assert_eq!(decided(Rule::Proxmox, 1100, &guests, 10_000), [500, 500]);
        guests[1].usage.free_bytes = 300 * MIB;
        assert_eq!(decided(Rule::Proxmox, 1100, &guests, 10_000), [500, 400]);
    }

    #[test]
    fn proxmox_takes_from_those_with_much_free_first_and_from_all_by_shares_if_nobody_has() {
        let mut guests = guests(&[400, 400]);
        assert_eq!(decided(Rule::Proxmox, 700, &guests, 10_000), [350, 350]);
        guests[1].usage.free_bytes = 300 * MIB;
        assert_eq!(decided(Rule::Proxmox, 700, &guests, 10_000), [400, 300]);
        assert_eq!(decided(Rule::Proxmox, 805, &guests, 10_000), [400, 400], "too little to be noticed");
    }

    #[test]
    fn what_does_not_fit_any_more_is_taken_at_once() {
        for rule in [Rule::Proxmox, Rule::Mom] {
            let sizes = decided(rule, 780, &guests(&[500, 300]), 9_900);
            assert!(sizes.iter().sum::<u64>() <= 780 && sizes[0] > sizes[1] + 150, "{sizes:?}");
        }
    }

    #[test]
    fn mom_moves_everybody_by_a_twentieth_and_nobody_beyond_what_there_is() {
        assert_eq!(decided(Rule::Mom, 770, &guests(&[400, 400]), 10_000), [380, 380]);
        assert_eq!(decided(Rule::Mom, 2000, &guests(&[400, 400]), 10_000), [420, 420]);
        assert_eq!(decided(Rule::Mom, 830, &guests(&[400, 400]), 10_000), [420, 410]);
    }
}
