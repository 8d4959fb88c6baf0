//! How short of memory the host is, in four states (Waldspurger, OSDI 2002, section 6.3), and what the
//! outside world leaves of the budget.
//!
//! ```text
//!   free share of the budget      6 %        4 %        2 %        1 %
//!                          high  --|-- soft --|-- hard --|-- low
//!   levers                 none       balloon    and evict  and hold back guests above their allocation
//! ```
//!
//! A state is entered when free memory falls below its threshold; it is left again only when free memory has
//! risen above the threshold of the state it returns to by a quarter of the gap. So free memory that wavers
//! about a threshold changes nothing. Everything is `(state before, what is free now) -> state`: the caller
//! keeps the state.

use std::fmt;

/// How short of memory the host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostState {
    /// Enough: nothing is reclaimed for want of memory.
    #[default]
    High,
    /// Guests are asked for memory.
    Soft,
    /// Pages are evicted, whatever guests answer.
    Hard,
    /// Guests above their allocation are held back until they are not.
    Low,
}

impl HostState {
    /// All, from plenty to want.
    pub const ALL: [HostState; 4] = [HostState::High, HostState::Soft, HostState::Hard, HostState::Low];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            HostState::High => "high",
            HostState::Soft => "soft",
            HostState::Hard => "hard",
            HostState::Low => "low",
        }
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Free bytes below which the host is soft, hard, low. High is anything at or above `high_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Wanted free: at least this much is [`HostState::High`].
    pub high_bytes: u64,
    /// Below this, [`HostState::Soft`] at the latest.
    pub soft_bytes: u64,
    /// Below this, [`HostState::Hard`].
    pub hard_bytes: u64,
    /// Below this, [`HostState::Low`].
    pub low_bytes: u64,
}

/// Parts of the wanted free memory at which soft, hard and low begin: 64, 32 and 16 %, as ESX has them since
/// version 5.
const SLIDING_PARTS: [u64; 3] = [64, 32, 16];
/// The sliding scale: of the first so many GiB, so many per cent are to be free; of what is beyond the last,
/// one.
const SLIDING_SCALE: [(u64, u64); 3] = [(4, 6), (8, 4), (16, 2)];

impl Thresholds {
    /// 6, 4, 2 and 1 % of the budget: ESX's first figures, for small hosts.
    pub fn percent(budget_bytes: u64) -> Thresholds {
        let percent = |part: u64| (u128::from(budget_bytes) * u128::from(part) / 100) as u64;
        Thresholds { high_bytes: percent(6), soft_bytes: percent(4), hard_bytes: percent(2), low_bytes: percent(1) }
    }

    /// ESX's sliding scale, for large hosts, on which 6 % would be tens of GiB: 6 % of the first 4 GiB, 4 %
    /// of what follows up to 12, 2 % up to 28, and 1 % of the rest; soft, hard and low at 64, 32 and 16 % of
    /// that.
    pub fn sliding(budget_bytes: u64) -> Thresholds {
        let (mut rest, mut free) = (budget_bytes, 0);
        for (gib, percent) in SLIDING_SCALE {
            let part = rest.min(gib << 30);
            free += part / 100 * percent;
            rest -= part;
        }
        let high_bytes = free + rest / 100;
        let [soft_bytes, hard_bytes, low_bytes] = SLIDING_PARTS.map(|part| high_bytes / 100 * part);
        Thresholds { high_bytes, soft_bytes, hard_bytes, low_bytes }
    }

    /// What is less: on hosts of up to 4 GiB that is the percentages.
    pub fn of(budget_bytes: u64) -> Thresholds {
        let (percent, sliding) = (Thresholds::percent(budget_bytes), Thresholds::sliding(budget_bytes));
        if sliding.high_bytes < percent.high_bytes { sliding } else { percent }
    }

    /// The state by free memory alone.
    fn state(&self, free_bytes: u64) -> HostState {
        match free_bytes {
            free if free < self.low_bytes => HostState::Low,
            free if free < self.hard_bytes => HostState::Hard,
            free if free < self.soft_bytes => HostState::Soft,
            _ => HostState::High,
        }
    }

    /// The state after `before`, with so much free. Worse at once; better only beyond a margin.
    pub fn next(&self, before: HostState, free_bytes: u64) -> HostState {
        let now = self.state(free_bytes);
        if now >= before {
            return now;
        }
        // To leave a state, free memory must be above the gap's first quarter beyond the threshold under
        // which it was entered.
        let margin = |below: u64, above: u64| below + above.saturating_sub(below) / 4;
        let left = match before {
            HostState::High => return HostState::High,
            HostState::Soft => margin(self.soft_bytes, self.high_bytes),
            HostState::Hard => margin(self.hard_bytes, self.soft_bytes),
            HostState::Low => margin(self.low_bytes, self.hard_bytes),
        };
        if free_bytes >= left { now } else { before }
    }
}

/// What the world outside says of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outside {
    /// The limit of the control group that everything runs in; none without one.
    pub limit_bytes: Option<u64>,
    /// Share of time in which some task of the machine waited for memory, over the last ten seconds (PSI
    /// `some avg10`), 0 to 1; none where the kernel does not say.
    pub pressure: Option<f64>,
    /// Memory the machine has available, by the kernel's word (`MemAvailable`); none where it does not say.
    pub available_bytes: Option<u64>,
}

/// Pressure that says nothing: some task always waits a little.
const PRESSURE_IGNORED: f64 = 0.05;
/// Most of the budget that pressure takes: a quarter. What waits may wait for something else than us.
const PRESSURE_TAKES: f64 = 0.25;

/// What of `budget_bytes` can be used now, when `used_bytes` of it are in use. Never more than the budget.
///
/// * A control group's limit less a thirty-second is a budget: what is ours may not be all that is in the
///   group.
/// * The machine can give no more than what is used already and what is available.
/// * A machine whose tasks wait for memory has promised too much, however it came to that: from 5 % of their
///   time on the budget shrinks, by at most a quarter.
pub fn usable_budget(budget_bytes: u64, used_bytes: u64, outside: &Outside) -> u64 {
    let within_limit = outside.limit_bytes.map_or(u64::MAX, |limit| limit - limit / 32);
    let within_machine = outside.available_bytes.map_or(u64::MAX, |available| used_bytes.saturating_add(available));
    let waits = outside.pressure.filter(|pressure| pressure.is_finite()).unwrap_or(0.0).clamp(0.0, 1.0);
    let taken = (waits - PRESSURE_IGNORED).clamp(0.0, PRESSURE_TAKES);
    let calm = budget_bytes - (budget_bytes as f64 * taken) as u64;
    calm.min(within_limit).min(within_machine)
}

/// The most that can be had at all, however little guests can be squeezed: the control group's whole limit,
/// and what the machine has.
pub fn possible_bytes(used_bytes: u64, outside: &Outside) -> u64 {
    let within_machine = outside.available_bytes.map_or(u64::MAX, |available| used_bytes.saturating_add(available));
    outside.limit_bytes.unwrap_or(u64::MAX).min(within_machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn thresholds_are_those_of_esx() {
        let small = Thresholds::of(1000 * MIB);
        assert_eq!(
            [small.high_bytes, small.soft_bytes, small.hard_bytes, small.low_bytes],
            [60, 40, 20, 10].map(|n| n * MIB)
        );
        let large = Thresholds::of(100 << 30);
        // 6 % of 4 GiB, 4 % of 8, 2 % of 16, 1 % of 72: 1638 MiB.
        assert_eq!(large.high_bytes / MIB, 1638);
        assert!(
            large.low_bytes < large.hard_bytes
                && large.hard_bytes < large.soft_bytes
                && large.soft_bytes < large.high_bytes
        );
    }

    #[test]
    fn want_is_noticed_at_once_and_plenty_only_beyond_a_margin() {
        let at = Thresholds::of(1000 * MIB);
        assert_eq!(at.next(HostState::High, 39 * MIB), HostState::Soft);
        assert_eq!(at.next(HostState::Soft, 41 * MIB), HostState::Soft);
        assert_eq!(at.next(HostState::Soft, 45 * MIB), HostState::High);
        assert_eq!(at.next(HostState::High, 5 * MIB), HostState::Low);
        assert_eq!(at.next(HostState::Low, 11 * MIB), HostState::Low);
        assert_eq!(at.next(HostState::Low, 500 * MIB), HostState::High);
    }

    proptest! {
        #[test]
        fn what_wavers_within_the_margin_changes_the_state_once(budget in 64 * MIB..1 << 45, waver in 0.0f64..0.9, many in 2usize..50) {
            let at = Thresholds::of(budget);
            for (threshold, above) in [(at.low_bytes, at.hard_bytes), (at.hard_bytes, at.soft_bytes), (at.soft_bytes, at.high_bytes)] {
                let amplitude = ((above - threshold) as f64 / 4.0 * waver) as u64;
                let mut state = HostState::High;
                let mut changes = 0;
                for step in 0..many {
                    let free = if step % 2 == 0 { threshold - 1 } else { threshold + amplitude };
                    let next = at.next(state, free);
                    changes += u32::from(next != state);
                    state = next;
                }
                prop_assert_eq!(changes, 1);
            }
        }

        #[test]
        fn less_free_memory_is_never_a_better_state(budget in MIB..1 << 45, free: u64, less: u64, before in 0usize..4) {
            let (at, before) = (Thresholds::of(budget), HostState::ALL[before]);
            prop_assert!(at.next(before, free.saturating_sub(less)) >= at.next(before, free));
        }

        #[test]
        fn the_outside_takes_from_the_budget_and_never_adds(budget in 0u64..1 << 45, used: u64, limit: Option<u64>, available: Option<u64>, pressure: Option<f64>) {
            let outside = Outside { limit_bytes: limit, pressure, available_bytes: available };
            let usable = usable_budget(budget, used, &outside);
            prop_assert!(usable <= budget && limit.is_none_or(|limit| usable <= limit));
        }
    }

    #[test]
    fn a_shrinking_outside_shrinks_the_budget() {
        let gib = 1u64 << 30;
        assert_eq!(usable_budget(gib, 0, &Outside::default()), gib);
        let limited = Outside { limit_bytes: Some(gib / 2), ..Outside::default() };
        assert_eq!(usable_budget(gib, 0, &limited), gib / 2 - gib / 64);
        let full = Outside { available_bytes: Some(gib / 4), ..Outside::default() };
        assert_eq!(usable_budget(gib, gib / 4, &full), gib / 2);
        let pressed = Outside { pressure: Some(0.15), ..Outside::default() };
        assert_eq!(usable_budget(1000, 0, &pressed), 901);
        let nonsense = Outside { pressure: Some(f64::NAN), ..Outside::default() };
        assert_eq!(usable_budget(gib, 0, &nonsense), gib);
    }
}
