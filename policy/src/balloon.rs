//! How much of its memory a guest is asked to give up: what would not fit its allocation if it used all the
//! rest.
//!
//! `usable = allocation − overhead + saved`, where *saved* is guest memory that costs (almost) nothing now
//! because it is shared, zero or compressed; the balloon asks for the rest. A guest that uses up its
//! allocation and has touched all of its memory is asked for exactly what it has given already, so nothing
//! drifts. Without a pager nothing enforces the allocation but the balloon itself, and savings may go at any
//! time: then nothing is counted as saved.
//!
//! With a pager the balloon is asked for more only as far as it is the cheapest lever ([`crate::means`]):
//! what is not asked for is evicted.

use crate::guest::{Config, GuestInput};

/// A request within this part of the guest's memory of the last one is not worth the guest's work: 1 %.
const DEAD_BAND_DIVISOR: u64 = 100;
/// A request sinks by at most this part of the guest's memory a tick, twice what an allocation can grow by:
/// savings that come and go (shares that break again) do not let in what must be pushed out a moment later.
const DEFLATE_DIVISOR: u64 = 32;

/// What the balloon is asked for under this allocation.
pub fn request_bytes(config: &Config, guest: &GuestInput, allocation_bytes: u64) -> u64 {
    let usage = &guest.usage;
    let saved = [usage.shared_bytes, usage.zero_bytes, usage.compressed_saved_bytes];
    let saved = if config.pager { saved.into_iter().fold(0, u64::saturating_add) } else { 0 };
    let usable = allocation_bytes.saturating_sub(guest.overhead_bytes).saturating_add(saved);
    let capacity = guest.balloon_capacity_bytes(config);
    let wanted = guest.memory_bytes.saturating_sub(usable).min(capacity);
    let last = usage.balloon_bytes.min(capacity);
    if config.pager && wanted.abs_diff(last) <= guest.memory_bytes / DEAD_BAND_DIVISOR {
        return last;
    }
    if config.pager && wanted > last {
        // What is cheaper to evict is not asked for.
        let [by_balloon, ..] = usage.means.mix(wanted - last);
        let more = by_balloon.min(wanted - last);
        return if more <= guest.memory_bytes / DEAD_BAND_DIVISOR { last } else { last + more };
    }
    wanted.max(last.saturating_sub(guest.memory_bytes / DEFLATE_DIVISOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::means::{Mean, Means};

    const MIB: u64 = 1 << 20;
    const ON: Config = Config { dedup: true, balloon: true, pager: true, idle_tax_percent: 75 };

    fn guest() -> GuestInput {
        GuestInput::new(&ON, 256 * MIB, 4 * MIB)
    }

    #[test]
    fn the_balloon_asks_for_what_does_not_fit() {
        assert_eq!(request_bytes(&ON, &guest(), 100 * MIB), 160 * MIB);
    }

    #[test]
    fn savings_let_the_balloon_sink_in_bounded_steps() {
        let mut guest = guest();
        guest.usage.balloon_bytes = 160 * MIB;
        guest.usage.shared_bytes = 100 * MIB;
        assert_eq!(request_bytes(&ON, &guest, 100 * MIB), 152 * MIB);
        guest.usage.balloon_bytes = 62 * MIB;
        assert_eq!(request_bytes(&ON, &guest, 100 * MIB), 62 * MIB, "within the dead band");
    }

    #[test]
    fn what_is_cheaper_to_evict_is_not_asked_for() {
        let mut guest = guest();
        let mean = |mib, per_page_us| Mean { available_bytes: mib * MIB, per_page_us, bytes_per_tick: None };
        guest.usage.balloon_bytes = 100 * MIB;
        guest.usage.means = Means([mean(200, 80.0), mean(20, 6.0), Mean::default()]);
        assert_eq!(request_bytes(&ON, &guest, 100 * MIB), 140 * MIB);
        guest.usage.means.0[0].per_page_us = 3.0;
        assert_eq!(request_bytes(&ON, &guest, 100 * MIB), 160 * MIB);
        guest.usage.means = Means([mean(1, 3.0), mean(200, 6.0), Mean::default()]);
        assert_eq!(request_bytes(&ON, &guest, 100 * MIB), 100 * MIB, "crumbs are not worth asking for");
    }

    #[test]
    fn without_a_pager_savings_are_not_relied_on_and_no_byte_is_forgiven() {
        let config = Config { pager: false, ..ON };
        let mut guest = guest();
        guest.usage.shared_bytes = 100 * MIB;
        guest.usage.balloon_bytes = 160 * MIB - 1;
        assert_eq!(request_bytes(&config, &guest, 100 * MIB), 160 * MIB);
    }

    #[test]
    fn the_floor_is_never_asked_for_and_without_a_balloon_nothing_is() {
        assert_eq!(request_bytes(&ON, &guest(), 0), 240 * MIB);
        assert_eq!(request_bytes(&Config { balloon: false, ..ON }, &guest(), 0), 0);
    }
}
