//! The transitions on the real kernel: threads that check every byte they read use guest memory, while others
//! share, evict, inflate and drop it under them. Needs the right to serve faults (root); says so where there
//! is none.

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pager::{Frame, Gfn, GuestMemory, PAGE_BYTES, Run, Sharing, State};
use support::{AMPLE, PAGES, content, guest, noise, read, wait_for, wait_until, write};

/// Shares `count` pages with as many frames; how many do.
fn share(memory: &GuestMemory, gfn: u32, frame: u32, count: u32) -> u32 {
    let pairs: Vec<_> = (0..count).map(|i| (Gfn(gfn + i), Frame(frame + i))).collect();
    let mut shared = 0;
    memory.pages().share(&pairs, &mut |_, outcome| shared += u32::from(outcome == Sharing::Shared)).unwrap();
    shared
}

#[test]
fn fresh_memory_reads_as_zero_and_keeps_what_is_written() {
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    assert_eq!(read(&memory, 7), [0; PAGE_BYTES]);
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    assert!((0..PAGES).all(|page| read(&memory, page) == content(page, 1)));
    wait_for(&memory, |pages| pages.private == u64::from(PAGES));
}

#[test]
fn only_a_measurement_moves_the_account_and_a_report_just_reads_it() {
    const MEASURED_BYTES: u64 = 1 << 20;
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    assert_eq!([memory.report(), memory.report()].map(|status| status.overhead_bytes), [0, 0]);
    memory.measure(MEASURED_BYTES).unwrap();
    let [first, second] =
        [memory.report(), memory.report()].map(|status| (status.overhead_bytes, status.resident_bytes));
    assert_eq!(first, second);
    assert!(first.0 >= MEASURED_BYTES && first.1 >= MEASURED_BYTES, "{first:?}");
}

#[test]
fn a_guest_larger_than_its_allocation_keeps_every_byte_and_stays_within_it() {
    let Some((_store, memory, _threads)) = guest(u64::from(PAGES) * 3 / 4) else { return };
    for round in 1..4 {
        for page in 0..PAGES {
            write(&memory, page, &content(page, round));
            if page % 64 == 0 {
                let status = memory.status(0).unwrap();
                assert!(status.resident_bytes <= status.allocation_bytes, "{status:?}");
            }
        }
        assert!((0..PAGES).all(|page| read(&memory, page) == content(page, round)));
    }
    let status = memory.status(0).unwrap();
    assert!(status.pages.compressed > 0 && status.evictions_total > 0 && status.promotions_total > 0);
}

#[test]
fn equal_pages_share_a_frame_at_home_and_elsewhere_until_they_are_written() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    (0..64).rev().for_each(|page| write(&memory, page, &content(page % 32, 9)));
    (0..32).for_each(|frame| store.publish(frame, &content(frame, 9)));
    wait_for(&memory, |pages| pages.private == 64);
    assert_eq!((share(&memory, 0, 0, 32), share(&memory, 32, 0, 32)), (32, 32));
    wait_for(&memory, |pages| pages.shared == 64);
    assert_eq!(memory.pages().vmas(), 2);
    assert!((0..64).all(|page| read(&memory, page) == content(page % 32, 9)));
    write(&memory, 40, &content(40, 10));
    assert_eq!(read(&memory, 8), content(8, 9));
    assert_eq!(read(&memory, 40), content(40, 10));
    wait_for(&memory, |pages| (pages.shared, pages.private) == (63, 1));
    assert_eq!(memory.pages().state(Gfn(40)), State::Private);
}

/// Areas of the address space that RAM consists of; other tests have theirs in the same process.
fn areas(memory: &GuestMemory) -> usize {
    let base = memory.base().as_ptr().addr();
    let ram = base..base + PAGES as usize * PAGE_BYTES;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let start = |line: &str| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    maps.lines().filter(|line| ram.contains(&start(line))).count()
}

