//! What VMMs are told about their balloons besides how large they ought to be.
//!
//! ```text
//!   what the guest says   once a second while the host is not short; else five times, as memory moves by it
//!   free page hinting     while the guest evicts or the host is short: every 5 s, or less often
//!   free page reporting   seldom while the host has plenty, often when it is short (`policy::reporting`)
//! ```
//!
//! A round of hinting asks a guest which pages it does not need: those go at no cost to anybody, before more
//! is evicted. The more often that won next to nothing, the longer it is to the next. A round that the guest
//! has not ended in 1 s is ended for it.
//!
//! While the host has plenty, reported pages are taken in bursts, the more seldom the more of them come back
//! soon. What was left lying is found by hinting: every guest is asked when the host becomes short.
//!
//! A round write-protects the guest's memory, all of which KVM then maps anew as the guest comes to it. So a
//! guest that has enough is not asked, and one that uses all it has seldom.

use std::time::{Duration, Instant};

use control::status::TakenStatus;
use dedup::VmmId;
use policy::reporting::Reporting;
use policy::state::HostState;

use crate::config::FreePageReporting;
use crate::control::maintenance::{Shortage, Turns};
use crate::fleet::orders::BalloonOrders;

/// Statistics while memory is plentiful, and while it is not, ms.
const STATISTICS_MS: [u64; 2] = [1_000, 200];
/// Between the beginnings of two rounds; twice as long after each that won less than [`ROUND_GAIN_DIVISOR`]
/// says, up to the longest, in one shortage.
const ROUND_INTERVAL: Duration = Duration::from_secs(5);
const ROUND_INTERVAL_MAX: Duration = Duration::from_secs(80);
/// What makes a round worth it: this part of all pages. An estimate; mapping a page anew costs a fraction of
/// what one costs that comes back from the pool.
const ROUND_GAIN_DIVISOR: u64 = 256;
/// Longest round.
const ROUND_LIMIT: Duration = Duration::from_secs(1);

/// How long after reported pages were taken it is looked at how many came back: those of a loop do so within
/// its length.
const REPORTING_WINDOW: Duration = Duration::from_secs(3);

/// A guest that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its VMM.
    pub vmm: VmmId,
    /// Pages of RAM.
    pub pages: u64,
    /// Pages it has evicted, in all.
    pub evictions_total: u64,
    /// Pages that went because it hinted at them.
    pub hint_dropped_total: u64,
    /// Pages it reported free that were taken, and those that were back soon.
    pub reported: TakenStatus,
    /// Memory is being reclaimed from it by hand.
    pub reclaimed: bool,
}

/// One VMM's balloon: what was asked of it, and what came of that.
#[derive(Clone, Copy, Debug)]
struct Balloon {
    vmm: VmmId,
    hints: Hints,
    reports: Reports,
}

/// Rounds in which the guest names free pages.
#[derive(Clone, Copy, Debug)]
struct Hints {
    /// Pages evicted and pages dropped, in all, when the last round began.
    evictions_total: u64,
    dropped_total: u64,
    interval: Duration,
    began: Option<Instant>,
    is_open: bool,
}

/// Pages that the guest reports free by itself.
#[derive(Clone, Copy, Debug)]
struct Reports {
    reporting: Reporting,
    /// What had been taken when reporting was looked at last, and when something was taken for the first time
    /// since.
    taken: TakenStatus,
    taken_since: Option<Instant>,
}

/// See the module's description.
#[derive(Debug)]
pub struct Balloons {
    taking: FreePageReporting,
    rounds: Turns,
    shortage: Shortage,
    balloons: Vec<Option<Balloon>>,
}

impl Balloons {
    /// Nobody was asked anything yet, on a machine with so many CPUs.
    pub fn new(taking: FreePageReporting, cpus: usize) -> Balloons {
        Balloons { taking, rounds: Turns::new(cpus), shortage: Shortage::default(), balloons: Vec::new() }
    }

