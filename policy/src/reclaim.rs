//! Memory that somebody reclaims from one guest by hand: so much, now, for a while.
//!
//! ```text
//!                first look        resident <= goal, or it comes no further
//!   Asked ─────────────► Taking ──────────────────────────► Held ── time over ──► Ended(Over)
//!                           │                                 │
//!                           └── it waits noticeably more ─────┴── told to end ──► Ended(Stalled or Told)
//! ```
//!
//! While it is taken and held, the guest has a cap ([`GuestInput::cap_bytes`]): what it held at the first
//! look, less what was asked for, and never less than what is reserved for it or than it can run with. The
//! ladder does the rest (`allocate.rs`): steps as short as those by which guests yield, by the levers that
//! are cheapest. A guest that comes no further keeps what it gave and is pressed no more.

use crate::guest::{Config, GuestInput};

/// A guest that waits so much more of its time than at the first look suffers for what is taken from it: five
/// times what a busy host costs each guest now and then.
const STALL_NOTICED: f64 = 0.1;
/// ... and does so for this long, ms: the first pages that go are taken blindly, and some of them come back
/// at once.
const STALL_MS: u64 = 1_000;
/// It comes no further if it has not given this part of its RAM for this long, ms: thirty ticks.
const PROGRESS_DIVISOR: u64 = 1024;
const STUCK_MS: u64 = 3_000;
/// What was not won after this long, ms, is not won now.
const TAKING_MS_MAX: u64 = 30_000;

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not looked at yet.
    Asked,
    /// On the way.
    Taking,
    /// As far as it goes.
    Held(Reached),
    /// The guest may have its memory back.
    Ended(End),
}

/// How far it went, and why no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// All of it.
    All,
    /// The guest has only what is reserved for it.
    Reservation,
    /// It could not run with less.
    Least,
    /// Its levers bring nothing more.
    Stuck,
    /// It took too long.
    Late,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The time was over.
    Over,
    /// The guest waited for memory.
    Stalled,
    /// Somebody wanted that.
    Told,
}

/// See the module's description. Times are ms by the caller's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reclaim {
    wanted_bytes: u64,
    hold_ms: u64,
    stage: Stage,
    from_bytes: u64,
    cap_bytes: u64,
    pressure_before: f64,
    begun_ms: u64,
    /// The least it held so far, and when that was reached.
    lowest: (u64, u64),
    until_ms: u64,
    /// Since when it has waited so much more.
    stalled_ms: Option<u64>,
}

impl Reclaim {
    /// So many bytes are wanted, for so long from when they are there.
    pub fn new(wanted_bytes: u64, hold_ms: u64) -> Reclaim {
        Reclaim {
            wanted_bytes,
            hold_ms,
            stage: Stage::Asked,
            from_bytes: 0,
            cap_bytes: u64::MAX,
            pressure_before: 0.0,
            begun_ms: 0,
            lowest: (u64::MAX, 0),
            until_ms: 0,
            stalled_ms: None,
        }
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What was asked for, bytes.
    pub fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    /// When it is given back, by the caller's clock, if nothing ends it earlier; none before it is held, and
    /// after its end.
    pub fn until_ms(&self) -> Option<u64> {
        matches!(self.stage, Stage::Held(_)).then_some(self.until_ms)
    }

    /// What the guest gets at most; see [`GuestInput::cap_bytes`].
    pub fn cap_bytes(&self) -> Option<u64> {
        matches!(self.stage, Stage::Taking | Stage::Held(_)).then_some(self.cap_bytes)
    }

    /// Gives it back.
    pub fn end(&mut self) {
        if !matches!(self.stage, Stage::Ended(_)) {
            self.stage = Stage::Ended(End::Told);
        }
    }

    /// Goes on by how the guest is now.
    pub fn look(&mut self, now_ms: u64, config: &Config, guest: &GuestInput) {
        let resident_bytes = guest.usage.resident_bytes;
        let pressure = crate::pressure(guest.usage.stall_ratio, guest.usage.refaults_per_second);
        if self.stage == Stage::Asked {
            (self.stage, self.from_bytes, self.pressure_before) = (Stage::Taking, resident_bytes, pressure);
            (self.begun_ms, self.lowest) = (now_ms, (resident_bytes, now_ms));
        }
        let stalls = self.cap_bytes().is_some() && pressure > self.pressure_before + STALL_NOTICED;
        self.stalled_ms = stalls.then_some(self.stalled_ms.unwrap_or(now_ms));
        if self.stalled_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= STALL_MS) {
            self.stage = Stage::Ended(End::Stalled);
        }
        match self.stage {
            Stage::Taking => self.take(now_ms, config, guest),
            Stage::Held(_) if now_ms >= self.until_ms => self.stage = Stage::Ended(End::Over),
            Stage::Asked | Stage::Held(_) | Stage::Ended(_) => {}
        }
    }

