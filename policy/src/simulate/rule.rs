//! Who decides: this crate, or a rule that others have published, in its own words as far as they go.

use crate::{Config, Decision, Guest, Host, Reason, allocate};

/// How often the others decide, s: both look every ten seconds.
const OTHERS_SECONDS: f64 = 10.0;
/// Proxmox's `pvestatd`: at most so much a guest and step.
const PROXMOX_STEP_BYTES: u64 = 100 << 20;
/// Proxmox aims at so much of the host in use.
const PROXMOX_TARGET: f64 = 0.8;
/// MOM's example policy (`doc/balloon.rules`): at most so much of a guest a step, and so much of the host free before anything is done.
const MOM_STEP: f64 = 0.05;
const MOM_FREE: f64 = 0.2;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// [`allocate`].
    Ballast,
    /// Proxmox VE's automatic ballooning: towards equal use by shares, whoever needs it, 100 MiB a guest every 10 s.
    Proxmox,
    /// MOM's example policy: while the host is short every guest shrinks by 5 % every 10 s, while it is not those that want grow by 5 %.
    Mom,
}

impl Rule {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Ballast => "ballast",
            Rule::Proxmox => "proxmox",
            Rule::Mom => "mom",
        }
    }

    /// Allocations for the next tick, `seconds` after the last, at time `second`.
    pub(super) fn decide(
        self,
        config: &Config,
        host: &Host,
        guests: &[Guest],
        second: f64,
        seconds: f64,
    ) -> Vec<Decision> {
        let due = (second / OTHERS_SECONDS).floor() > ((second - seconds) / OTHERS_SECONDS).floor();
        match self {
            Rule::Ballast => allocate(config, host, guests),
            _ if !due => guests.iter().map(|guest| kept(guest, guest.usage.allocation_bytes)).collect(),
            Rule::Proxmox => proxmox(host, guests),
            Rule::Mom => mom(host, guests),
        }
    }
}

fn kept(guest: &Guest, allocation_bytes: u64) -> Decision {
    let allocation_bytes = allocation_bytes.clamp(guest.reservation_bytes, guest.limit_bytes);
    Decision { allocation_bytes, balloon_bytes: 0, entitlement_bytes: 0, reason: Reason::Settled }
}

fn proxmox(host: &Host, guests: &[Guest]) -> Vec<Decision> {
    let goal = host.budget_bytes as f64 * PROXMOX_TARGET;
    let reserved: f64 = guests.iter().map(|guest| guest.reservation_bytes as f64).sum();
    let shares: f64 = guests.iter().map(|guest| f64::from(guest.shares)).sum();
    let decide = |guest: &Guest| {
        let part = (goal - reserved).max(0.0) * f64::from(guest.shares) / shares;
        let (now, wanted) = (guest.usage.allocation_bytes, guest.reservation_bytes + part as u64);
        let step = wanted.abs_diff(now).min(PROXMOX_STEP_BYTES);
        kept(guest, if wanted > now { now + step } else { now - step })
    };
    guests.iter().map(decide).collect()
}

fn mom(host: &Host, guests: &[Guest]) -> Vec<Decision> {
    let given: u64 = guests.iter().map(|guest| guest.usage.allocation_bytes).sum();
    let free = host.budget_bytes.saturating_sub(given);
    let short = (free as f64) < host.budget_bytes as f64 * MOM_FREE;
    let mut left = free;
    let decide = |guest: &Guest| {
        let now = guest.usage.allocation_bytes;
        let step = (guest.memory_bytes as f64 * MOM_STEP) as u64;
        if short {
            // From what the guest says is free, and 5 % at most.
            let used = guest.usage.active_bytes.unwrap_or(now);
            return kept(guest, now.saturating_sub(step.min(now.saturating_sub(used))));
        }
        let more = if guest.usage.stall_ratio > 0.0 { step.min(left) } else { 0 };
        left -= more;
        kept(guest, now + more)
    };
    guests.iter().map(decide).collect()
}
