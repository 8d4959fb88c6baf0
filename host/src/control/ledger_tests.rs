//! What the ledger makes of reports, over many ticks.

use std::ops::Range;

use control::{Dedup, GuestStatus};
use policy::{Decision, GuestInput, Reason};

use super::*;
use crate::fleet::phase::{End, Phase};
use crate::request::admission::initial;
use crate::request::overhead::overhead_bytes;

const MIB: u64 = 1 << 20;
const TICK: Duration = Duration::from_millis(100);
const ALL: Levers = Levers { dedup: Dedup::On, balloon: true, pager: true };

/// Guests that use all they were given.
fn views(grants: &[Grant]) -> Vec<View> {
    let view = |(number, &grant): (usize, &Grant)| {
        let mut status = GuestStatus { memory_bytes: 256 * MIB, ..GuestStatus::default() };
        status.pager.committed_bytes = grant.allocation_bytes;
        status.pager.resident_bytes = grant.allocation_bytes;
        View { grant, ..View::running(&format!("guest{number}"), status) }
    };
    grants.iter().enumerate().map(view).collect()
}

impl Settlement {
    fn grants(&self) -> Vec<Option<Grant>> {
        self.guests.iter().map(|settled| settled.map(|settled| settled.grant)).collect()
    }

    fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.guests.iter().flatten().map(|settled| settled.verdict)
    }

    fn granted_bytes(&self) -> u64 {
        self.grants().iter().flatten().map(|grant| grant.allocation_bytes).sum()
    }
}

#[test]
fn what_is_granted_and_what_the_store_may_take_fit_the_budget() {
    let config = RunConfig::idle(768 * MIB, ALL);
    let views = views(&initial(&config, &PlannedGuest::eight()));
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    for frames_bytes in [0, 40 * MIB, 80 * MIB, 300 * MIB] {
        let settlement = ledger.settle(&views, frames_bytes, TICK);
        let in_force: u64 =
            views.iter().map(|view| view.grant.allocation_bytes).sum::<u64>().max(settlement.granted_bytes());
        assert!(in_force + settlement.store_bytes_max <= 768 * MIB, "with {frames_bytes} bytes of frames");
    }
}

#[test]
fn a_rule_that_is_given_divides_instead_of_ours_and_hears_each_tick() {
    fn frugal(_: &Config, _: &Host, guests: &[GuestInput], ms: Range<u64>) -> Vec<Decision> {
        let decision = |guest: &GuestInput| Decision {
            allocation_bytes: guest.memory_bytes / 8 + (ms.end - ms.start),
            balloon_bytes: 0,
            entitlement_bytes: 0,
            reason: Reason::Settled,
        };
        guests.iter().map(decision).collect()
    }
    let config = RunConfig { rule: Some(frugal), ..RunConfig::idle(768 * MIB, ALL) };
    let views = views(&initial(&config, &PlannedGuest::eight()));
    let settlement = Ledger::new(&config, &PlannedGuest::eight()).settle(&views, 0, TICK);
    assert_eq!(settlement.granted_bytes(), 8 * (32 * MIB + 100));
}

#[test]
fn a_store_that_grows_gets_more_headroom_until_it_is_settled() {
    let config = RunConfig::idle(768 * MIB, ALL);
    let mut ledger = Ledger::new(&config, &[]);
    let mut headroom = |frames_bytes| {
        ledger.settle(&[], frames_bytes, TICK);
        ledger.headroom_bytes / MIB
    };
    assert_eq!([3, 8, 16, 30, 60].map(|mib| headroom(mib * MIB)), [8, 16, 24, 24, 24]);
    assert_eq!([60, 60, 60].map(|mib| headroom(mib * MIB)), [12, 6, 4]);
}

#[test]
fn a_store_that_had_no_room_gets_more_headroom_though_it_did_not_grow() {
    let mut ledger = Ledger::new(&RunConfig::idle(768 * MIB, ALL), &[]);
    for (refused, headroom) in [(true, 8), (true, 16), (true, 24), (true, 24), (false, 12), (false, 6), (false, 4)] {
        ledger.set_frames_refused(refused);
        ledger.settle(&[], 0, TICK);
        assert_eq!(ledger.headroom_bytes, headroom * MIB);
    }
}

