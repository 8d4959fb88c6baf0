//! Rest: while nothing changes nothing moves, and a guest that stalls grows until there is no more to have.

use policy::{GuestInput, Usage, allocate, initial};
use proptest::prelude::*;

use crate::guests::{ON, TICKS, available, guests, host, in_force, obey};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn while_nothing_changes_decisions_come_to_rest(guests in guests(), spare in 0.0f64..1.0) {
        let (host, mut guests) = (host(&guests, spare), guests);
        // A guest that gives away slack uses less and less of nothing: hold what it uses apart from what it
        // may use.
        for guest in &mut guests {
            guest.usage.committed_bytes = guest.usage.resident_bytes;
        }
        let mut still = 0;
        for _ in 0..TICKS {
            let decisions = allocate(&ON, &host, &guests);
            let rests = guests.iter().zip(&decisions).all(|(guest, decision)| {
                (guest.usage.allocation_bytes, guest.usage.balloon_bytes) == (decision.allocation_bytes, decision.balloon_bytes)
            });
            still = if rests { still + 1 } else { 0 };
            obey(&mut guests, &decisions);
        }
        prop_assert!(still > 10, "still moving: {:?}", allocate(&ON, &host, &guests));
    }

    #[test]
    fn a_stalling_guest_grows_until_the_others_have_nothing_to_give(guests in guests(), spare in 0.0f64..1.0, stall in 0.01f64..1.0) {
        let (host, mut guests) = (host(&guests, spare), guests);
        // Nobody is entitled to more than its minimum who was never sampled.
        guests.iter_mut().for_each(|guest| guest.usage.active_bytes = None);
        let first = initial(&ON, &host, &guests);
        for (index, (guest, decision)) in guests.iter_mut().zip(&first).enumerate() {
            let stall_ratio = if index == 0 { stall } else { 0.0 };
            guest.usage = Usage { allocation_bytes: decision.allocation_bytes, stall_ratio, ..Usage::default() };
        }
        for _ in 0..TICKS {
            // All use all they may.
            for guest in &mut guests {
                guest.usage.resident_bytes = guest.usage.allocation_bytes;
                guest.usage.committed_bytes = guest.usage.allocation_bytes;
            }
            let decisions = allocate(&ON, &host, &guests);
            prop_assert!(decisions[0].allocation_bytes >= guests[0].usage.allocation_bytes, "it shrank");
            prop_assert!(in_force(&guests, &decisions) <= available(&host));
            obey(&mut guests, &decisions);
        }
        let unnoticed = |guest: &GuestInput| guest.memory_bytes / 256 + guests.len() as u64;
        let at_limit = guests[0].limit_bytes - guests[0].usage.allocation_bytes <= unnoticed(&guests[0]);
        let others_at_reservation =
            guests[1..].iter().all(|guest| guest.usage.allocation_bytes - guest.reservation_bytes <= unnoticed(guest).max(unnoticed(&guests[0])));
        prop_assert!(at_limit || others_at_reservation, "{guests:?}");
    }
}