#[test]
fn aliases_that_share_nothing_any_more_give_their_areas_back() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    // Every other page is an alias of a frame elsewhere: 127 areas more.
    (0..128).rev().for_each(|page| write(&memory, page, &content(page, 3)));
    (0..128).for_each(|page| store.publish(1000 + page, &content(page, 3)));
    wait_for(&memory, |pages| pages.private == 128);
    let before = areas(&memory);
    let pairs: Vec<_> = (0..128).step_by(2).map(|page| (Gfn(page), Frame(1000 + page))).collect();
    memory.pages().share(&pairs, &mut |_, outcome| assert_eq!(outcome, Sharing::Shared)).unwrap();
    assert_eq!(memory.pages().vmas(), 127, "the first begins where RAM does");
    assert!(areas(&memory) >= before + 100);
    assert_eq!(memory.pages().reclaim_areas(1000).unwrap(), 0, "what is shared stays where it is");
    (0..128).step_by(2).for_each(|page| write(&memory, page, &content(page, 4)));
    wait_for(&memory, |pages| pages.private == 128);
    assert_eq!(memory.pages().reclaim_areas(1000).unwrap(), 127);
    assert_eq!(memory.pages().vmas(), 0);
    assert!(areas(&memory) <= before + 8, "{} areas, {before} before", areas(&memory));
    assert!((0..128).all(|page| read(&memory, page) == content(page, if page % 2 == 0 { 4 } else { 3 })));
    (0..128).for_each(|page| write(&memory, page, &content(page, 5)));
    assert!((0..128).all(|page| read(&memory, page) == content(page, 5)));
}

/// With credits to spare the kernel copies a shared page on write; without, the write asks first.
#[test]
fn a_first_write_asks_for_a_credit_only_when_they_are_short() {
    for (allocation, asks) in [(AMPLE, 0), (u64::from(PAGES) / 10, 16)] {
        let Some((store, memory, _threads)) = guest(allocation) else { return };
        (0..16).for_each(|page| write(&memory, page, &content(page, 9)));
        (0..16).for_each(|frame| store.publish(frame, &content(frame, 9)));
        wait_for(&memory, |pages| pages.private == 16);
        assert_eq!(share(&memory, 0, 0, 16), 16);
        let before = memory.status(0).unwrap().faults_write_protect_total;
        (0..16).for_each(|page| write(&memory, page, &content(page, 10)));
        let status = wait_for(&memory, |pages| (pages.shared, pages.private) == (0, 16));
        assert_eq!(status.faults_write_protect_total - before, asks);
        assert_eq!(status.breaks_total, 16);
        assert!((0..16).all(|page| read(&memory, page) == content(page, 10)));
        assert!((0..16).all(|frame| !memory.pages().references().holds(Frame(frame))));
    }
}

#[test]
fn a_page_that_differs_by_one_byte_or_is_unpublished_is_not_shared() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    let mut other = content(3, 1);
    other[4095] ^= 1;
    write(&memory, 3, &content(3, 1));
    write(&memory, 4, &content(4, 1));
    store.publish(3, &other);
    wait_for(&memory, |pages| pages.private == 2);
    let mut outcomes = Vec::new();
    let pairs = [(Gfn(3), Frame(3)), (Gfn(4), Frame(4))];
    memory.pages().share(&pairs, &mut |gfn, outcome| outcomes.push((gfn, outcome))).unwrap();
    assert_eq!(outcomes, [(Gfn(3), Sharing::Different), (Gfn(4), Sharing::Different)]);
    assert_eq!((read(&memory, 3), read(&memory, 4)), (content(3, 1), content(4, 1)));
    assert!(!memory.pages().references().holds(Frame(3)));
}

/// Pages are written downwards elsewhere in these tests, so that none comes along.
#[test]
fn a_sweep_that_writes_finds_pages_of_its_own() {
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    (0..256).for_each(|page| write(&memory, page, &content(page, 1)));
    let is_private = |page| memory.pages().state(Gfn(page)) == State::Private;
    let status = wait_until(&memory, |_| (0..256).all(is_private));
    assert!(status.faults_missing_total < 16, "{} faults", status.faults_missing_total);
    assert!((0..256).all(|page| read(&memory, page) == content(page, 1)));
    assert!((256..512).all(|page| read(&memory, page) == [0; PAGE_BYTES]), "what came along is fresh memory");
    let beyond = memory.status(0).unwrap().pages.private - 256;
    assert_eq!(u64::from(memory.pages().drop_zero(Run { first: Gfn(0), count: PAGES }).unwrap()), beyond);
    assert_eq!(memory.pages().counts().private, 256);
}

