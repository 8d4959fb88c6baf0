//! Several guests against one domain: everything that can be shared is, nothing ever reads differently, and
//! what nobody uses any more is given back.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::merge::{MergeAnswer, MergeRequest};
use dedup::{Domain, Error, ProtocolError, Scanner, ScannerConfig, VmmId};
use support::{FakeGuest, PAGE, World, content, scan_pass};
use wire::{Frame, Gfn, PageBytes};

const PAGES: u32 = 1000;

/// Page `gfn` of guest `guest`: 300 pages at the same place everywhere, 300 shifted by the guest's number,
/// 100 zero, the rest its own.
fn page(guest: u32, gfn: u32) -> PageBytes {
    match gfn {
        0..300 => content(u64::from(gfn)),
        300..350 => content(10_000 + u64::from(guest) * 1000 + u64::from(gfn)),
        350..400 => [0; PAGE as usize],
        400..710 if (400 + guest..700 + guest).contains(&gfn) => content(1000 + u64::from(gfn - guest)),
        800..850 => [0; PAGE as usize],
        _ => content(10_000 + u64::from(guest) * 1000 + u64::from(gfn)),
    }
}

fn guests(domain: &Domain, count: u32) -> Vec<FakeGuest> {
    (0..count).map(|guest| FakeGuest::new(domain, (0..PAGES).map(|gfn| page(guest, gfn)))).collect()
}

fn assert_unchanged(guests: &[FakeGuest]) {
    for (guest, number) in guests.iter().zip(0..) {
        assert!((0..PAGES).all(|gfn| guest.read(gfn) == page(number, gfn)), "guest {number} reads what it wrote");
    }
}

#[test]
fn guests_reach_all_the_sharing_there_is_within_three_passes() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 5);
    let mut world = World::new(&domain, &guests);
    (0..3).for_each(|_| world.pass());
    for guest in &guests {
        assert_eq!(guest.counts(), (300, 600, 100));
    }
    assert_unchanged(&guests);
    let figures = domain.figures();
    assert_eq!((figures.frames_in_use, figures.allocated_bytes), (600, 600 * PAGE));
    assert_eq!((figures.frames_held, figures.holds), (600, 5 * 600));
    for (_, scanner) in &world.scanners {
        let status = scanner.status();
        assert_eq!(status.merged_zero_total, 100);
        assert_eq!(status.merged_same_address_total + status.merged_alias_total, 600);
        assert_eq!((status.unmerged.unique, status.mismatches_total), (300, 0));
    }
    assert_eq!(world.scanners[0].1.status().merged_alias_total, 0, "frames lie where they were first seen");
}

#[test]
fn a_late_guest_shares_what_is_at_home_without_hashing_it() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 3);
    let mut world = World::new(&domain, &guests[..2]);
    (0..3).for_each(|_| world.pass());
    domain.vmm_joined(VmmId::first(9), PAGES).unwrap();
    world.scanners.push((VmmId::first(9), Scanner::new(&guests[2], ScannerConfig::new(domain.hash_secret()))));
    world.pass();
    let status = world.scanners[2].1.status();
    assert_eq!(status.merged_same_address_total, 300);
    assert_eq!(status.hashed_total, 0);
    assert_unchanged(&guests);
}

#[test]
fn what_was_compressed_before_it_was_scanned_is_published_and_shared_at_home() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 3);
    guests.iter().for_each(FakeGuest::compress);
    let mut world = World::new(&domain, &guests);
    (0..3).for_each(|_| world.pass());
    assert_unchanged(&guests);
    assert!(domain.figures().frames_in_use >= 300, "{:?}", domain.figures());
    for guest in &guests {
        let (_, shared, _) = guest.counts();
        assert!(shared >= 300, "{shared} of those at home");
    }
    let hashed =
        |world: &World<'_>| world.scanners.iter().map(|(_, scanner)| scanner.status().hashed_total).sum::<u64>();
    let before = hashed(&world);
    world.pass();
    assert!(hashed(&world) - before < u64::from(PAGES), "what was told is not hashed in every pass");
}

#[test]
fn one_guest_shares_with_itself() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guest = [FakeGuest::new(&domain, (0..PAGES).map(|gfn| content(u64::from(gfn % 10))))];
    let mut world = World::new(&domain, &guest);
    (0..8).for_each(|_| world.pass());
    assert_eq!(guest[0].counts(), (0, PAGES as usize, 0));
    assert_eq!(domain.figures().frames_in_use, 10);
}

#[test]
fn a_pool_of_hashing_threads_finds_the_same() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 2);
    let mut world = World::new(&domain, &guests);
    let config = ScannerConfig { hash_threads: 2, ..ScannerConfig::new(domain.hash_secret()) };
    for ((_, scanner), guest) in world.scanners.iter_mut().zip(&guests) {
        *scanner = Scanner::new(guest, config);
    }
    (0..3).for_each(|_| world.pass());
    assert!(guests.iter().all(|guest| guest.counts() == (300, 600, 100)));
}