#[test]
fn a_guest_that_is_gone_frees_its_memory_for_those_that_stall() {
    let config = RunConfig::idle(768 * MIB, ALL);
    let mut views = views(&initial(&config, &PlannedGuest::eight()));
    let before = views[1].grant.allocation_bytes;
    views[0].phase = Phase::Ended(End::Lost("killed".into()));
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    for tick in 1..100 {
        for view in &mut views {
            view.status.pager.stall_ns_total = tick * 50_000_000;
        }
        let settlement = ledger.settle(&views, 0, TICK);
        assert_eq!(settlement.grants()[0], None);
        for (view, grant) in views.iter_mut().zip(settlement.grants()) {
            view.grant = grant.unwrap_or_default();
            view.status.pager.committed_bytes = view.grant.allocation_bytes;
            view.status.pager.resident_bytes = view.grant.allocation_bytes;
        }
    }
    let grown = views[1].grant.allocation_bytes - before;
    assert!(grown >= before / 8, "{grown} of {before} bytes");
}

/// Allocations come down at once, and no further than to what is reserved; use follows.
#[test]
fn a_budget_that_is_lowered_leaves_reservations_alone_and_is_kept_by_what_is_granted() {
    let config = RunConfig::idle(768 * MIB, ALL);
    let mut views = views(&initial(&config, &PlannedGuest::eight()));
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    ledger.set_budget_bytes(400 * MIB);
    let reserved = 256 * MIB / 8 + overhead_bytes(256 * MIB);
    let settlement = ledger.settle(&views, 0, TICK);
    assert_eq!(settlement.situation.state, HostState::Low);
    assert!(settlement.verdicts().all(|verdict| verdict.held_back) && settlement.granted_bytes() <= 394 * MIB);
    for (view, grant) in views.iter_mut().zip(settlement.grants()) {
        view.grant = grant.unwrap();
        assert!(view.grant.allocation_bytes >= reserved, "{:?}", view.grant);
        view.status.pager.committed_bytes = view.grant.allocation_bytes;
        view.status.pager.resident_bytes = view.grant.allocation_bytes;
    }
    let settlement = ledger.settle(&views, 0, TICK);
    assert!(settlement.situation.state < HostState::Low && settlement.verdicts().all(|verdict| !verdict.held_back));
}

/// Guests that are given what is decided, and use all of it; `change` says what else happens to them in each
/// tick of 100 ms.
fn lived(ticks: u64, change: impl Fn(u64, &mut [View])) -> (Vec<View>, Settlement) {
    let config = RunConfig::idle(768 * MIB, ALL);
    let mut views = views(&initial(&config, &PlannedGuest::eight()));
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    let mut last = None;
    for tick in 0..ticks {
        change(tick, &mut views);
        let settlement = ledger.settle(&views, 0, TICK);
        for (view, grant) in views.iter_mut().zip(settlement.grants()) {
            view.grant = grant.unwrap();
            view.status.pager.committed_bytes = view.grant.allocation_bytes;
            view.status.pager.resident_bytes = view.grant.allocation_bytes;
        }
        last = Some(settlement);
    }
    (views, last.unwrap())
}

fn allocations(views: &[View]) -> Vec<u64> {
    views.iter().map(|view| view.grant.allocation_bytes).collect()
}

/// Guests 1 to 7 wait for memory.
fn others_wait(tick: u64, views: &mut [View]) {
    views[1..].iter_mut().for_each(|view| view.status.pager.stall_ns_total = tick * 30_000_000);
}

#[test]
fn a_guest_that_lies_in_its_statistics_changes_nobody_s_allocation() {
    use wire::balloon::stat::{MAJFLT, SWAP_IN};
    let honest = allocations(&lived(100, others_wait).0);
    let frozen = |_| 7;
    let absurd = |tick: u64| u64::MAX - tick % 3;
    let negative = |tick: u64| (-(tick as i64)) as u64;
    let racing = |tick: u64| tick << 50;
    let lies: [&dyn Fn(u64) -> u64; 4] = [&frozen, &absurd, &negative, &racing];
    for (number, lie) in lies.iter().enumerate() {
        let (views, _) = lived(100, |tick, views| {
            others_wait(tick, views);
            views[0].status.balloon.statistics = vec![(MAJFLT, lie(tick)), (SWAP_IN, lie(tick)), (999, lie(tick))];
            views[0].status.balloon.actual_bytes = u64::MAX;
        });
        assert_eq!(allocations(&views), honest, "lie {number}");
    }
}

