//! When to stop asking a guest for memory: it gives none, or it suffers for what it gave.
//!
//! ```text
//!                 asked, and gives         asked, nothing for STUCK_MS
//!   Settled <-------------------> Moving ------------------------------> Stuck -- gives something --> Moving
//!      ^                            |
//!      |  pain over, RELEASE_MS     | pain: its own faults rose since it gave
//!      +--------- Backing off <-----+        asked for an eighth less, again and again, until the pain ends
//! ```
//!
//! What counts as given is *resident bytes that went*, not the balloon's own number: a driver may say that it
//! gave pages which it never touched, and a hostile one may say anything. What counts as pain is what the
//! guest waits for and says that it swaps: [`Pain`]. A guest whose balloon is stuck is asked for what it has
//! given and no more, and its pages are evicted instead.

/// A balloon that has made no progress for so long is stuck.
pub const STUCK_MS: u64 = 3_000;
/// Pain must have been over for so long before the guest is asked for more again.
pub const RELEASE_MS: u64 = 10_000;
/// Progress is at least this part of what is still wanted, or it is none.
const PROGRESS_DIVISOR: u64 = 256;
/// A request that is met but for this part of the guest's memory is met.
const SETTLED_DIVISOR: u64 = 128;
/// How often a guest in pain is relieved.
const RELIEF_MS: u64 = 500;
/// The part of the request it is relieved of each time.
const RELIEF_DIVISOR: u64 = 8;
/// Pain is noticed when it is at least this, and twice what it was before the guest was asked.
const PAIN_MIN: f64 = 0.02;

/// How a guest suffers from want of memory; rates are moving averages of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pain {
    /// Share of its time it was stalled.
    pub stall_ratio: f64,
    /// Its own major faults, by its statistics; none if it does not say.
    pub major_faults_per_second: Option<f64>,
    /// Pages it swapped in by itself, by its statistics; none if it does not say.
    pub swap_ins_per_second: Option<f64>,
}

/// What a fault that a guest serves from its own disk costs it, seconds.
const GUEST_FAULT_SECONDS: f64 = 200e-6;

impl Pain {
    /// Share of its time that it suffers. What makes no sense counts as nothing: a guest gains no memory by
    /// absurd statistics beyond what its balloon holds.
    fn ratio(&self) -> f64 {
        let sane = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        let guest = |rate: Option<f64>| sane(rate.unwrap_or(0.0)) * GUEST_FAULT_SECONDS;
        let own = guest(self.major_faults_per_second).max(guest(self.swap_ins_per_second));
        (sane(self.stall_ratio) + own).min(1.0)
    }
}

/// What is seen of a balloon at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Look {
    /// The caller's clock, ms. One that jumps back counts as standing still.
    pub now_ms: u64,
    /// What policy wants the guest to give up, bytes.
    pub wanted_bytes: u64,
    /// What the guest says it has given, bytes.
    pub actual_bytes: u64,
    /// What is resident of the guest by the host's own books, bytes.
    pub resident_bytes: u64,
    /// RAM, bytes.
    pub memory_bytes: u64,
    /// How the guest does.
    pub pain: Pain,
}

/// Where a balloon stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// The request is met.
    #[default]
    Settled,
    /// It is on its way.
    Moving,
    /// It has not moved for [`STUCK_MS`].
    Stuck,
    /// The guest suffers and gets memory back.
    BackingOff,
}

impl Standing {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Settled => "settled",
            Standing::Moving => "moving",
            Standing::Stuck => "stuck",
            Standing::BackingOff => "backing_off",
        }
    }
}

/// One guest's balloon over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backoff {
    standing: Standing,
    now_ms: u64,
    /// Most given so far since the last progress, and when that was.
    given_bytes: u64,
    progress_ms: u64,
    /// Pain while the guest was asked for nothing new.
    calm: f64,
    /// Not to be asked for more than this while it suffers, and when that was decided.
    ceiling: Option<(u64, u64)>,
    resident_before: Option<u64>,
}

impl Backoff {
    /// Where it stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// What to ask the guest for, bytes: at most what policy wants.
    pub fn ask(&mut self, look: &Look) -> u64 {
        self.now_ms = self.now_ms.max(look.now_ms);
        let wanted = look.wanted_bytes.min(look.memory_bytes);
        let asked = self.relieve(look, wanted);
        self.follow(look, asked);
        // A stuck balloon is asked for what it has given: whatever else is wanted, the pager takes.
        if self.standing == Standing::Stuck {
            asked.min(look.actual_bytes.saturating_add(look.memory_bytes / SETTLED_DIVISOR))
        } else {
            asked
        }
    }

    /// Backs off while the guest suffers for what it gave.
    fn relieve(&mut self, look: &Look, wanted: u64) -> u64 {
        let pain = look.pain.ratio();
        let inflated = look.actual_bytes.min(look.memory_bytes) > look.memory_bytes / SETTLED_DIVISOR;
        let hurts = inflated && pain >= PAIN_MIN && pain >= 2.0 * self.calm;
        match self.ceiling {
            None if hurts => self.lower(look.actual_bytes.min(wanted)),
            Some((ceiling, since)) if hurts && self.now_ms - since >= RELIEF_MS => self.lower(ceiling.min(wanted)),
            Some((_, since)) if !hurts && self.now_ms - since >= RELEASE_MS => self.ceiling = None,
            Some((ceiling, _)) if hurts => {
                self.ceiling = Some((ceiling, self.ceiling.map_or(self.now_ms, |(_, since)| since)))
            }
            _ => {}
        }
        if self.ceiling.is_none() && !inflated {
            self.calm = pain;
        }
        self.ceiling.map_or(wanted, |(ceiling, _)| wanted.min(ceiling))
    }