#[test]
fn two_domains_share_nothing() {
    let domains = [1, 2].map(|secret| Domain::new(PAGES, secret).unwrap());
    let guests: Vec<FakeGuest> = domains.iter().map(|domain| guests(domain, 1).remove(0)).collect();
    for (domain, guest) in domains.iter().zip(&guests) {
        let mut world = World::new(domain, std::slice::from_ref(guest));
        (0..5).for_each(|_| world.pass());
        assert_eq!(guest.counts().1, 0);
        assert_eq!(domain.figures().allocated_bytes, 0);
    }
}

#[test]
fn zero_pages_only_drops_zero_pages_and_says_nothing() {
    let domain = Domain::zero_pages_only(PAGES).unwrap();
    let guest = guests(&domain, 1).remove(0);
    domain.vmm_joined(VmmId::first(1), PAGES).unwrap();
    let config = ScannerConfig { zero_pages_only: true, ..ScannerConfig::new(0) };
    let mut scanner = Scanner::new(&guest, config);
    for _ in 0..5 {
        scan_pass(&mut scanner, |request| panic!("{request:?}"));
    }
    assert_eq!(guest.counts(), (900, 0, 100));
    assert_eq!(scanner.status().hashed_total, 0);
    let request = MergeRequest::Hashes(vec![(Gfn(0), 1)]);
    assert_eq!(domain.handle(VmmId::first(1), request), Err(ProtocolError::NothingShared));
    domain.vmm_gone(VmmId::first(1));
    assert_eq!(domain.figures().allocated_bytes, 0);
}

#[test]
fn broken_shares_are_reported_and_unused_frames_are_punched() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 3);
    let mut world = World::new(&domain, &guests);
    (0..3).for_each(|_| world.pass());
    for guest in &guests {
        (0..100).for_each(|gfn| guest.write(gfn, content(50_000)));
    }
    guests[0].write(100, content(60_000));
    world.pass();
    world.sweep();
    assert_eq!(domain.figures().frames_published, 500, "frame 100 has two holders left");
    assert_eq!(domain.allocated_bytes().unwrap(), 500 * PAGE);
    for guest in &guests {
        assert!((101..300).all(|gfn| guest.read(gfn) == page(0, gfn)));
    }
}

#[test]
fn a_frame_that_only_a_patch_needs_is_kept_until_the_patch_is_gone() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 3);
    let mut world = World::new(&domain, &guests);
    (0..3).for_each(|_| world.pass());
    // A guest that never had its content, too, may have a patch of a frame.
    guests[2].write(7, content(40_000));
    let frames: Vec<Frame> =
        guests[0].frames().into_iter().filter(|&frame| guests[0].frame_bytes(frame) == page(0, 7)).collect();
    guests[2].set_patched(frames[0], true);
    guests[..2].iter().for_each(|guest| guest.write(7, content(50_000)));
    world.pass();
    world.sweep();
    assert_eq!(domain.figures().retired_total, 0);
    assert_eq!(guests[2].frame_bytes(frames[0]), page(0, 7));
    guests[2].set_patched(frames[0], false);
    world.pass();
    world.sweep();
    assert_eq!(domain.figures().retired_total, 1);
}

#[test]
fn a_page_that_keeps_breaking_is_left_alone_for_longer_and_longer() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 2);
    let mut world = World::new(&domain, &guests);
    let mut merges = 0;
    for _ in 0..60 {
        world.pass();
        if guests[0].frames().contains(&Frame(7)) {
            merges += 1;
            guests[0].write(7, page(0, 7));
        }
    }
    assert!((3..=8).contains(&merges), "{merges} merges in 60 passes");
    assert_eq!(world.scanners[0].1.status().unmerged.broken, 1);
}

#[test]
fn everything_is_given_back_when_the_guests_are_gone() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 3);
    let mut world = World::new(&domain, &guests);
    (0..3).for_each(|_| world.pass());
    for id in 0..3 {
        let answers = domain.vmm_gone(VmmId::first(id));
        world.deliver(answers);
    }
    world.sweep();
    let figures = domain.figures();
    assert_eq!((figures.frames_in_use, figures.allocated_bytes, figures.retired_total), (0, 0, 600));
}

#[test]
fn publishing_stops_at_the_budget() {
    let domain = Domain::new(PAGES, 1).unwrap();
    domain.set_store_budget_bytes(150 * PAGE);
    let guests = guests(&domain, 3);
    let mut world = World::new(&domain, &guests);
    (0..20).for_each(|_| world.pass());
    assert_eq!(domain.allocated_bytes().unwrap(), 150 * PAGE);
    assert!(domain.figures().refused_total > 0);
    for (guest, (_, scanner)) in guests.iter().zip(&world.scanners) {
        let unmerged = scanner.status().unmerged;
        assert_eq!(unmerged.unique + unmerged.store_budget, guest.counts().0 as u64);
        assert!(unmerged.store_budget >= 400 && unmerged.unique >= 300, "{unmerged:?}");
    }
    domain.set_store_budget_bytes(u64::MAX);
    (0..5).for_each(|_| world.pass());
    assert_eq!(domain.figures().frames_in_use, 600, "and goes on when there is more");
    assert_unchanged(&guests);
}