#[test]
fn a_balloon_that_gives_nothing_is_stuck_and_its_guest_gives_way_all_the_same() {
    let given = |gives: bool| {
        lived(100, move |tick, views| {
            others_wait(tick, views);
            views.iter_mut().for_each(|view| {
                view.status.balloon.driver_ok = true;
                view.status.balloon.actual_bytes = view.grant.balloon_bytes;
            });
            if !gives {
                views[0].status.balloon.actual_bytes = 0;
            }
        })
    };
    let (honest, _) = given(true);
    let (stuck, settlement) = given(false);
    assert_eq!(allocations(&stuck), allocations(&honest));
    let record = settlement.guests[0].unwrap().verdict.record;
    assert_eq!(record.standing.name(), "stuck");
    assert_eq!(record.guest.usage.means.0[0].available_bytes, 0, "nothing is expected of it");
    assert!(stuck[0].grant.balloon_bytes < honest[0].grant.balloon_bytes / 8, "{:?}", stuck[0].grant);
}

#[test]
fn clocks_that_jump_move_no_memory_and_break_nothing() {
    let config = RunConfig::idle(768 * MIB, ALL);
    let views = views(&initial(&config, &PlannedGuest::eight()));
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    let settled = ledger.settle(&views, 0, TICK).grants();
    for elapsed in [Duration::ZERO, Duration::MAX, Duration::ZERO, Duration::from_secs(1 << 40), TICK] {
        assert_eq!(ledger.settle(&views, 0, elapsed).grants(), settled, "{elapsed:?}");
    }
}

#[test]
fn guests_are_sampled_more_often_while_one_is_short() {
    let config = RunConfig { sample_period: Some(Duration::from_secs(30)), ..RunConfig::idle(768 * MIB, ALL) };
    let mut views = views(&initial(&config, &PlannedGuest::eight()));
    views.iter_mut().for_each(|view| view.status.pager.resident_bytes /= 2);
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    assert_eq!(ledger.settle(&views, 0, TICK).sample_period_ms, 30_000);
    views[0].status.pager.resident_bytes *= 2;
    views[0].status.pager.stall_ns_total = 50_000_000;
    let settlement = ledger.settle(&views, 0, TICK);
    assert_eq!((settlement.situation.state, settlement.sample_period_ms), (HostState::High, 6_000));
}

#[test]
fn a_paused_guest_gives_way_down_to_its_reservation_and_is_asked_for_nothing() {
    let config = RunConfig::idle(768 * MIB, ALL);
    let mut views = views(&initial(&config, &PlannedGuest::eight()));
    views[0].phase = Phase::Paused;
    views[0].grant.balloon_bytes = 5 * MIB;
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    for tick in 1..200 {
        for view in &mut views {
            // The paused one's, too: what it waited for before counts no more.
            view.status.pager.stall_ns_total = tick * 50_000_000;
        }
        let settlement = ledger.settle(&views, 0, TICK);
        for (view, grant) in views.iter_mut().zip(settlement.grants()) {
            view.grant = grant.unwrap();
            view.status.pager.committed_bytes = view.grant.allocation_bytes;
            view.status.pager.resident_bytes = view.grant.allocation_bytes;
        }
    }
    let reserved = 256 * MIB / 8 + overhead_bytes(256 * MIB);
    let left = views[0].grant.allocation_bytes;
    assert!((reserved..reserved + MIB).contains(&left), "{left} of {reserved} reserved");
    assert_eq!(views[0].grant.balloon_bytes, 5 * MIB);
}

/// A guest that touches all that its balloon leaves it still finds credits: the pager never hands out the
/// last ones.
#[test]
fn a_balloon_leaves_the_pager_its_reserve() {
    const RESERVED_PAGES: u64 = 192 + 32;
    let config = RunConfig::idle(768 * MIB, ALL);
    let mut views = views(&initial(&config, &PlannedGuest::eight()));
    views.iter_mut().for_each(|view| view.status.pager.overhead_bytes = 2 * MIB);
    let grants = Ledger::new(&config, &PlannedGuest::eight()).settle(&views, 0, TICK).grants();
    for Grant { allocation_bytes, balloon_bytes, .. } in grants.into_iter().flatten() {
        let touchable = 256 * MIB - balloon_bytes;
        assert!(touchable + 2 * MIB + RESERVED_PAGES * PAGE_BYTES as u64 <= allocation_bytes);
    }
}