    /// What is asked of whom now. `guests` always has the same guests; none for one that does not run.
    pub fn due(&mut self, state: HostState, now: Instant, guests: &[Option<Running>]) -> Vec<Option<BalloonOrders>> {
        self.balloons.resize(guests.len(), None);
        if self.shortage.begins(state > HostState::High, now) {
            self.balloons.iter_mut().flatten().for_each(|balloon| balloon.hints.interval = ROUND_INTERVAL);
        }
        let taking = self.taking;
        let ask = |(guest, balloon): (&Option<Running>, &mut Option<Balloon>)| {
            let guest = guest.as_ref()?;
            let balloon = match balloon {
                Some(balloon) if balloon.vmm == guest.vmm => balloon,
                // A new life, or the first.
                _ => balloon.insert(Balloon::new(guest)),
            };
            let (report_delay_ms, report_pages_max) = balloon.reports.pace(guest, taking, state, now);
            Some(BalloonOrders {
                statistics_interval_ms: STATISTICS_MS[usize::from(state > HostState::High)],
                report_delay_ms,
                report_pages_max,
                round_ends: balloon.hints.end(now),
                round_begins: false,
            })
        };
        let mut due: Vec<_> = guests.iter().zip(&mut self.balloons).map(ask).collect();
        self.begin_rounds(state, now, guests, &mut due);
        due
    }

    /// Begins the rounds that are due, of guests that were asked the longest ago first.
    fn begin_rounds(
        &mut self,
        state: HostState,
        now: Instant,
        guests: &[Option<Running>],
        due: &mut [Option<BalloonOrders>],
    ) {
        let known = guests.iter().zip(&mut self.balloons).zip(due);
        let known = known.filter_map(|((guest, balloon), orders)| {
            Some((guest.as_ref()?, &mut balloon.as_mut()?.hints, orders.as_mut()?))
        });
        let mut wanted: Vec<_> = known.filter(|(guest, hints, _)| hints.are_wanted(guest, state, now)).collect();
        wanted.sort_by_key(|(_, hints, _)| hints.began);
        let turns = self.rounds.take(now, wanted.len());
        for (guest, hints, orders) in wanted.into_iter().take(turns) {
            hints.begin(guest, now);
            orders.round_begins = true;
        }
    }
}

impl Balloon {
    fn new(guest: &Running) -> Balloon {
        let &Running { vmm, evictions_total, hint_dropped_total, reported, .. } = guest;
        Balloon {
            vmm,
            hints: Hints {
                evictions_total,
                dropped_total: hint_dropped_total,
                interval: ROUND_INTERVAL,
                began: None,
                is_open: false,
            },
            reports: Reports { reporting: Reporting::default(), taken: reported, taken_since: None },
        }
    }
}

impl Reports {
    /// The delay, ms, and how many pages at a time.
    fn pace(&mut self, guest: &Running, taking: FreePageReporting, state: HostState, now: Instant) -> (u64, u32) {
        let grown = |of: fn(&TakenStatus) -> u64| of(&guest.reported).saturating_sub(of(&self.taken));
        let (taken, back_soon) = (grown(|taken| taken.pages_total), grown(|taken| taken.back_soon_total));
        match self.taken_since {
            None if taken > 0 => self.taken_since = Some(now),
            Some(since) if now - since >= REPORTING_WINDOW => {
                self.reporting.look(taken, back_soon);
                (self.taken, self.taken_since) = (guest.reported, None);
            }
            _ => {}
        }
        match taking {
            FreePageReporting::Adaptive => (self.reporting.delay_ms(state), self.reporting.pages_max()),
            FreePageReporting::Eager => (0, u32::MAX),
            FreePageReporting::Off => (u64::MAX, 0),
        }
    }
}

impl Hints {
    /// Ends the round under way if it has lasted long enough; whether it has.
    fn end(&mut self, now: Instant) -> bool {
        let is_over = self.is_open && self.began.is_some_and(|began| now - began >= ROUND_LIMIT);
        self.is_open &= !is_over;
        is_over
    }

