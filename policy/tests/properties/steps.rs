//! Steps: who gives first, how fast, and when somebody else may have it.

use policy::means::{Mean, Means};
use policy::{GuestInput, Host, Reason, Usage, allocate};

use crate::guests::{MIB, ON, in_force, obey, sampled, settle};

#[test]
fn growth_waits_until_the_other_guest_has_really_shrunk() {
    let host = Host { budget_bytes: 300 * MIB, ..Host::default() };
    let mut guests = [GuestInput::new(&ON, 256 * MIB, 0); 2];
    for guest in &mut guests {
        let all = 150 * MIB;
        guest.usage = Usage { allocation_bytes: all, committed_bytes: all, resident_bytes: all, ..Usage::default() };
    }
    guests[0].usage.stall_ratio = 0.5;

    let first = allocate(&ON, &host, &guests);
    assert_eq!((first[0].allocation_bytes, first[0].reason), (150 * MIB, Reason::Waits));
    assert_eq!((first[1].allocation_bytes, first[1].reason), (146 * MIB, Reason::Yields));

    obey(&mut guests, &first);
    let second = allocate(&ON, &host, &guests);
    assert_eq!((second[0].allocation_bytes, second[0].reason), (154 * MIB, Reason::Stalls));
}

#[test]
fn a_guest_that_uses_little_gives_before_one_that_uses_all() {
    let host = Host { budget_bytes: 300 * MIB, ..Host::default() };
    let mut guests = [GuestInput::new(&ON, 256 * MIB, 0); 3];
    for guest in &mut guests {
        let all = 100 * MIB;
        guest.usage = Usage { allocation_bytes: all, committed_bytes: all, resident_bytes: all, ..Usage::default() };
    }
    guests[0].usage.stall_ratio = 0.5;
    guests[1].usage.committed_bytes = 40 * MIB;
    guests[1].usage.resident_bytes = 40 * MIB;
    let decisions = allocate(&ON, &host, &guests);
    assert_eq!(
        decisions.iter().map(|decision| decision.reason).collect::<Vec<_>>(),
        [Reason::Stalls, Reason::Slack, Reason::Settled]
    );
    assert!(in_force(&guests, &decisions) <= 300 * MIB);
}

#[test]
fn measurements_that_make_no_sense_count_as_calm() {
    let host = Host { budget_bytes: 100 * MIB, ..Host::default() };
    let mut guests = [GuestInput::new(&ON, 256 * MIB, 0); 2];
    let sane = allocate(&ON, &host, &guests);
    guests[0].usage.stall_ratio = f64::NAN;
    guests[1].usage.refaults_per_second = f64::INFINITY;
    assert_eq!(allocate(&ON, &host, &guests), sane);
}

#[test]
fn a_spared_guest_gives_only_to_those_below_their_entitlement() {
    let host = Host { budget_bytes: 320 * MIB, ..Host::default() };
    // The third is entitled to as much as the others and does not want it; so both others have more than they
    // are entitled to.
    let guests = |spared, active_mib| {
        let mut guests =
            [sampled(1000, 256, 0.5, 130), sampled(1000, active_mib, 0.0, 150), sampled(1000, 256, 0.0, 40)];
        guests[1].usage.spared = spared;
        guests
    };
    let after = |mut guests: [GuestInput; 3]| {
        settle(&ON, &host, &mut guests, 1);
        guests[1].usage.allocation_bytes / MIB
    };
    assert_eq!((after(guests(false, 256)), after(guests(true, 256))), (146, 150));
    // It uses little of what it has: the first is entitled to 140.5 MiB now.
    assert_eq!(after(guests(true, 5)), 146);
}

/// An eighth more than 4 MiB is little of 1 GiB, and much of 4 MiB.
#[test]
fn a_guest_with_little_of_much_memory_grows_all_the_same() {
    let host = Host { budget_bytes: 100 * MIB, ..Host::default() };
    let mut guests = [GuestInput::new(&ON, 1024 * MIB, 0); 2];
    for (guest, mib) in guests.iter_mut().zip([4, 96]) {
        guest.reservation_bytes = MIB;
        guest.usage.allocation_bytes = mib * MIB;
    }
    guests[0].usage.stall_ratio = 0.3;
    settle(&ON, &host, &mut guests, 300);
    assert!(guests[0].usage.allocation_bytes >= 98 * MIB, "{guests:?}");
}

#[test]
fn who_gives_at_the_lowest_price_gives_first_and_as_fast_as_it_was_seen_to() {
    let host = Host { budget_bytes: 300 * MIB, ..Host::default() };
    // A step up of the first is 4 MiB.
    let mut guests = [sampled(1000, 256, 0.5, 100), sampled(1000, 5, 0.0, 100), sampled(1000, 5, 0.0, 100)];
    let after = |guests: &[GuestInput; 3]| {
        let mut guests = *guests;
        settle(&ON, &host, &mut guests, 1);
        guests.map(|guest| 100 - guest.usage.allocation_bytes.min(100 * MIB) / MIB)
    };
    assert_eq!(after(&guests), [0, 2, 2], "nothing is known: both alike");
    let mean = |per_page_us, mib_per_tick| Mean {
        available_bytes: 50 * MIB,
        per_page_us,
        bytes_per_tick: Some(mib_per_tick * MIB),
    };
    guests[1].usage.means = Means([Mean::default(), mean(90.0, 8), Mean::default()]);
    guests[2].usage.means = Means([mean(3.0, 8), Mean::default(), Mean::default()]);
    assert_eq!(after(&guests), [0, 0, 4]);
    guests[2].usage.means.0[0].bytes_per_tick = Some(MIB);
    assert_eq!(after(&guests), [0, 3, 1], "it cannot give more in a tick");
}
