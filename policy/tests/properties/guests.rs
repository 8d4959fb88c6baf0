//! Guests and hosts of all sizes and moods, and what becomes of them when they obey.

use policy::means::{Mean, Means};
use policy::{Config, Decision, GuestInput, Host, Usage, allocate, pressure};
use proptest::prelude::*;

pub const MIB: u64 = 1 << 20;
pub const ON: Config = Config { dedup: true, balloon: true, pager: true, idle_tax_percent: 75 };

pub fn means() -> impl Strategy<Value = Means> {
    let mean = (0u64..512 * MIB, 0.0f64..300.0, proptest::option::of(0u64..64 * MIB)).prop_map(
        |(available_bytes, per_page_us, bytes_per_tick)| Mean { available_bytes, per_page_us, bytes_per_tick },
    );
    [mean.clone(), mean.clone(), mean].prop_map(Means)
}

/// Guests of all sizes and moods, with promises that make sense one by one.
pub fn guest() -> impl Strategy<Value = GuestInput> {
    let promises = (16u64..1024, 0.0f64..=1.0, 0.0f64..=1.0, 1u32..4000, 0u64..8 * MIB);
    let active = (
        proptest::option::of(0.0f64..=1.2),
        0u64..64 * MIB,
        proptest::bool::ANY,
        prop_oneof![Just(0), 0u64..512 * MIB],
        means(),
    );
    let usage = (0.0f64..=1.0, 0.0f64..=1.2, 0.0f64..=1.0, prop_oneof![Just(0.0), 0.0f64..1.0], 0.0f64..2000.0, active);
    (promises, usage).prop_map(
        |(
            (mib, reserved, limited, shares, overhead),
            (held, committed, resident, stall, refaults, (active, charged, spared, irreducible_bytes, means)),
        )| {
            let mut guest = GuestInput::new(&ON, mib * MIB, overhead);
            guest.reservation_bytes = overhead + (reserved * 0.5 * guest.memory_bytes as f64) as u64;
            let room = guest.limit_bytes - guest.reservation_bytes;
            guest.limit_bytes = guest.reservation_bytes + (limited * room as f64) as u64;
            guest.shares = shares;
            let allocation_bytes =
                guest.reservation_bytes + (held * (guest.limit_bytes - guest.reservation_bytes) as f64) as u64;
            guest.usage = Usage {
                allocation_bytes,
                committed_bytes: (committed * allocation_bytes as f64) as u64,
                resident_bytes: (resident * allocation_bytes as f64) as u64,
                stall_ratio: stall,
                waited_ratio: pressure(stall, refaults),
                refaults_per_second: refaults,
                active_bytes: active.map(|active| (active * guest.memory_bytes as f64) as u64),
                charged_bytes: charged,
                spared,
                irreducible_bytes,
                means,
                ..Usage::default()
            };
            guest
        },
    )
}

pub fn guests() -> impl Strategy<Value = Vec<GuestInput>> {
    proptest::collection::vec(guest(), 1..9)
}

/// A host whose budget holds the reservations and `spare` of what lies between them and the limits.
pub fn host(guests: &[GuestInput], spare: f64) -> Host {
    let reserved: u64 = guests.iter().map(|guest| guest.reservation_bytes).sum();
    let limits: u64 = guests.iter().map(|guest| guest.limit_bytes).sum();
    let (frames_bytes, frames_headroom_bytes, host_overhead_bytes) = (32 * MIB, 8 * MIB, 3 * MIB);
    let budget_bytes = 43 * MIB + reserved + (spare * (limits - reserved) as f64) as u64;
    Host { budget_bytes, frames_bytes, frames_headroom_bytes, host_overhead_bytes, ..Host::default() }
}

pub fn available(host: &Host) -> u64 {
    host.budget_bytes - host.frames_bytes - host.frames_headroom_bytes - host.host_overhead_bytes
}

pub fn in_force(guests: &[GuestInput], decisions: &[Decision]) -> u64 {
    guests
        .iter()
        .zip(decisions)
        .map(|(guest, decision)| decision.allocation_bytes.max(guest.usage.committed_bytes))
        .sum()
}

/// The guests a tick later: decisions in force, and nobody above what was decided.
pub fn obey(guests: &mut [GuestInput], decisions: &[Decision]) {
    for (guest, decision) in guests.iter_mut().zip(decisions) {
        guest.usage.allocation_bytes = decision.allocation_bytes;
        guest.usage.balloon_bytes = decision.balloon_bytes;
        guest.usage.committed_bytes = guest.usage.committed_bytes.min(decision.allocation_bytes);
        guest.usage.resident_bytes = guest.usage.resident_bytes.min(decision.allocation_bytes);
    }
}

/// Ticks that any reallocation is over in: a step is 1/64 of a guest, and the guests of a test are at most 8.
pub const TICKS: usize = 3000;

/// Two guests that hold a half each, one of them idle, the other in want of more.
pub fn idle_and_busy() -> [GuestInput; 2] {
    let mut guests = [GuestInput::new(&ON, 256 * MIB, 0); 2];
    for guest in &mut guests {
        guest.usage.allocation_bytes = 160 * MIB;
        guest.usage.committed_bytes = 160 * MIB;
        guest.usage.resident_bytes = 160 * MIB;
    }
    guests[1].usage.stall_ratio = 0.5;
    guests
}

/// What a guest of a test cannot run below.
pub fn floor(guest: &GuestInput) -> u64 {
    let livable = match guest.usage.irreducible_bytes {
        0 => 0,
        bytes => bytes + guest.overhead_bytes + guest.floor_bytes,
    };
    livable.clamp(guest.reservation_bytes, guest.limit_bytes)
}

/// Guests of 256 MiB that use and hold all they get, and stall as they say; after so many ticks.
pub fn settle(config: &Config, host: &Host, guests: &mut [GuestInput], ticks: usize) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for _ in 0..ticks {
        for guest in guests.iter_mut() {
            guest.usage.resident_bytes = guest.usage.allocation_bytes;
            guest.usage.committed_bytes = guest.usage.allocation_bytes;
        }
        decisions = allocate(config, host, guests);
        obey(guests, &decisions);
    }
    decisions
}

pub fn sampled(shares: u32, active_mib: u64, stall_ratio: f64, allocation_mib: u64) -> GuestInput {
    let mut guest = GuestInput { shares, ..GuestInput::new(&ON, 256 * MIB, 0) };
    let active_bytes = Some(active_mib * MIB);
    let waited_ratio = stall_ratio;
    guest.usage =
        Usage { allocation_bytes: allocation_mib * MIB, stall_ratio, waited_ratio, active_bytes, ..Usage::default() };
    guest
}