    fn are_wanted(&self, guest: &Running, state: HostState, now: Instant) -> bool {
        let is_pressed = state > HostState::High || guest.reclaimed || guest.evictions_total > self.evictions_total;
        is_pressed && self.began.is_none_or(|began| now - began >= self.interval)
    }

    fn begin(&mut self, guest: &Running, now: Instant) {
        let won = guest.hint_dropped_total.saturating_sub(self.dropped_total);
        self.interval = match self.began {
            Some(_) if won < guest.pages / ROUND_GAIN_DIVISOR => (self.interval * 2).min(ROUND_INTERVAL_MAX),
            _ => ROUND_INTERVAL,
        };
        (self.dropped_total, self.evictions_total) = (guest.hint_dropped_total, guest.evictions_total);
        (self.began, self.is_open) = (Some(now), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Round;

    fn running(vmm: u32, evictions_total: u64) -> Option<Running> {
        let reported = TakenStatus::default();
        Some(Running {
            vmm: VmmId::first(vmm),
            pages: 65_536,
            evictions_total,
            hint_dropped_total: 0,
            reported,
            reclaimed: false,
        })
    }

    /// Rounds that end or begin, by guest.
    fn rounds(due: &[Option<BalloonOrders>]) -> Vec<(usize, Round)> {
        let of_guest = |(guest, orders): (usize, &Option<BalloonOrders>)| {
            let ends = orders.filter(|orders| orders.round_ends).map(|_| (guest, Round::End));
            let begins = orders.filter(|orders| orders.round_begins).map(|_| (guest, Round::Begin));
            ends.into_iter().chain(begins)
        };
        due.iter().enumerate().flat_map(of_guest).collect()
    }

    #[test]
    fn statistics_come_more_often_while_memory_is_short() {
        let (mut balloons, now) = (Balloons::new(FreePageReporting::Adaptive, 4), Instant::now());
        let mut at = |state, guests: [Option<Running>; 2]| {
            let due = balloons.due(state, now, &guests).into_iter();
            due.map(|orders| orders.map(|orders| orders.statistics_interval_ms)).collect::<Vec<_>>()
        };
        assert_eq!(at(HostState::High, [running(7, 0), running(8, 0)]), [Some(1000), Some(1000)]);
        assert_eq!(at(HostState::Soft, [running(7, 0), running(8, 0)]), [Some(200), Some(200)]);
        assert_eq!(at(HostState::Low, [None, running(9, 0)]), [None, Some(200)]);
    }

    #[test]
    fn a_guest_that_evicts_is_asked_for_free_pages_one_round_at_a_time() {
        let (mut balloons, start) = (Balloons::new(FreePageReporting::Adaptive, 4), Instant::now());
        let mut at = |ms: u64, evictions| {
            let now = start + Duration::from_millis(ms);
            rounds(&balloons.due(HostState::High, now, &[running(1, 0), running(2, evictions)]))
        };
        assert_eq!(at(0, 100), [], "how many there were before says nothing");
        assert_eq!(at(100, 101), [(1, Round::Begin)]);
        assert_eq!(at(200, 102), []);
        assert_eq!(at(1100, 103), [(1, Round::End)]);
        assert_eq!(at(1200, 104), []);
        assert_eq!(at(5100, 104), [(1, Round::Begin)]);
        assert_eq!(at(6100, 104), [(1, Round::End)]);
        assert_eq!(at(60_000, 104), [], "it evicts no more");
    }

    #[test]
    fn a_guest_that_has_nothing_to_spare_is_asked_more_and_more_seldom() {
        let (mut balloons, start) = (Balloons::new(FreePageReporting::Adaptive, 4), Instant::now());
        // It drops a MiB at second 400.
        let dropped = |second: u64| if second < 400 { 255 } else { 511 };
        let began = |second: &u64| {
            let hint_dropped_total = dropped(*second);
            let guest = Running { hint_dropped_total, ..running(1, *second).unwrap() };
            let rounds = rounds(&balloons.due(HostState::Soft, start + Duration::from_secs(*second), &[Some(guest)]));
            rounds.contains(&(0, Round::Begin))
        };
        let rounds: Vec<_> = (0..500).filter(began).collect();
        assert_eq!(rounds, [0, 5, 15, 35, 75, 155, 235, 315, 395, 475, 480, 490]);
    }

    #[test]
    fn a_host_that_becomes_short_asks_at_once_whatever_asking_has_won_before_unless_it_was_short_just_now() {
        let (mut balloons, start) = (Balloons::new(FreePageReporting::Adaptive, 4), Instant::now());
        let began = |second: &u64| {
            let is_short = (100..110).contains(second) || (125..140).contains(second);
            let state = if is_short { HostState::Soft } else { HostState::High };
            let rounds = rounds(&balloons.due(state, start + Duration::from_secs(*second), &[running(1, *second)]));
            rounds.contains(&(0, Round::Begin))
        };
        let rounds: Vec<_> = (0..200).filter(began).collect();
        assert_eq!(rounds, [1, 6, 16, 36, 76, 100, 110, 130, 170], "at 125 there were 15 s of plenty");
    }

    #[test]
    fn every_guest_is_asked_while_the_host_is_short() {
        let (mut balloons, now) = (Balloons::new(FreePageReporting::Adaptive, 4), Instant::now());
        let rounds = rounds(&balloons.due(HostState::Soft, now, &[running(1, 0), None, running(3, 0)]));
        assert_eq!(rounds, [(0, Round::Begin), (2, Round::Begin)]);
    }

    #[test]
    fn not_all_guests_are_asked_at_once() {
        let (mut balloons, start) = (Balloons::new(FreePageReporting::Adaptive, 4), Instant::now());
        let guests: Vec<_> = (0..6).map(|vmm| running(vmm, 0)).collect();
        let mut begun = |ms| {
            let rounds = rounds(&balloons.due(HostState::Soft, start + Duration::from_millis(ms), &guests));
            rounds.into_iter().filter(|&(_, round)| round == Round::Begin).map(|(guest, _)| guest).collect::<Vec<_>>()
        };
        assert_eq!([0, 100, 250, 500, 750].map(&mut begun), [vec![0, 1, 2, 3], vec![], vec![4], vec![5], vec![]]);
        assert_eq!([9_000, 9_250].map(&mut begun), [vec![0, 1, 2, 3], vec![4]], "those asked longest ago come first");
    }

    #[test]
    fn reports_are_taken_the_more_seldom_the_more_come_back_and_often_while_the_host_is_short() {
        let (mut balloons, start) = (Balloons::new(FreePageReporting::Adaptive, 4), Instant::now());
        let mut at = |second, state, pages_total, back_soon_total| {
            let reported = TakenStatus { pages_total, back_soon_total };
            let guest = Running { reported, ..running(1, 0).unwrap() };
            let due = balloons.due(state, start + Duration::from_secs(second), &[Some(guest)]);
            due[0].unwrap().report_delay_ms
        };
        assert_eq!(at(0, HostState::High, 0, 0), 2_000);
        assert_eq!(at(1, HostState::High, 1000, 0), 2_000, "nothing can have come back yet");
        assert_eq!(at(4, HostState::High, 1000, 900), 8_000);
        assert_eq!(at(5, HostState::High, 2000, 900), 8_000);
        assert_eq!(at(8, HostState::High, 2000, 1800), 32_000);
        assert_eq!(at(60, HostState::Hard, 3000, 1800), 320, "there is no time to wait");
        assert_eq!(at(63, HostState::Hard, 3000, 1800), 80, "these stay away");
    }

    #[test]
    fn reports_are_always_or_never_taken_where_that_was_asked_for() {
        for (taking, delay_ms, pages_max) in
            [(FreePageReporting::Eager, 0, u32::MAX), (FreePageReporting::Off, u64::MAX, 0)]
        {
            let due = Balloons::new(taking, 4).due(HostState::High, Instant::now(), &[running(1, 0)]);
            let BalloonOrders { report_delay_ms, report_pages_max, .. } = due[0].unwrap();
            assert_eq!((report_delay_ms, report_pages_max), (delay_ms, pages_max));
        }
    }
}
