//! Bounds that hold for any host and any guests: the budget, reservations, limits, and what is admitted.

use policy::{Config, Host, Refusal, admit, allocate, initial};
use proptest::prelude::*;

use crate::guests::{MIB, ON, available, guests, host, in_force};

proptest! {
    #[test]
    fn what_is_in_force_is_never_raised_above_the_budget(guests in guests(), spare in 0.0f64..1.0) {
        let host = host(&guests, spare);
        let before: u64 = guests.iter().map(|guest| guest.usage.allocation_bytes.max(guest.usage.committed_bytes)).sum();
        let after = in_force(&guests, &allocate(&ON, &host, &guests));
        prop_assert!(after <= available(&host).max(before), "{after} in force, {} available, {before} before", available(&host));
    }

    #[test]
    fn allocations_sum_to_at_most_the_budget_whatever_they_were(guests in guests(), spare in 0.0f64..1.0) {
        let mut guests = guests;
        let host = host(&guests, spare);
        for guest in &mut guests {
            guest.usage.committed_bytes = 0;
        }
        let sum: u64 = allocate(&ON, &host, &guests).iter().map(|decision| decision.allocation_bytes).sum();
        prop_assert!(sum <= available(&host));
        let sum: u64 = initial(&ON, &host, &guests).iter().map(|decision| decision.allocation_bytes).sum();
        prop_assert!(sum <= available(&host));
        prop_assert!(available(&host) - sum <= guests.len() as u64 * 3 * MIB, "initial leaves {} unused", available(&host) - sum);
    }

    #[test]
    fn everybody_stays_between_reservation_and_limit(guests in guests(), budget in 0u64..4096 * MIB, pager: bool, balloon: bool) {
        let config = Config { pager, balloon, ..ON };
        let host = Host { budget_bytes: budget, ..Host::default() };
        for (guest, decision) in guests.iter().zip(allocate(&config, &host, &guests)) {
            prop_assert!(decision.allocation_bytes >= guest.reservation_bytes);
            prop_assert!(decision.allocation_bytes <= guest.limit_bytes || !pager);
            let takeable = if balloon { guest.memory_bytes - guest.floor_bytes } else { 0 };
            prop_assert!(decision.balloon_bytes <= takeable);
        }
    }

    #[test]
    fn more_shares_never_get_less(guests in guests(), spare in 0.0f64..1.0, who: prop::sample::Index, more in 1u32..4000) {
        let (who, host, mut guests) = (who.index(guests.len()), host(&guests, spare), guests);
        for guest in &mut guests {
            // What there is to be had this very tick depends on who of the others lets go of what first; that
            // is not what shares are for.
            guest.usage.committed_bytes = 0;
        }
        let mut richer = guests.clone();
        richer[who].shares += more;
        for decide in [initial, allocate] {
            let (before, after) = (decide(&ON, &host, &guests)[who], decide(&ON, &host, &richer)[who]);
            // Entitlements are rungs, and rounded like them: what is left over of each rung moves by up to a
            // byte a guest.
            let rounding = guests.len() as u64;
            prop_assert!(after.allocation_bytes + rounding >= before.allocation_bytes, "{before:?} became {after:?}");
        }
    }

    #[test]
    fn without_a_pager_nobody_ever_loses_what_was_given(guests in guests(), spare in 0.0f64..1.0) {
        let config = Config { pager: false, ..ON };
        let host = host(&guests, spare);
        for (guest, decision) in guests.iter().zip(allocate(&config, &host, &guests)) {
            prop_assert!(decision.allocation_bytes >= guest.usage.allocation_bytes);
        }
    }

    #[test]
    fn admission_refuses_exactly_what_does_not_fit(running in guests(), new in guests(), budget in 0u64..8192 * MIB) {
        let host = Host { budget_bytes: budget, frames_headroom_bytes: 8 * MIB, ..Host::default() };
        let needed: u64 = 8 * MIB + running.iter().chain(&new).map(|guest| guest.reservation_bytes).sum::<u64>();
        match admit(&ON, &host, &running, &new) {
            Ok(()) => prop_assert!(needed <= budget),
            Err(Refusal::OverBudget { needed_bytes, fitting, .. }) => {
                prop_assert!(needed > budget && needed_bytes == u128::from(needed) && fitting < new.len());
                let enough = Host { budget_bytes: needed, ..host };
                prop_assert_eq!(admit(&ON, &enough, &running, &new), Ok(()));
                prop_assert!(fitting == 0 || admit(&ON, &host, &running, &new[..fitting]).is_ok());
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