    fn take(&mut self, now_ms: u64, config: &Config, guest: &GuestInput) {
        let resident_bytes = guest.usage.resident_bytes;
        let wished = self.from_bytes.saturating_sub(self.wanted_bytes);
        let (reserved, least) = (guest.minimum_bytes(config), guest.livable_bytes());
        self.cap_bytes = wished.max(reserved).max(least);
        if resident_bytes.saturating_add(guest.memory_bytes / PROGRESS_DIVISOR) <= self.lowest.0 {
            self.lowest = (resident_bytes, now_ms);
        }
        let reached = match () {
            () if resident_bytes <= self.cap_bytes && self.cap_bytes == wished => Reached::All,
            () if resident_bytes <= self.cap_bytes && reserved >= least => Reached::Reservation,
            () if resident_bytes <= self.cap_bytes => Reached::Least,
            () if now_ms.saturating_sub(self.begun_ms) >= TAKING_MS_MAX => Reached::Late,
            () if now_ms.saturating_sub(self.lowest.1) >= STUCK_MS => Reached::Stuck,
            () => return,
        };
        // What it did not give it may keep.
        self.cap_bytes = self.cap_bytes.max(resident_bytes);
        (self.stage, self.until_ms) = (Stage::Held(reached), now_ms.saturating_add(self.hold_ms));
    }
}

impl Reached {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Reached::All => "all that was asked for",
            Reached::Reservation => "it has only what is reserved for it",
            Reached::Least => "it could not run with less: its pages neither compress further nor have anywhere to go",
            Reached::Stuck => "its levers bring nothing more",
            Reached::Late => "it took too long",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Reached::All => "all",
            Reached::Reservation => "reservation",
            Reached::Least => "floor",
            Reached::Stuck => "stuck",
            Reached::Late => "late",
        }
    }
}

