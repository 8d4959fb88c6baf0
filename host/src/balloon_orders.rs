//! What VMMs are told about their balloons besides how large they ought to be.
//!
//! ```text
//!   the host is not short   the guest says how it is once a second; five times a second otherwise, as memory moves by what guests say
//!   the guest evicts,       every 5 s it is asked which pages it does not need (free page hinting): those go at no cost to anybody, before
//!   or the host is short    more is evicted. A round that the guest has not ended in 1 s is ended for it
//! ```
//!
//! A round of hinting write-protects the guest's memory, so a guest that has enough is not asked.

use std::time::{Duration, Instant};

use control::{Round, ToVmm};
use dedup::VmmId;
use policy::state::HostState;

/// Statistics while memory is plentiful, and while it is not, ms.
const STATISTICS_MS: [u64; 2] = [1_000, 200];
/// Between the beginnings of two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(5);
/// Longest round.
const ROUND_LIMIT: Duration = Duration::from_secs(1);

/// A guest that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its VMM.
    pub vmm: VmmId,
    /// Pages it has evicted, in all.
    pub evictions_total: u64,
}

/// What one VMM was told last, and what it said.
#[derive(Clone, Copy, Debug)]
struct Told {
    vmm: VmmId,
    statistics_ms: u64,
    evictions_total: u64,
    round_began: Option<Instant>,
    round_is_open: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct BalloonOrders(Vec<Option<Told>>);

impl BalloonOrders {
    /// What to tell whom now. `guests` always has the same guests; none for one that does not run.
    pub fn due(&mut self, state: HostState, now: Instant, guests: &[Option<Running>]) -> Vec<(usize, ToVmm)> {
        self.0.resize(guests.len(), None);
        let mut orders = Vec::new();
        for (number, (guest, told)) in guests.iter().zip(&mut self.0).enumerate() {
            let Some(guest) = guest else { continue };
            let told = match told {
                Some(told) if told.vmm == guest.vmm => told,
                // A new life, or the first.
                _ => told.insert(Told::nothing(guest)),
            };
            orders.extend(told.statistics(state).map(|order| (number, order)));
            orders.extend(told.round(guest, state, now).map(|round| (number, ToVmm::HintPages(round))));
        }
        orders
    }
}

impl Told {
    fn nothing(guest: &Running) -> Told {
        let &Running { vmm, evictions_total } = guest;
        Told { vmm, statistics_ms: 0, evictions_total, round_began: None, round_is_open: false }
    }

    fn statistics(&mut self, state: HostState) -> Option<ToVmm> {
        let interval_ms = STATISTICS_MS[usize::from(state > HostState::High)];
        (std::mem::replace(&mut self.statistics_ms, interval_ms) != interval_ms)
            .then_some(ToVmm::PollStatistics { interval_ms })
    }

    fn round(&mut self, guest: &Running, state: HostState, now: Instant) -> Option<Round> {
        let since = self.round_began.map(|began| now - began);
        if self.round_is_open && since >= Some(ROUND_LIMIT) {
            self.round_is_open = false;
            return Some(Round::End);
        }
        let is_pressed = state > HostState::High || guest.evictions_total > self.evictions_total;
        if !is_pressed || since.is_some_and(|since| since < ROUND_INTERVAL) {
            return None;
        }
        self.evictions_total = guest.evictions_total;
        (self.round_began, self.round_is_open) = (Some(now), true);
        Some(Round::Begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(vmm: u32, evictions_total: u64) -> Option<Running> {
        Some(Running { vmm: VmmId(vmm), evictions_total })
    }

    type ByGuest<T> = Vec<(usize, T)>;

    /// Intervals of statistics by guest, and rounds by guest.
    fn told(orders: ByGuest<ToVmm>) -> (ByGuest<u64>, ByGuest<Round>) {
        let (mut intervals, mut rounds) = (Vec::new(), Vec::new());
        for (guest, order) in orders {
            match order {
                ToVmm::PollStatistics { interval_ms } => intervals.push((guest, interval_ms)),
                ToVmm::HintPages(round) => rounds.push((guest, round)),
                other => panic!("{other:?}"),
            }
        }
        (intervals, rounds)
    }

    #[test]
    fn statistics_come_more_often_while_memory_is_short_and_are_asked_for_once() {
        let (mut orders, now) = (BalloonOrders::default(), Instant::now());
        let mut at = |state, guests: [Option<Running>; 2]| told(orders.due(state, now, &guests)).0;
        assert_eq!(at(HostState::High, [running(7, 0), running(8, 0)]), [(0, 1000), (1, 1000)]);
        assert_eq!(at(HostState::High, [running(7, 0), running(8, 0)]), []);
        assert_eq!(at(HostState::Soft, [running(7, 0), running(8, 0)]), [(0, 200), (1, 200)]);
        assert_eq!(at(HostState::Low, [None, running(9, 0)]), [(1, 200)], "a new VMM has heard nothing");
    }

    #[test]
    fn a_guest_that_evicts_is_asked_for_free_pages_one_round_at_a_time() {
        let (mut orders, start) = (BalloonOrders::default(), Instant::now());
        let mut at = |ms: u64, evictions| {
            let now = start + Duration::from_millis(ms);
            told(orders.due(HostState::High, now, &[running(1, 0), running(2, evictions)])).1
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
    fn every_guest_is_asked_while_the_host_is_short() {
        let (mut orders, now) = (BalloonOrders::default(), Instant::now());
        let rounds = told(orders.due(HostState::Soft, now, &[running(1, 0), None, running(3, 0)])).1;
        assert_eq!(rounds, [(0, Round::Begin), (2, Round::Begin)]);
    }
}