#[test]
fn ballooned_and_zeroed_pages_cost_nothing_and_read_as_zero() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    (0..96).rev().for_each(|page| write(&memory, page, &content(page, 1)));
    store.publish(0, &content(0, 1));
    wait_for(&memory, |pages| pages.private == 96);
    assert_eq!(share(&memory, 0, 0, 1), 1);
    memory.pages().inflate(Run { first: Gfn(0), count: 32 }).unwrap();
    (32..64).for_each(|page| write(&memory, page, &[0; PAGE_BYTES]));
    wait_for(&memory, |pages| pages.private == 64);
    assert_eq!(memory.pages().drop_zero(Run { first: Gfn(0), count: PAGES }).unwrap(), 32);
    let status = memory.status(0).unwrap();
    assert_eq!((status.pages.private, status.ballooned_touched, status.zero_touched), (32, 32, 32));
    memory.pages().deflate(Run { first: Gfn(0), count: 16 });
    assert!((0..64).all(|page| read(&memory, page) == [0; PAGE_BYTES]));
    (0..64).for_each(|page| write(&memory, page, &content(page, 5)));
    assert!((0..64).all(|page| read(&memory, page) == content(page, 5)));
    assert!(!memory.pages().references().holds(Frame(0)));
}

#[test]
fn hinted_pages_go_unless_somebody_wrote_to_them_since_the_watch_began() {
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    (0..64).rev().for_each(|page| write(&memory, page, &content(page, 1)));
    wait_for(&memory, |pages| pages.private == 64);
    let pages = memory.pages();
    let all = Run { first: Gfn(0), count: PAGES };
    pages.watch(all).unwrap();
    (0..8).for_each(|page| assert_eq!(read(&memory, page), content(page, 1)));
    (8..16).for_each(|page| write(&memory, page, &content(page, 2)));

    assert_eq!(pages.drop_hinted(Run { first: Gfn(0), count: 32 }, 0x0303_0303).unwrap(), 32 - 8);

    (0..8).for_each(|page| assert_eq!(read(&memory, page), [3; PAGE_BYTES]));
    (8..16).for_each(|page| assert_eq!(read(&memory, page), content(page, 2)));
    (16..32).for_each(|page| assert_eq!(read(&memory, page), [3; PAGE_BYTES]));
    pages.unwatch(all).unwrap();
    assert_eq!(pages.drop_hinted(all, 0).unwrap(), 0);
    (32..64).for_each(|page| assert_eq!(read(&memory, page), content(page, 1)));
    (0..64).for_each(|page| write(&memory, page, &content(page, 3)));
    (0..64).for_each(|page| assert_eq!(read(&memory, page), content(page, 3)));
}

#[test]
fn reported_pages_come_back_with_the_pattern_the_guest_fills_them_with() {
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    (0..32).rev().for_each(|page| write(&memory, page, &content(page, 1)));
    memory.pages().report_free(Run { first: Gfn(0), count: 32 }, 0xaaaa_aaaa).unwrap();
    let status = memory.status(0).unwrap();
    assert_eq!((status.pages.private, status.pages.compressed, status.pool_bytes), (0, 32, 0));
    (0..16).for_each(|page| assert_eq!(read(&memory, page), [0xaa; PAGE_BYTES]));
    (16..32).for_each(|page| write(&memory, page, &content(page, 2)));
    (16..32).for_each(|page| assert_eq!(read(&memory, page), content(page, 2)));
}

/// Guest threads write and check versions; meanwhile frames are published from what they write, merged at
/// home and as aliases, evicted for a short allocation, dropped, closed. No byte may be wrong.
#[test]
fn a_sample_shows_what_is_used_and_costs_no_byte() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    let plain = |page: u32| [page as u8 + 1; PAGE_BYTES];
    (0..16).for_each(|page| write(&memory, page, &plain(page)));
    (16..32).for_each(|page| write(&memory, page, &noise(page, 1)));
    (32..48).for_each(|page| write(&memory, page, &content(page, 5)));
    (32..48).for_each(|page| store.publish(page, &content(page, 5)));
    wait_for(&memory, |pages| pages.private == 48);
    assert_eq!(share(&memory, 32, 32, 16), 16);
    let mut buffer = [0; PAGE_BYTES];
    let probes: Vec<_> = (0..64).map(|page| memory.pages().probe(Gfn(page), &mut buffer).unwrap()).collect();
    let touched = |page: u32| memory.pages().touched_since(Gfn(page), probes[page as usize]).unwrap();
    assert!((0..64).all(|page| !touched(page)), "nobody has used anything yet");

    // Of each kind, the even ones are used: reads show but for pages that do not compress.
    for page in (0..64).step_by(2) {
        let expected = match page {
            0..16 => plain(page),
            16..32 => noise(page, 1),
            32..48 => content(page, 5),
            _ => [0; PAGE_BYTES],
        };
        assert_eq!(read(&memory, page), expected);
        if (16..32).contains(&page) {
            write(&memory, page, &noise(page, 2));
        }
    }
    assert!((0..48).all(|page| touched(page) == page.is_multiple_of(2)));
    for page in (1..48).step_by(2) {
        let expected = match page {
            0..16 => plain(page),
            16..32 => noise(page, 1),
            _ => content(page, 5),
        };
        assert_eq!(read(&memory, page), expected);
    }
}