    fn lower(&mut self, from: u64) {
        self.ceiling = Some((from - from / RELIEF_DIVISOR, self.now_ms));
    }

    /// Whether the balloon follows.
    fn follow(&mut self, look: &Look, asked: u64) {
        let missing = asked.saturating_sub(look.actual_bytes);
        if missing <= look.memory_bytes / SETTLED_DIVISOR {
            self.progress_ms = self.now_ms;
            self.given_bytes = look.actual_bytes;
            self.resident_before = None;
            self.standing = if self.ceiling.is_some() { Standing::BackingOff } else { Standing::Settled };
            return;
        }
        let before = *self.resident_before.get_or_insert(look.resident_bytes);
        if look.resident_bytes > before {
            self.resident_before = Some(look.resident_bytes);
        }
        let fell_back = look.actual_bytes < self.given_bytes;
        let moved = look.actual_bytes >= self.given_bytes.saturating_add((missing / PROGRESS_DIVISOR).max(1));
        if moved {
            (self.progress_ms, self.given_bytes) = (self.now_ms, look.actual_bytes);
        } else if fell_back {
            self.given_bytes = look.actual_bytes;
        }
        self.standing = match self.now_ms - self.progress_ms >= STUCK_MS {
            true => Standing::Stuck,
            false if self.ceiling.is_some() => Standing::BackingOff,
            false => Standing::Moving,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn look(now_ms: u64, wanted_mib: u64, actual_mib: u64) -> Look {
        Look {
            now_ms,
            wanted_bytes: wanted_mib * MIB,
            actual_bytes: actual_mib * MIB,
            resident_bytes: (256 - actual_mib.min(256)) * MIB,
            memory_bytes: 256 * MIB,
            pain: Pain::default(),
        }
    }

    #[test]
    fn a_balloon_that_follows_is_asked_for_all() {
        let mut backoff = Backoff::default();
        for second in 0..20 {
            assert_eq!(backoff.ask(&look(second * 1000, 100, second * 5)), 100 * MIB);
            assert_eq!(backoff.standing(), Standing::Moving);
        }
        backoff.ask(&look(20_000, 100, 100));
        assert_eq!(backoff.standing(), Standing::Settled);
    }

    #[test]
    fn a_balloon_that_gives_nothing_is_found_out_within_seconds_and_asked_no_more() {
        let mut backoff = Backoff::default();
        let asked: Vec<u64> = (0..50).map(|tick| backoff.ask(&look(tick * 100, 100, 10)) / MIB).collect();
        assert_eq!(backoff.standing(), Standing::Stuck);
        let stuck_after = asked.iter().position(|&asked| asked < 100).unwrap() as u64 * 100;
        assert!((STUCK_MS..STUCK_MS + 200).contains(&stuck_after), "{stuck_after} ms");
        assert_eq!(asked[49], 12, "what it has given, and a little to see whether it moves again");
        backoff.ask(&look(6_000, 100, 50));
        assert_eq!(backoff.standing(), Standing::Moving);
    }

    #[test]
    fn a_guest_that_suffers_for_what_it_gave_gets_memory_back_until_it_does_not() {
        let mut backoff = Backoff::default();
        let mut given = 0;
        let mut asked = Vec::new();
        for tick in 0..100 {
            let pain = Pain { stall_ratio: if given > 40 { 0.3 } else { 0.0 }, ..Pain::default() };
            let now = backoff.ask(&Look { pain, ..look(tick * 100, 100, given) }) / MIB;
            given = if now > given { (given + 5).min(now) } else { now };
            asked.push(now);
        }
        assert!((20..=41).contains(&given), "{asked:?}");
        assert_eq!(backoff.standing(), Standing::BackingOff);
        let lowest = *asked.iter().min().unwrap();
        (100..400).for_each(|tick| asked.push(backoff.ask(&look(tick * 100, 100, given)) / MIB));
        assert!(lowest < 41 && asked[100..].contains(&100), "asked again once the pain is over: {asked:?}");
    }

    #[test]
    fn a_guest_that_stalled_before_it_gave_anything_is_not_believed_to_stall_for_that() {
        let mut backoff = Backoff::default();
        let pain = Pain { stall_ratio: 0.3, ..Pain::default() };
        for tick in 0..50 {
            let given = tick * 2;
            assert_eq!(backoff.ask(&Look { pain, ..look(tick * 100, 100, given) }), 100 * MIB);
        }
    }

    #[test]
    fn lies_and_clocks_that_jump_break_nothing() {
        let mut backoff = Backoff::default();
        let absurd = Pain {
            stall_ratio: f64::NAN,
            major_faults_per_second: Some(-1e300),
            swap_ins_per_second: Some(f64::INFINITY),
        };
        for now_ms in [5_000, 0, u64::MAX, 3] {
            let look = Look { pain: absurd, ..look(now_ms, 100, u64::MAX >> 20) };
            assert!(backoff.ask(&look) <= 100 * MIB);
        }
    }
}
