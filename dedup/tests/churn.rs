//! A thousand guests come and go, some in order, most by dying in the middle of what they were doing.
//! Afterwards there is not a frame, a descriptor or a megabyte more than before.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use control::merge::MergeRequest;
use dedup::{Domain, Scanner, ScannerConfig, VmmId};
use support::{FakeGuest, PAGE, content, scan_pass};
use wire::PageBytes;

const STARTS: u32 = 1000;
/// Guests at a time.
const LIVING: usize = 6;
const PAGES: u32 = 256;
/// Messages between two deaths.
const STEPS: usize = 12;
/// What memory may grow by while nine of ten guests come and go: the allocator's holes. It is the memory of
/// four guests.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// Half of a guest's pages are every guest's, a quarter only in guests of the same parity and shifted, the
/// rest its own.
fn page(guest: u32, gfn: u32) -> PageBytes {
    let (parity, shift) = (u64::from(guest % 2), guest % 7);
    match gfn {
        0..128 => content(u64::from(gfn)),
        128..192 => content(1000 + 1000 * parity + u64::from((gfn + shift) % 64)),
        _ => content(1_000_000 + u64::from(guest) * 1000 + u64::from(gfn)),
    }
}

struct Living<'a> {
    id: VmmId,
    number: u32,
    scanner: Scanner<&'a FakeGuest>,
}

/// Everything in flight: what VMMs said, in the order they said it.
type Requests = VecDeque<(VmmId, MergeRequest)>;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB"));
    kib.unwrap().trim().parse::<u64>().unwrap() << 10
}

struct Churn<'a> {
    domain: &'a Domain,
    living: Vec<Living<'a>>,
    requests: Requests,
    now: Instant,
}

impl<'a> Churn<'a> {
    fn join(&mut self, guest: &'a FakeGuest, number: u32) {
        let id = VmmId::first(number);
        self.domain.vmm_joined(id, PAGES).unwrap();
        let scanner = Scanner::new(guest, ScannerConfig::new(self.domain.hash_secret()));
        self.living.push(Living { id, number, scanner });
    }

    /// The VMM dies: what it had said and was not read yet is lost with it.
    fn die(&mut self, at: usize) {
        let dead = self.living.swap_remove(at);
        self.requests.retain(|(from, _)| *from != dead.id);
        let answers = self.domain.vmm_gone(dead.id);
        self.deliver(answers);
    }

    fn deliver(&mut self, answers: Vec<(VmmId, control::MergeAnswer)>) {
        for (to, answer) in answers {
            if let Some(living) = self.living.iter_mut().find(|living| living.id == to) {
                living.scanner.on_answer(answer, |request| self.requests.push_back((to, request)));
            }
        }
    }

    /// Everybody scans, a few messages are read, time goes by.
    fn step(&mut self, messages: usize) {
        for living in &mut self.living {
            let id = living.id;
            scan_pass(&mut living.scanner, |request| self.requests.push_back((id, request)));
        }
        for _ in 0..messages {
            let Some((from, request)) = self.requests.pop_front() else { break };
            let answers = self.domain.handle(from, request).unwrap();
            self.deliver(answers);
        }
        self.now += Duration::from_millis(700);
        let answers = self.domain.sweep(self.now);
        self.deliver(answers);
    }

    fn check(&self) {
        let figures = self.domain.figures();
        assert!(figures.allocated_bytes <= figures.frames_in_use * PAGE);
        assert!(figures.holds <= u64::from(PAGES) * LIVING as u64);
    }
}

#[test]
fn a_thousand_guest_starts_leave_nothing_behind() {
    let descriptors_before = descriptors();
    let domain = Domain::new(PAGES, 7).unwrap();
    let mut resident_at_a_tenth = 0;
    let (mut shared, mut retired) = (0, 0);
    // Guests live as long as their cohort; most VMMs die before.
    for cohort in 0..STARTS / 10 {
        let first = cohort * 10;
        let guests: Vec<_> = (first..first + 10)
            .map(|number| FakeGuest::new(&domain, (0..PAGES).map(|gfn| page(number, gfn))))
            .collect();
        let mut churn = Churn { domain: &domain, living: Vec::new(), requests: VecDeque::new(), now: Instant::now() };
        churn.now += Duration::from_secs(u64::from(cohort) * 60);
        for (guest, number) in guests.iter().zip(first..) {
            if churn.living.len() == LIVING {
                churn.die(number as usize * 5 % LIVING);
            }
            churn.join(guest, number);
            churn.step(STEPS);
            churn.check();
        }
        (0..6).for_each(|_| churn.step(usize::MAX));
        for living in &churn.living {
            let guest = &guests[(living.number - first) as usize];
            assert!((0..PAGES).all(|gfn| guest.read(gfn) == page(living.number, gfn)), "guest {}", living.number);
        }
        shared += guests.iter().map(|guest| guest.counts().1).sum::<usize>();
        while let Some(last) = churn.living.len().checked_sub(1) {
            churn.die(last);
        }
        // Nobody is left to be asked: the grace, and all is released.
        (0..6).for_each(|_| churn.step(0));
        let figures = domain.figures();
        assert_eq!((figures.frames_in_use, figures.allocated_bytes, figures.holds), (0, 0, 0), "cohort {cohort}");
        retired = figures.retired_total;
        drop(guests);
        if cohort == STARTS / 100 {
            resident_at_a_tenth = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(resident_at_a_tenth);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than after a tenth of the starts");
    assert!(shared > 100_000 && retired > 10_000, "{shared} pages shared, {retired} frames released");
    drop(domain);
    assert_eq!(descriptors(), descriptors_before);
}
