//! Shares: who is entitled to how much, with idle memory taxed.

use policy::{Config, GuestInput, Host, Reason, Usage, allocate};

use crate::guests::{MIB, ON, idle_and_busy, obey, sampled, settle};

#[test]
fn without_a_tax_an_idle_guest_keeps_its_part_whether_it_was_sampled_or_not() {
    let host = Host { budget_bytes: 320 * MIB, ..Host::default() };
    for active_bytes in [None, Some(0)] {
        let mut guests = idle_and_busy();
        guests[0].usage.active_bytes = active_bytes;
        let kept =
            |idle_tax_percent| allocate(&Config { idle_tax_percent, ..ON }, &host, &guests)[0].allocation_bytes / MIB;
        assert_eq!((kept(0), kept(75)), (160, 156), "active {active_bytes:?}");
    }
}

#[test]
fn busy_guests_end_at_the_ratio_of_their_shares_however_much_each_of_them_stalls() {
    let host = Host { budget_bytes: 300 * MIB, ..Host::default() };
    let mut guests = [sampled(1000, 256, 0.6, 100), sampled(2000, 256, 0.2, 100), sampled(3000, 256, 0.02, 100)];
    settle(&ON, &host, &mut guests, 300);
    for (guest, share) in guests.iter().zip(1..) {
        let expected = share * 50 * MIB;
        assert!(guest.usage.allocation_bytes.abs_diff(expected) <= expected / 20, "{guests:?}");
    }
}

/// ESX's figure: two guests, one of them idle. Without the tax they get the same; with it the idle one keeps
/// a fraction.
#[test]
fn the_tax_moves_idle_memory_to_the_guest_that_stalls() {
    let host = Host { budget_bytes: 350 * MIB, ..Host::default() };
    let after = |idle_tax_percent| {
        let mut guests = [sampled(1000, 5, 0.0, 175), sampled(1000, 240, 0.3, 175)];
        let config = Config { idle_tax_percent, ..ON };
        settle(&config, &host, &mut guests, 300);
        guests.map(|guest| guest.usage.allocation_bytes / MIB)
    };
    assert_eq!(after(0), [175, 175]);
    let [idle, busy] = after(75);
    assert!(busy >= 245 && idle <= 105, "{idle} and {busy} MiB");
}

#[test]
fn a_high_price_is_no_right_to_memory_that_is_not_used() {
    let host = Host { budget_bytes: 350 * MIB, ..Host::default() };
    let mut guests = [sampled(4000, 10, 0.0, 240), sampled(1000, 240, 0.3, 110)];
    settle(&ON, &host, &mut guests, 300);
    let idle = guests[0].usage.allocation_bytes / MIB;
    assert!((100..=200).contains(&idle), "four times the shares are worth idle memory, but not all of it: {idle} MiB");
}

#[test]
fn a_budget_that_shrinks_leaves_everybody_the_entitlement_at_once() {
    let host = Host { budget_bytes: 200 * MIB, ..Host::default() };
    let mut guests = [sampled(1000, 256, 0.0, 150), sampled(1000, 256, 0.0, 150)];
    let decisions = settle(&ON, &host, &mut guests, 1);
    assert_eq!(decisions.iter().map(|decision| decision.reason).collect::<Vec<_>>(), [Reason::Squeezed; 2]);
    assert_eq!(guests.map(|guest| guest.usage.allocation_bytes), [100 * MIB; 2]);
}

#[test]
fn what_is_shared_counts_by_its_fraction() {
    let host = Host { budget_bytes: 200 * MIB, ..Host::default() };
    let mut guests = [sampled(1000, 256, 0.3, 100), sampled(1000, 256, 0.3, 100)];
    guests[0].usage.charged_bytes = 40 * MIB;
    settle(&ON, &host, &mut guests, 300);
    let [sharer, other] = guests.map(|guest| guest.usage.allocation_bytes / MIB);
    assert!(sharer.abs_diff(80) <= 1 && other.abs_diff(120) <= 1, "{sharer} and {other} MiB");
}

#[test]
fn two_guests_that_stall_alike_end_with_memory_by_their_shares() {
    let host = Host { budget_bytes: 300 * MIB, ..Host::default() };
    let mut guests = [GuestInput::new(&ON, 256 * MIB, 0); 2];
    guests[1].shares = 2000;
    guests[0].usage = Usage { allocation_bytes: 200 * MIB, ..Usage::default() };
    guests[1].usage = Usage { allocation_bytes: 100 * MIB, ..Usage::default() };
    for _ in 0..100 {
        for guest in &mut guests {
            guest.usage.stall_ratio = 0.2;
            guest.usage.resident_bytes = guest.usage.allocation_bytes;
            guest.usage.committed_bytes = guest.usage.allocation_bytes;
        }
        let decisions = allocate(&ON, &host, &guests);
        obey(&mut guests, &decisions);
    }
    assert!(guests[0].usage.allocation_bytes.abs_diff(100 * MIB) <= MIB, "{guests:?}");
    assert!(guests[1].usage.allocation_bytes.abs_diff(200 * MIB) <= MIB, "{guests:?}");
}

#[test]
fn guests_that_wait_and_have_their_entitlement_to_within_a_fortieth_leave_each_other_alone() {
    let host = Host { budget_bytes: 200 * MIB, ..Host::default() };
    for (mib, moves) in [(101, false), (106, true)] {
        let mut guests = [sampled(1000, 256, 0.5, mib), sampled(1000, 256, 0.5, 200 - mib)];
        settle(&ON, &host, &mut guests, 10);
        assert_eq!(guests[0].usage.allocation_bytes != mib * MIB, moves, "{mib} MiB of 200");
    }
}