#[test]
fn a_budget_that_the_world_outside_shrinks_holds_back_who_is_above_it() {
    let config = RunConfig::idle(768 * MIB, ALL);
    let views = views(&initial(&config, &PlannedGuest::eight()));
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    let settled = ledger.settle(&views, 0, TICK);
    assert!(
        settled.situation.state < HostState::Low && settled.verdicts().all(|verdict| !verdict.held_back),
        "{settled:?}"
    );
    ledger.hear(Outside { limit_bytes: Some(512 * MIB), ..Outside::default() });
    let squeezed = ledger.settle(&views, 0, TICK);
    assert_eq!((squeezed.situation.state, squeezed.situation.usable_bytes), (HostState::Low, 496 * MIB));
    assert!(squeezed.granted_bytes() < settled.granted_bytes() && squeezed.verdicts().all(|verdict| verdict.held_back));
    let record = squeezed.guests[0].unwrap().verdict.record;
    assert!(record.to_string().contains("the budget has become tighter"), "{record}");
}

/// Guests of which most does not compress, after some time under `change`.
fn stuck(floor_bytes: u64, change: impl Fn(&mut Ledger)) -> (Vec<View>, Settlement) {
    let config = RunConfig::idle(768 * MIB, ALL);
    let mut views = views(&initial(&config, &PlannedGuest::eight()));
    let mut ledger = Ledger::new(&config, &PlannedGuest::eight());
    let settle = |ledger: &mut Ledger, views: &mut Vec<View>| {
        let settlement = ledger.settle(views, 0, TICK);
        for (view, grant) in views.iter_mut().zip(settlement.grants()) {
            view.grant = grant.unwrap();
            let pager = &mut view.status.pager;
            pager.floor_bytes = floor_bytes;
            pager.resident_bytes = pager.resident_bytes.min(view.grant.allocation_bytes).max(floor_bytes);
            pager.committed_bytes = view.grant.allocation_bytes.max(pager.resident_bytes);
        }
        settlement
    };
    settle(&mut ledger, &mut views);
    change(&mut ledger);
    let mut last = settle(&mut ledger, &mut views);
    for _ in 0..50 {
        last = settle(&mut ledger, &mut views);
    }
    (views, last)
}

#[test]
fn whatever_number_shrinks_nobody_goes_below_what_it_can_be_squeezed_to_or_is_ended_for_it() {
    let limit = |ledger: &mut Ledger| ledger.hear(Outside { limit_bytes: Some(700 * MIB), ..Outside::default() });
    let machine = |ledger: &mut Ledger| ledger.hear(Outside { available_bytes: Some(0), ..Outside::default() });
    let pressure = |ledger: &mut Ledger| ledger.hear(Outside { pressure: Some(0.9), ..Outside::default() });
    let budget = |ledger: &mut Ledger| ledger.set_budget_bytes(450 * MIB);
    let changes: [&dyn Fn(&mut Ledger); 4] = [&limit, &machine, &pressure, &budget];
    for (number, change) in changes.iter().enumerate() {
        let floor_bytes = 88 * MIB;
        let (views, settlement) = stuck(floor_bytes, change);
        assert!(views.iter().all(|view| view.grant.allocation_bytes >= floor_bytes), "{number}: {views:?}");
        let situation = settlement.situation;
        assert!(situation.in_force_bytes <= situation.ceiling_bytes.max(768 * MIB), "{number}: {situation:?}");
        if situation.floor_bytes > situation.usable_bytes {
            assert!(situation.short_bytes() > 0, "{number}: {situation:?}");
            assert!(settlement.verdicts().all(|verdict| !verdict.ends_if_starved), "{number}");
        }
    }
    let (views, settlement) = stuck(20 * MIB, budget);
    assert_eq!((settlement.situation.short_bytes(), settlement.situation.reached_bytes()), (0, 450 * MIB));
    assert!(allocations(&views).iter().sum::<u64>() <= 443 * MIB);
}
