//! Decisions told as episodes: each distinct one once, from when to when, how often, and between which
//! allocations.
//!
//! A decision continues an episode if host state and reason are the same, the episode was seen within a
//! minute, and
//!
//! ```text
//!   the allocation moves    it is the newest: however far that goes, it is one way up or down
//!   it stays                it is about the same (a 16th of the guest's RAM); an alternation is two episodes
//! ```

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use policy::explanation::record::{Action, Record};

/// Episodes remembered of each guest.
pub(crate) const EPISODES_MAX: usize = 32;
/// What has not been seen for this long does not go on, but begins anew.
const CONTINUED_WITHIN: Duration = Duration::from_secs(60);
/// Allocations that differ by less than this part of the guest's RAM are about the same.
const SAME_DIVISOR: u64 = 16;

/// The same decision, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Episode {
    /// When it was decided first, and last.
    pub from: SystemTime,
    pub to: SystemTime,
    /// Ticks that decided so.
    pub count: u64,
    /// The smallest allocation and the largest, bytes.
    pub allocation_bytes: [u64; 2],
    /// The last of them.
    pub record: Record,
}

impl Episode {
    fn new(at: SystemTime, record: Record) -> Episode {
        let given = record.decision.allocation_bytes;
        Episode { from: at, to: at, count: 1, allocation_bytes: [given; 2], record }
    }

    fn goes_on(&self, at: SystemTime, record: &Record, is_newest: bool) -> bool {
        let told = |record: &Record| (record.state, record.decision.reason, record.action());
        let lately = at.duration_since(self.to).unwrap_or_default() <= CONTINUED_WITHIN;
        let [least, most] = self.with(record.decision.allocation_bytes);
        let is_alike = match record.action() {
            Action::Keep => most - least <= record.guest.memory_bytes / SAME_DIVISOR,
            Action::Grow | Action::Shrink => is_newest,
        };
        told(record) == told(&self.record) && lately && is_alike
    }

    fn with(&self, given: u64) -> [u64; 2] {
        let [least, most] = self.allocation_bytes;
        [least.min(given), most.max(given)]
    }
}

/// A guest's episodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Episodes(VecDeque<Episode>);

impl Episodes {
    /// Takes a decision in. Whether it says something that the last one did not.
    pub fn note(&mut self, at: SystemTime, record: &Record) -> bool {
        let is_new = self.last().is_none_or(|last| !record.repeats(&last.record));
        let newest = self.0.len().saturating_sub(1);
        let found = (0..self.0.len()).rev().find(|&place| self.0[place].goes_on(at, record, place == newest));
        let mut episode = match found.and_then(|place| self.0.remove(place)) {
            Some(known) => Episode { count: known.count + 1, ..known },
            None => Episode { count: 1, ..Episode::new(at, *record) },
        };
        episode.allocation_bytes = episode.with(record.decision.allocation_bytes);
        (episode.to, episode.record) = (at, *record);
        if self.0.len() == EPISODES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(episode);
        is_new
    }

    /// The one that was seen last.
    pub fn last(&self) -> Option<&Episode> {
        self.0.back()
    }

    /// All, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Episode> {
        self.0.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::restraint::backoff::Standing;
    use policy::state::HostState;
    use policy::{Config, Decision, GuestInput, Reason};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn record(reason: Reason, before: u64, after: u64) -> Record {
        let config = Config::default();
        let mut guest = GuestInput::new(&config, 256 * MIB, 0);
        guest.usage.allocation_bytes = before * MIB;
        let decision = Decision { allocation_bytes: after * MIB, balloon_bytes: 0, entitlement_bytes: 0, reason };
        Record::new(&config, HostState::High, &guest, decision, Standing::Settled)
    }

    fn told(decisions: &[(u64, Reason, u64, u64)]) -> Vec<(Reason, u64, u64, [u64; 2])> {
        let mut episodes = Episodes::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for &(seconds, reason, before, after) in decisions {
            episodes.note(at(seconds), &record(reason, before, after));
        }
        let lasting = |one: &Episode| one.to.duration_since(one.from).unwrap().as_secs();
        let one = |one: &Episode| {
            (one.record.decision.reason, lasting(one), one.count, one.allocation_bytes.map(|bytes| bytes / MIB))
        };
        episodes.newest_first().map(one).collect()
    }

    #[test]
    fn what_is_decided_again_and_again_is_told_once() {
        let same: Vec<_> = (0..16).map(|tick| (tick, Reason::Settled, 100 + tick % 3, 100 + tick % 3)).collect();
        assert_eq!(told(&same), [(Reason::Settled, 15, 16, [100, 102])]);
    }

    #[test]
    fn an_alternation_of_two_is_two_episodes() {
        let both: Vec<_> = (0..20)
            .map(|tick| if tick % 2 == 0 { (tick, Reason::Exhausted, 90, 90) } else { (tick, Reason::Waits, 90, 90) })
            .collect();
        assert_eq!(told(&both), [(Reason::Waits, 18, 10, [90, 90]), (Reason::Exhausted, 18, 10, [90, 90])]);
    }

    #[test]
    fn a_way_up_is_one_episode_however_far_it_goes_and_another_one_later_is_another() {
        let up = |from: u64, mib: u64| {
            (0..10).map(move |tick| (from + tick, Reason::Stalls, mib + 4 * tick, mib + 4 * tick + 4))
        };
        let kept = (10..200).map(|tick| (tick, Reason::Settled, 140, 140));
        let all: Vec<_> = up(0, 100).chain(kept).chain(up(200, 140)).collect();
        assert_eq!(
            told(&all),
            [
                (Reason::Stalls, 9, 10, [144, 180]),
                (Reason::Settled, 189, 190, [140, 140]),
                (Reason::Stalls, 9, 10, [104, 140])
            ]
        );
    }

    #[test]
    fn what_was_not_seen_for_a_minute_begins_anew() {
        let twice = [(0, Reason::Settled, 90, 90), (100, Reason::Settled, 90, 90)];
        assert_eq!(told(&twice).len(), 2);
    }

    proptest! {
        #[test]
        fn every_tick_counts_once_and_no_past_grows_without_bound(
            ticks in prop::collection::vec((0usize..Reason::ALL.len(), 0u64..256, 0u64..256), 1..EPISODES_MAX),
        ) {
            let decisions: Vec<_> =
                (0u64..).zip(&ticks).map(|(at, &(reason, before, after))| (at, Reason::ALL[reason], before, after)).collect();
            prop_assert_eq!(told(&decisions).iter().map(|one| one.2).sum::<u64>(), ticks.len() as u64);
            let many: Vec<_> = (0u64..).zip(decisions.iter().cycle().take(500)).map(|(at, one)| (at, one.1, one.2, one.3)).collect();
            prop_assert!(told(&many).len() <= EPISODES_MAX);
        }
    }
}