#[test]
fn the_active_part_of_a_guest_is_estimated_within_ten_points() {
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    wait_for(&memory, |pages| pages.private == u64::from(PAGES));
    memory.set_sample_period_ms(1000);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut ratios = Vec::new();
    while ratios.len() < 5 {
        assert!(Instant::now() < deadline, "sampling comes no further");
        (0..PAGES * 3 / 10).for_each(|page| assert_eq!(read(&memory, page), content(page, 1)));
        let sampling = memory.status(0).unwrap().sampling;
        if sampling.periods_total as usize > ratios.len() {
            ratios.push(f64::from(sampling.last.touched) / f64::from(sampling.last.pages));
        }
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!((0.2..=0.4).contains(&mean), "{ratios:?}");
}

#[test]
fn no_byte_is_lost_while_everything_moves() {
    let Some((store, memory, _threads)) = guest(u64::from(PAGES) * 3 / 4) else { return };
    memory.set_sample_period_ms(200);
    let stop = Arc::new(AtomicBool::new(false));
    let checked = Arc::new(AtomicU64::new(0));
    let guests: Vec<_> = (0..2u32)
        .map(|guest| {
            let (memory, stop, checked) = (memory.clone(), stop.clone(), checked.clone());
            thread::spawn(move || {
                let mine = (guest * PAGES / 2)..((guest + 1) * PAGES / 2);
                let mut versions = vec![0u64; PAGES as usize / 2];
                let mut random = u64::from(guest) + 1;
                while !stop.load(Ordering::Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let page = mine.start + (random % u64::from(PAGES / 2)) as u32;
                    let version = &mut versions[(page - mine.start) as usize];
                    // Few contents, so that many pages are equal.
                    let expected = |version: u64| {
                        if version.is_multiple_of(16) { [0; PAGE_BYTES] } else { content(page % 256, version % 4) }
                    };
                    assert_eq!(read(&memory, page), expected(*version), "page {page} version {version}");
                    if random >> 40 & 3 == 0 {
                        *version += 1;
                        write(&memory, page, &expected(*version));
                    }
                    checked.fetch_add(1, Ordering::Relaxed);
                }
                for page in mine.clone() {
                    let version = versions[(page - mine.start) as usize];
                    let expected =
                        if version.is_multiple_of(16) { [0; PAGE_BYTES] } else { content(page % 256, version % 4) };
                    assert_eq!(read(&memory, page), expected, "at the end, page {page}");
                }
            })
        })
        .collect();
    // Frame 256 v + p holds content(p, v).
    (0..4).for_each(|version| {
        (0..256).for_each(|page| store.publish(256 * version + page, &content(page, u64::from(version))))
    });
    let (begun, mut shared, mut won_back) = (Instant::now(), 0, 0);
    loop {
        for first in (0..PAGES).step_by(256) {
            for version in 0..4 {
                shared += share(&memory, first, 256 * version, 256);
            }
            memory.pages().drop_zero(Run { first: Gfn(first), count: 256 }).unwrap();
            won_back += memory.pages().reclaim_areas(64).unwrap();
            let watched = Run { first: Gfn(first), count: 256 };
            memory.pages().watch(watched).unwrap();
            memory.pages().unwatch(watched).unwrap();
        }
        let status = memory.status(0).unwrap();
        assert!(status.resident_bytes <= status.allocation_bytes);
        let checked = checked.load(Ordering::Relaxed);
        let enough = shared > 1000 && status.breaks_total > 1000 && won_back > 10 && checked > 10_000;
        if enough && begun.elapsed() > Duration::from_secs(3) {
            break;
        }
        let told = || format!("{shared} shared, {won_back} areas won back, {checked} checked, {status:?}");
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", told());
    }
    stop.store(true, Ordering::Relaxed);
    guests.into_iter().for_each(|guest| guest.join().unwrap());
}
