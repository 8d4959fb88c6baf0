//! Admission: a guest may start only if what is reserved for it can be kept for it, whatever all guests do.

use crate::fill::sum;
use crate::guest::{Config, GuestInput, Host};

/// Why guests may not start. Each message names the numbers and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// the reservations would exceed the budget
    #[error(
        "{needed} MiB would be promised for certain, the budget is {budget} MiB: each new guest has {each} MiB reserved, \
         {running} running ones {reserved} MiB, {set_aside} MiB are set aside for frames, their breaks and upkeep; \
         raise the budget to at least {needed} MiB, or start at most {fitting} new guests",
        needed = mib_up(*needed_bytes), budget = mib_down(*budget_bytes), each = mib_up(*largest_bytes),
        reserved = mib_up(*reserved_bytes), set_aside = mib_up(*set_aside_bytes)
    )]
    OverBudget {
        /// The budget that would do.
        needed_bytes: u128,
        /// The budget there is.
        budget_bytes: u128,
        /// Largest reservation among the new guests.
        largest_bytes: u128,
        /// Guests that run already.
        running: usize,
        /// What they have reserved.
        reserved_bytes: u128,
        /// Frames, their headroom, what breaks are expected to take, and the host's own upkeep.
        set_aside_bytes: u128,
        /// How many of the new guests, in their order, would fit.
        fitting: usize,
    },
    /// more is reserved for a guest than it may have
    #[error(
        "a reservation of {reservation_bytes} bytes is above the limit of {limit_bytes}; lower it, or raise the limit (at most memory \
         and overhead, {limit_bytes_max} bytes)"
    )]
    AboveLimit {
        /// What is reserved.
        reservation_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
        /// What could be allowed.
        limit_bytes_max: u64,
    },
}

/// Whether `new` guests may start, all of them, beside the `running` ones.
pub fn admit(config: &Config, host: &Host, running: &[GuestInput], new: &[GuestInput]) -> Result<(), Refusal> {
    for guest in new {
        let limit_bytes_max = guest.memory_bytes.saturating_add(guest.overhead_bytes);
        let (reservation_bytes, limit_bytes) = (guest.minimum_bytes(config), guest.limit_bytes.min(limit_bytes_max));
        if reservation_bytes > limit_bytes {
            return Err(Refusal::AboveLimit { reservation_bytes, limit_bytes, limit_bytes_max });
        }
    }
    let minimums = |guests: &[GuestInput]| guests.iter().map(|guest| guest.minimum_bytes(config)).collect::<Vec<_>>();
    let (reserved_bytes, new) = (sum(&minimums(running)), minimums(new));
    let set_aside_bytes = u128::from(host.set_aside_bytes());
    let budget_bytes = u128::from(host.budget_bytes);
    let needed_by = |count: usize| set_aside_bytes + reserved_bytes + sum(&new[..count]);
    if needed_by(new.len()) <= budget_bytes {
        return Ok(());
    }
    Err(Refusal::OverBudget {
        needed_bytes: needed_by(new.len()),
        budget_bytes,
        largest_bytes: new.iter().copied().max().unwrap_or(0).into(),
        running: running.len(),
        reserved_bytes,
        set_aside_bytes,
        fitting: (1..new.len()).take_while(|&count| needed_by(count) <= budget_bytes).count(),
    })
}

/// How large the frame stores may grow together without touching a reservation.
pub fn store_bytes_max(config: &Config, host: &Host, guests: &[GuestInput]) -> u64 {
    let reserved: u128 = guests.iter().map(|guest| u128::from(guest.minimum_bytes(config))).sum();
    let reserved = u64::try_from(reserved).unwrap_or(u64::MAX);
    host.budget_bytes
        .saturating_sub(host.host_overhead_bytes)
        .saturating_sub(host.frames_headroom_bytes)
        .saturating_sub(reserved)
}

fn mib_up(bytes: u128) -> u128 {
    bytes.div_ceil(1 << 20)
}

fn mib_down(bytes: u128) -> u128 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_refusal_names_the_budget_and_the_number_of_guests_that_would_fit() {
        let off = Config { dedup: false, balloon: false, pager: false, idle_tax_percent: 75 };
        let host = Host { budget_bytes: 768 * MIB, ..Host::default() };
        let guests = [GuestInput::new(&off, 256 * MIB, 4 * MIB); 8];
        let message = admit(&off, &host, &[], &guests).unwrap_err().to_string();
        assert!(message.contains("at least 2080 MiB, or start at most 2 new guests"), "{message}");
        assert_eq!(admit(&off, &host, &[], &guests[..2]), Ok(()));
        assert_eq!(admit(&off, &Host { budget_bytes: 2080 * MIB, ..host }, &[], &guests), Ok(()));
    }

    #[test]
    fn a_reservation_above_the_limit_is_refused() {
        let config = Config::default();
        let guest = GuestInput { limit_bytes: 8 * MIB, ..GuestInput::new(&config, 64 * MIB, 0) };
        let host = Host { budget_bytes: 1 << 40, ..Host::default() };
        assert!(matches!(admit(&config, &host, &[], &[guest]), Err(Refusal::AboveLimit { .. })));
    }

    #[test]
    fn the_frame_stores_never_grow_into_a_reservation() {
        let config = Config::default();
        let host = Host { budget_bytes: 100 * MIB, frames_headroom_bytes: 10 * MIB, ..Host::default() };
        assert_eq!(store_bytes_max(&config, &host, &[GuestInput::new(&config, 256 * MIB, 8 * MIB)]), 50 * MIB);
    }
}
