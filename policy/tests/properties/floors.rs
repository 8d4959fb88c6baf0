//! Floors: nobody is taken below what it cannot be squeezed below, as long as these fit the budget.

use policy::{GuestInput, Host, allocate};
use proptest::prelude::*;

use crate::guests::{MIB, ON, TICKS, floor, guests, idle_and_busy, in_force, obey};

/// Found by a guest that idled with all its pages in the pool, and was ended as out of memory while another
/// grew.
#[test]
fn a_guest_is_not_taken_below_what_its_compressed_pages_take() {
    let host = Host { budget_bytes: 320 * MIB, ..Host::default() };
    let mut guests = idle_and_busy();
    (guests[0].usage.active_bytes, guests[1].usage.active_bytes) = (Some(0), Some(240 * MIB));
    guests[0].usage.irreducible_bytes = 120 * MIB;
    for _ in 0..TICKS {
        let decisions = allocate(&ON, &host, &guests);
        obey(&mut guests, &decisions);
    }
    let kept_mib = guests[0].usage.allocation_bytes / MIB;
    assert!((136..=137).contains(&kept_mib), "{kept_mib} MiB: these, its floor of 16 MiB, and at most a dead band");
    guests[0].usage.allocation_bytes = 100 * MIB;
    guests[0].usage.stall_ratio = 1.0;
    let helped = allocate(&ON, &Host { budget_bytes: 330 * MIB, ..host }, &guests)[0];
    assert!(helped.allocation_bytes > 100 * MIB, "{helped:?}");
}

/// Four guests of 225 MiB that do not compress, and a budget that was lowered from 900 MiB to 450.
#[test]
fn a_budget_below_the_floors_is_followed_as_far_as_they_go_and_takes_from_nobody_what_it_cannot_give() {
    let lowered = Host { budget_bytes: 450 * MIB, ceiling_bytes: 900 * MIB, ..Host::default() };
    let mut guests = [GuestInput::new(&ON, 256 * MIB, 4 * MIB); 4];
    for guest in &mut guests {
        guest.usage.allocation_bytes = 225 * MIB;
        guest.usage.committed_bytes = 225 * MIB;
        guest.usage.resident_bytes = 225 * MIB;
        guest.usage.irreducible_bytes = 180 * MIB;
    }
    guests[3].usage.irreducible_bytes = 0;
    for _ in 0..TICKS {
        let decisions = allocate(&ON, &lowered, &guests);
        obey(&mut guests, &decisions);
    }
    assert_eq!(guests.map(|guest| guest.usage.allocation_bytes / MIB), [200, 200, 200, 36]);
    // One grows incompressible later: what it was squeezed to is not enough any more, and it was not long ago
    // that more was in force.
    guests[3].usage.irreducible_bytes = 60 * MIB;
    let later = allocate(&ON, &lowered, &guests);
    assert_eq!(later[3].allocation_bytes, 80 * MIB);
    let no_more = allocate(&ON, &Host { ceiling_bytes: 636 * MIB, ..lowered }, &guests);
    assert!(
        no_more.iter().zip(&guests).all(|(new, old)| new.allocation_bytes >= old.usage.committed_bytes.min(floor(old)))
    );
    assert!(no_more[3].allocation_bytes <= 36 * MIB, "{no_more:?}");
}

/// A guest that was outbid, and whose pages then stop compressing: those who outbid it give back before it
/// starves.
#[test]
fn a_guest_that_grows_incompressible_after_it_was_outbid_gets_back_what_it_cannot_run_without() {
    let host = Host { budget_bytes: 320 * MIB, ..Host::default() };
    let mut guests = idle_and_busy();
    guests[1].shares *= 10;
    guests[0].usage.active_bytes = Some(250 * MIB);
    guests[1].usage.active_bytes = Some(250 * MIB);
    let settle = |guests: &mut [GuestInput; 2]| {
        for _ in 0..TICKS {
            let decisions = allocate(&ON, &host, guests);
            obey(guests, &decisions);
            guests.iter_mut().for_each(|guest| guest.usage.resident_bytes = guest.usage.allocation_bytes);
        }
    };
    settle(&mut guests);
    let outbid = guests[0].usage.allocation_bytes;
    assert!(outbid < 70 * MIB, "{outbid}");
    guests[0].usage.irreducible_bytes = 90 * MIB;
    settle(&mut guests);
    assert!(guests[0].usage.allocation_bytes >= floor(&guests[0]), "{guests:?}");
}

proptest! {
    #[test]
    fn nobody_goes_below_his_floor_while_the_floors_fit(guests in guests(), spare in 0.0f64..1.0) {
        let mut guests = guests;
        let floors: u64 = guests.iter().map(floor).sum();
        let host = Host { budget_bytes: floors + (spare * 512.0 * MIB as f64) as u64, ..Host::default() };
        for guest in &mut guests {
            guest.usage.committed_bytes = 0;
        }
        for (guest, decision) in guests.iter().zip(allocate(&ON, &host, &guests)) {
            prop_assert!(decision.allocation_bytes >= floor(guest), "{decision:?} of {guest:?}");
        }
    }

    #[test]
    fn a_lowered_budget_is_followed_as_far_as_the_floors_and_no_further(
        guests in guests(), part in 0.0f64..1.0, raised in 0.0f64..1.0,
    ) {
        let (floors, before): (u64, u64) =
            (guests.iter().map(floor).sum(), guests.iter().map(|guest| guest.usage.allocation_bytes.max(guest.usage.committed_bytes)).sum());
        let reserved: u64 = guests.iter().map(|guest| guest.reservation_bytes).sum();
        let budget_bytes = reserved + (part * before.saturating_sub(reserved) as f64) as u64;
        let ceiling_bytes = before + (raised * 64.0 * MIB as f64) as u64;
        let host = Host { budget_bytes, ceiling_bytes, ..Host::default() };
        let decisions = allocate(&ON, &host, &guests);
        for (guest, decision) in guests.iter().zip(&decisions) {
            let held = floor(guest).min(guest.usage.committed_bytes);
            prop_assert!(decision.allocation_bytes + 1 >= held.max(guest.reservation_bytes), "below what it cannot give: {decision:?} of {guest:?}");
        }
        let sum: u64 = decisions.iter().map(|decision| decision.allocation_bytes).sum();
        prop_assert!(sum <= budget_bytes.max(floors), "{sum} given of {budget_bytes}, floors are {floors}");
        prop_assert!(in_force(&guests, &decisions) <= ceiling_bytes.max(before));
    }
}