impl End {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            End::Over => "the time was over",
            End::Stalled => "the guest waited for memory",
            End::Told => "that was ordered",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            End::Over => "over",
            End::Stalled => "stalled",
            End::Told => "told",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, allocate};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn guest() -> GuestInput {
        let mut guest = GuestInput::new(&Config::default(), 256 * MIB, 4 * MIB);
        let usage = &mut guest.usage;
        (usage.allocation_bytes, usage.resident_bytes, usage.committed_bytes) = (200 * MIB, 200 * MIB, 200 * MIB);
        usage.active_bytes = Some(40 * MIB);
        guest
    }

    /// Ticks of a guest that follows its allocation down to `floor`, until it is taken no more.
    fn taken(reclaim: &mut Reclaim, guest: &mut GuestInput, floor: u64) -> u64 {
        let (config, host) = (Config::default(), Host { budget_bytes: 400 * MIB, ..Host::default() });
        for tick in 0..1000 {
            reclaim.look(tick * 100, &config, guest);
            if !matches!(reclaim.stage(), Stage::Asked | Stage::Taking) {
                return tick * 100;
            }
            guest.cap_bytes = reclaim.cap_bytes();
            let allocation_bytes = allocate(&config, &host, &[*guest])[0].allocation_bytes;
            assert!(guest.usage.allocation_bytes - allocation_bytes <= 16 * MIB, "by steps");
            guest.usage.allocation_bytes = allocation_bytes;
            guest.usage.resident_bytes = allocation_bytes.max(floor);
            guest.usage.committed_bytes = guest.usage.resident_bytes;
        }
        panic!("it goes on for ever: {reclaim:?}");
    }

    #[test]
    fn what_is_asked_for_is_taken_by_steps_held_and_given_back() {
        let (mut reclaim, mut guest) = (Reclaim::new(64 * MIB, 10_000), guest());
        let now_ms = taken(&mut reclaim, &mut guest, 0);
        assert_eq!((reclaim.stage(), guest.usage.resident_bytes), (Stage::Held(Reached::All), 136 * MIB));
        reclaim.look(now_ms + 9_999, &Config::default(), &guest);
        assert_eq!(reclaim.cap_bytes(), Some(136 * MIB));
        reclaim.look(now_ms + 10_000, &Config::default(), &guest);
        assert_eq!((reclaim.stage(), reclaim.cap_bytes()), (Stage::Ended(End::Over), None));
    }

    #[test]
    fn what_is_reserved_and_what_it_cannot_run_without_is_not_taken() {
        let (mut reclaim, mut reserved) = (Reclaim::new(u64::MAX, 0), guest());
        taken(&mut reclaim, &mut reserved, 0);
        assert_eq!(reclaim.stage(), Stage::Held(Reached::Reservation));
        assert_eq!(reserved.usage.resident_bytes, reserved.reservation_bytes);
        let (mut reclaim, mut incompressible) = (Reclaim::new(180 * MIB, 0), guest());
        incompressible.usage.irreducible_bytes = 100 * MIB;
        taken(&mut reclaim, &mut incompressible, 0);
        assert_eq!(reclaim.stage(), Stage::Held(Reached::Least));
        assert_eq!(incompressible.usage.resident_bytes, incompressible.livable_bytes());
    }

    #[test]
    fn a_guest_that_gives_no_more_keeps_the_rest() {
        let (mut reclaim, mut guest) = (Reclaim::new(64 * MIB, 1_000), guest());
        let now_ms = taken(&mut reclaim, &mut guest, 180 * MIB);
        assert_eq!((reclaim.stage(), reclaim.cap_bytes()), (Stage::Held(Reached::Stuck), Some(180 * MIB)));
        assert!(now_ms < 2 * STUCK_MS, "{now_ms}");
    }

    #[test]
    fn a_guest_that_waits_noticeably_gets_it_back_and_one_that_always_waited_does_not() {
        let config = Config::default();
        for (before, after, looks, stage) in [
            (0.0, 0.05, 20, Stage::Taking),
            (0.0, 0.2, 10, Stage::Taking),
            (0.0, 0.2, 11, Stage::Ended(End::Stalled)),
            (0.3, 0.35, 20, Stage::Taking),
        ] {
            let (mut reclaim, mut guest) = (Reclaim::new(64 * MIB, 1_000), guest());
            guest.usage.stall_ratio = before;
            reclaim.look(0, &config, &guest);
            guest.usage.stall_ratio = after;
            (1..=looks).for_each(|tick| reclaim.look(tick * 100, &config, &guest));
            assert_eq!(reclaim.stage(), stage);
        }
    }

    #[test]
    fn what_is_told_to_end_has_no_cap() {
        let mut reclaim = Reclaim::new(64 * MIB, 1_000);
        reclaim.look(0, &Config::default(), &guest());
        assert!(reclaim.cap_bytes().is_some());
        reclaim.end();
        assert_eq!((reclaim.stage(), reclaim.cap_bytes()), (Stage::Ended(End::Told), None));
    }

    proptest! {
        #[test]
        fn a_cap_is_never_below_what_was_promised(
            wanted: u64, residents in prop::collection::vec(0u64..300 * MIB, 1..40), stall in 0.0..0.2f64,
        ) {
            let (mut reclaim, mut guest, config) = (Reclaim::new(wanted, 1_000), guest(), Config::default());
            let host = Host { budget_bytes: 400 * MIB, ..Host::default() };
            for (tick, resident) in (0..).zip(residents) {
                (guest.usage.resident_bytes, guest.usage.stall_ratio) = (resident, stall);
                reclaim.look(tick * 300, &config, &guest);
                guest.cap_bytes = reclaim.cap_bytes();
                prop_assert!(guest.cap_bytes.is_none_or(|cap| cap >= guest.reservation_bytes));
                guest.usage.allocation_bytes = allocate(&config, &host, &[guest])[0].allocation_bytes;
                prop_assert!(guest.usage.allocation_bytes >= guest.reservation_bytes);
            }
        }
    }
}