#[test]
fn pages_beyond_the_vma_budget_are_counted_as_such() {
    let domain = Domain::new(PAGES, 1).unwrap();
    let guests = guests(&domain, 2);
    guests[1].set_alias_budget(0);
    let mut world = World::new(&domain, &guests);
    (0..6).for_each(|_| world.pass());
    let status = world.scanners[1].1.status();
    assert_eq!((status.unmerged.vma_budget, status.unmerged.unique), (300, 300));
    assert!((1..=6).contains(&status.vma_refused_runs), "{}: 300 neighbours are few runs", status.vma_refused_runs);
    guests[1].set_alias_budget(u32::MAX);
    (0..5).for_each(|_| world.pass());
    assert_eq!(guests[1].counts(), (300, 600, 100), "and merged when there is room");
}

#[test]
fn volatile_pages_are_never_sent() {
    let domain = Domain::new(8, 1).unwrap();
    let guests: Vec<FakeGuest> = (0..2).map(|_| FakeGuest::new(&domain, (0..8).map(content))).collect();
    let mut world = World::new(&domain, &guests);
    for round in 1..20 {
        world.pass();
        for guest in &guests {
            guest.write(3, content(round * 1000));
        }
    }
    for (guest, (_, scanner)) in guests.iter().zip(&world.scanners) {
        assert_eq!(guest.counts(), (1, 7, 0));
        assert_eq!(scanner.status().unmerged.volatile, 1);
    }
}

#[test]
fn pages_are_dealt_with_once_there_was_time_for_an_answer_and_volatile_ones_at_once() {
    let domain = Domain::new(8, 1).unwrap();
    let guests = [FakeGuest::new(&domain, (0..8).map(content))];
    let mut world = World::new(&domain, &guests);
    let mut seen_after = |pass: u64| {
        guests[0].write(3, content(100 + pass));
        world.pass();
        guests[0].seen()
    };
    // Seen for the first time; told; answered by now.
    assert_eq!(seen_after(1), BTreeSet::new());
    assert_eq!(seen_after(2), BTreeSet::from([Gfn(3)]));
    assert_eq!(seen_after(3), (0..8).map(Gfn).collect());
}

#[test]
fn a_scanner_in_a_hurry_tells_what_it_sees_for_the_first_time() {
    let domain = Domain::new(8, 1).unwrap();
    let guest = FakeGuest::new(&domain, (0..8).map(content));
    let told = [false, true].map(|in_a_hurry| {
        let mut scanner = Scanner::new(&guest, ScannerConfig::new(1));
        if in_a_hurry {
            scanner.hurry();
        }
        let mut hashes = 0;
        scan_pass(&mut scanner, |request| {
            hashes += usize::from(matches!(&request, MergeRequest::Hashes(all) if all.len() == 8))
        });
        hashes
    });
    assert_eq!(told, [0, 1]);
}

#[test]
fn a_guest_too_large_or_twice_the_same_is_refused() {
    let domain = Domain::new(10, 1).unwrap();
    assert!(matches!(domain.vmm_joined(VmmId::first(1), 11), Err(Error::GuestTooLarge { pages: 11, home_frames: 10 })));
    domain.vmm_joined(VmmId::first(1), 10).unwrap();
    assert!(matches!(domain.vmm_joined(VmmId::first(1), 10), Err(Error::Duplicate(VmmId { guest: 1, life: 0 }))));
}

#[test]
fn a_running_scanner_answers_retirement_in_its_pauses_and_stops_when_told() {
    let domain = Domain::new(8, 1).unwrap();
    let guest = FakeGuest::new(&domain, (0..8).map(|_| [0; PAGE as usize]));
    let scanner = Scanner::new(&guest, ScannerConfig::new(1));
    let (handle, stop) = (scanner.handle(), AtomicBool::new(false));
    let (sender, requests) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| scanner.run(&stop, |request| sender.send(request).unwrap()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while handle.status().passes_total < 5 {
            assert!(Instant::now() < deadline, "five passes over eight pages within ten seconds");
            std::thread::yield_now();
        }
        handle.post(MergeAnswer::Retire(vec![Frame(3), Frame(100)]));
        let posted = Instant::now();
        let answer = requests.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(answer, MergeRequest::Retired(vec![(Frame(3), false), (Frame(100), false)]));
        assert!(posted.elapsed() < Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        handle.wake();
    });
    assert_eq!(guest.counts(), (0, 0, 8));
    assert!(guest.read(0) == [0; PAGE as usize]);
}
