//! Who is spared: a guest that gave memory while it was calm, and soon waited for it.
//!
//! Calm is no proof that memory is not needed. Without a memory of its own, a rule that takes from the calm
//! for those that wait takes a step from a guest, makes it wait, gives the step back, and begins anew: ten
//! times a second, for ever. So a guest that regrets what it gave is left what it has for a while, twice as
//! long with each time:
//!
//! ```text
//!                 lost memory while calm              waits within SOON_MS
//!   Giving --------------------------> On trial -----------------------> Spared, 1 s × 2^strikes --> Giving
//!      ^                                   |                              strikes + 1, at most 5
//!      +---- did not wait: strikes − 1 ----+
//! ```
//!
//! Being spared is worth something only beyond the entitlement of others: a guest that is below its own takes
//! from the spared, too (`allocate.rs`). So nobody keeps by complaining what belongs to another.

use crate::guest::GuestInput;

/// One that waits within so long of a loss regrets it: stall is a moving average of a second, and an evicted
/// page is missed when its turn comes.
pub const SOON_MS: u64 = 3_000;
/// How long a guest is spared the first time.
const SPARED_MS: u64 = 1_000;
/// Doublings of that at most: 32 s, in which demand changes anyway.
const STRIKES_MAX: u32 = 5;

/// One guest's regrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regret {
    now_ms: u64,
    allocation_bytes: u64,
    was_calm: bool,
    lost_ms: Option<u64>,
    strikes: u32,
    spared_until_ms: u64,
}

impl Regret {
    /// Looks at the guest before memory is divided, `now_ms` by the caller's clock; one that jumps back
    /// counts as standing still. Whether the guest is to be spared.
    pub fn look(&mut self, now_ms: u64, guest: &GuestInput) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        let allocation_bytes = guest.usage.allocation_bytes;
        if allocation_bytes < self.allocation_bytes && self.was_calm {
            self.lost_ms = Some(self.now_ms);
        }
        let waits = guest.waits();
        (self.allocation_bytes, self.was_calm) = (allocation_bytes, !waits);
        match self.lost_ms {
            Some(_) if waits && allocation_bytes < guest.useful_bytes() => {
                self.lost_ms = None;
                self.spared_until_ms = self.now_ms.saturating_add(SPARED_MS << self.strikes);
                self.strikes = (self.strikes + 1).min(STRIKES_MAX);
            }
            Some(lost_ms) if self.now_ms - lost_ms > SOON_MS => {
                self.lost_ms = None;
                self.strikes = self.strikes.saturating_sub(1);
            }
            _ => {}
        }
        self.now_ms < self.spared_until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const MIB: u64 = 1 << 20;

    fn guest(allocation_mib: u64, stall_ratio: f64) -> GuestInput {
        let mut guest = GuestInput::new(&Config::default(), 256 * MIB, 0);
        guest.usage.allocation_bytes = allocation_mib * MIB;
        guest.usage.resident_bytes = allocation_mib * MIB;
        guest.usage.stall_ratio = stall_ratio;
        guest
    }

    /// How long the guest is spared, ms, when it waits from 200 ms after the loss of a step on.
    fn spared_ms(regret: &mut Regret, from_ms: u64) -> u64 {
        regret.look(from_ms, &guest(100, 0.0));
        regret.look(from_ms + 100, &guest(96, 0.0));
        (from_ms + 200..from_ms + 60_000).step_by(100).filter(|&now_ms| regret.look(now_ms, &guest(96, 0.1))).count()
            as u64
            * 100
    }

    #[test]
    fn a_guest_that_waits_for_what_it_gave_is_spared_twice_as_long_each_time_up_to_a_bound() {
        let mut regret = Regret::default();
        let spared: Vec<u64> = (0..7).map(|round| spared_ms(&mut regret, round * 100_000) / 1000).collect();
        assert_eq!(spared, [1, 2, 4, 8, 16, 32, 32]);
    }

    #[test]
    fn a_guest_that_gives_without_regret_is_soon_asked_as_all_others_are() {
        let mut regret = Regret::default();
        (0..4).for_each(|round| _ = spared_ms(&mut regret, round * 100_000));
        for round in 4..8 {
            for ms in (0..60_000).step_by(100) {
                regret.look(round * 100_000 + ms, &guest(if ms == 0 { 100 } else { 96 }, 0.0));
            }
        }
        assert_eq!(spared_ms(&mut regret, 900_000), 1000);
    }

    #[test]
    fn who_waited_before_it_lost_anything_or_does_not_use_what_it_has_regrets_nothing() {
        let mut regret = Regret::default();
        for now_ms in (0..10_000).step_by(100) {
            assert!(!regret.look(now_ms, &guest(200 - now_ms / 100, 0.3)), "it waited all along");
        }
        let mut idle = guest(100, 0.3);
        idle.usage.resident_bytes = 20 * MIB;
        regret.look(10_000, &guest(104, 0.0));
        assert!((10_100..20_000).all(|now_ms| !regret.look(now_ms, &idle)), "memory is not what it waits for");
    }

    #[test]
    fn clocks_that_jump_spare_nobody_for_ever() {
        let mut regret = Regret::default();
        for now_ms in [0, u64::MAX, 5, u64::MAX, 7] {
            regret.look(now_ms, &guest(100, 0.0));
            regret.look(now_ms, &guest(96, 0.0));
            regret.look(now_ms, &guest(96, 0.5));
        }
        assert!(!regret.look(u64::MAX, &guest(96, 0.5)));
    }
}
