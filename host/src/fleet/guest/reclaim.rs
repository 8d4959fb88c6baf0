//! Memory that an operator reclaims from one guest: what of it was won by what, and where it stands.
//!
//! ```text
//!   POST ─► Guest::reclaim ─► each tick: `policy::reclaim` looks, the ledger caps it ─► held ─► answer
//! ```
//!
//! What was won by what is the difference of the guest's page states between the first look and the answer. A
//! guest that works meanwhile moves pages between states as well: the parts are what the states came to,
//! their sum may be more or less than what it holds less.

use std::time::{Duration, Instant};

use control::GuestStatus;
use policy::reclaim::{Reached, Reclaim, Stage};
use policy::{Config, GuestInput};
use serde_json::{Value, json};
use wire::PAGE_BYTES;

use crate::bytes::ByteCount;

/// What the guest holds, and where the rest of its pages is, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holdings {
    resident: u64,
    reported_free: u64,
    zero: u64,
    shared: u64,
    balloon: u64,
    compressed: u64,
    pool: u64,
    swapped: u64,
    clean: u64,
}

impl Holdings {
    fn of(status: &GuestStatus) -> Holdings {
        let (pager, pages) = (&status.pager, &status.pager.pages);
        let bytes = |pages: u64| pages * PAGE_BYTES as u64;
        Holdings {
            resident: pager.resident_bytes,
            reported_free: bytes(pager.reported.pages_total),
            zero: bytes(pages.zero),
            shared: bytes(pages.shared),
            balloon: bytes(pages.ballooned),
            compressed: bytes(pages.compressed),
            pool: pager.pool_bytes,
            swapped: bytes(pages.swapped),
            clean: bytes(pages.clean),
        }
    }
}

/// One reclaim, under way or over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reclaiming {
    reclaim: Reclaim,
    begun: Instant,
    before: Holdings,
    after: Holdings,
    reached: Option<Reached>,
}

impl Reclaiming {
    /// Begins now: so many bytes, for so long.
    pub fn new(bytes: u64, hold: Duration, now: Instant) -> Reclaiming {
        let (before, after) = (Holdings::default(), Holdings::default());
        Reclaiming { reclaim: Reclaim::new(bytes, hold.as_millis() as u64), begun: now, before, after, reached: None }
    }

    /// Whether the guest may not have its memory back yet.
    pub fn is_on(&self) -> bool {
        !matches!(self.reclaim.stage(), Stage::Ended(_))
    }

    /// Whether it is still being taken.
    pub fn is_taking(&self) -> bool {
        matches!(self.reclaim.stage(), Stage::Asked | Stage::Taking)
    }

    /// What the guest may have at most, if that is less than it otherwise might, bytes.
    pub fn cap_bytes(&self) -> Option<u64> {
        self.reclaim.cap_bytes()
    }

    /// Gives it back.
    pub fn end(&mut self) {
        self.reclaim.end();
    }

    /// Goes on by how the guest is now.
    pub fn look(&mut self, now: Instant, config: &Config, guest: &GuestInput, status: &GuestStatus) {
        let was_taking = self.is_taking();
        if self.reclaim.stage() == Stage::Asked {
            self.before = Holdings::of(status);
        }
        self.reclaim.look(now.saturating_duration_since(self.begun).as_millis() as u64, config, guest);
        if was_taking {
            self.after = Holdings::of(status);
        }
        if let Stage::Held(reached) = self.reclaim.stage() {
            self.reached = Some(reached);
        }
    }

    /// For programs, with a sentence for people.
    pub fn describe(&self, guest: &str, now: Instant) -> Value {
        let Reclaiming { before, after, .. } = self;
        let now_ms = now.saturating_duration_since(self.begun).as_millis() as u64;
        let left_s = self.reclaim.until_ms().map(|until_ms| until_ms.saturating_sub(now_ms) as f64 / 1e3);
        let won_bytes = before.resident.saturating_sub(after.resident);
        let won_by = self.won_by().into_iter().map(|(name, bytes)| (name.to_owned(), Value::from(bytes)));
        let won_by = Value::Object(won_by.collect());
        let (state, why) = match self.reclaim.stage() {
            Stage::Asked | Stage::Taking => ("taking", None),
            Stage::Held(reached) => ("held", Some(reached.name())),
            Stage::Ended(end) => ("ended", Some(end.name())),
        };
        json!({
            "guest": guest,
            "state": state,
            "why": why,
            "wanted_bytes": self.reclaim.wanted_bytes(),
            "won_bytes": won_bytes,
            "won_by_bytes": won_by,
            "reached": self.reached.map(Reached::name),
            "given_back_in_seconds": left_s,
            "text": self.sentence(guest, won_bytes, left_s),
        })
    }

    fn won_by(&self) -> [(&'static str, u64); 7] {
        let Reclaiming { before, after, .. } = self;
        let grown = |of: fn(&Holdings) -> u64| of(after).saturating_sub(of(before));
        let zero = grown(|held| held.zero);
        let reported_free = grown(|held| held.reported_free).min(zero);
        let pool = grown(|held| held.pool);
        [
            ("reported_free", reported_free),
            ("zero", zero - reported_free),
            ("shared", grown(|held| held.shared)),
            ("balloon", grown(|held| held.balloon)),
            ("compressed", grown(|held| held.compressed).saturating_sub(pool)),
            ("swapped", grown(|held| held.swapped)),
            ("clean", grown(|held| held.clean)),
        ]
    }

    fn sentence(&self, guest: &str, won_bytes: u64, left_s: Option<f64>) -> String {
        let by = self.won_by().into_iter().filter(|&(_, bytes)| bytes > 0);
        let by: Vec<_> = by.map(|(name, bytes)| format!("{name} {}", ByteCount::rounded(bytes))).collect();
        let by = if by.is_empty() { String::new() } else { format!(" (by {})", by.join(", ")) };
        let wanted = ByteCount::rounded(self.reclaim.wanted_bytes());
        let won = format!("{} of {wanted} reclaimed from {guest}{by}", ByteCount::rounded(won_bytes));
        let short = self.reached.filter(|&reached| reached != Reached::All);
        let short = short.map_or(String::new(), |reached| format!("; no more, as {}", reached.words()));
        let then = match self.reclaim.stage() {
            Stage::Asked | Stage::Taking => "; more is being taken".to_owned(),
            Stage::Held(_) => format!("; given back in {:.0} s", left_s.unwrap_or(0.0)),
            Stage::Ended(end) => format!("; given back, as {}", end.words()),
        };
        won + &short + &then
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn status(resident: u64, ballooned: u64, compressed: u64, pool: u64) -> GuestStatus {
        let mut status = GuestStatus::default();
        let pages = |mib: u64| mib * MIB / PAGE_BYTES as u64;
        status.pager.resident_bytes = resident * MIB;
        status.pager.pool_bytes = pool * MIB;
        (status.pager.pages.ballooned, status.pager.pages.compressed) = (pages(ballooned), pages(compressed));
        status
    }

    #[test]
    fn what_was_won_is_told_by_what() {
        let (config, now) = (Config::default(), Instant::now());
        let mut guest = GuestInput::new(&config, 256 * MIB, 0);
        guest.usage.resident_bytes = 200 * MIB;
        let mut reclaiming = Reclaiming::new(64 * MIB, Duration::from_secs(60), now);
        reclaiming.look(now, &config, &guest, &status(200, 10, 20, 8));
        assert!(reclaiming.is_taking() && reclaiming.cap_bytes() == Some(136 * MIB));
        guest.usage.resident_bytes = 136 * MIB;
        reclaiming.look(now + Duration::from_secs(2), &config, &guest, &status(136, 50, 60, 24));
        let told = reclaiming.describe("web", now + Duration::from_secs(12));
        assert_eq!((told["state"].as_str(), told["why"].as_str()), (Some("held"), Some("all")));
        assert_eq!(told["won_bytes"], 64 * MIB);
        assert_eq!(
            (&told["won_by_bytes"]["balloon"], &told["won_by_bytes"]["compressed"]),
            (&(40 * MIB).into(), &(24 * MIB).into())
        );
        assert_eq!(
            told["text"],
            "64 MiB of 64 MiB reclaimed from web (by balloon 40 MiB, compressed 24 MiB); given back in 50 s"
        );
        // What happens to its pages later was not won by it.
        guest.usage.stall_ratio = 0.5;
        for second in [19, 20] {
            reclaiming.look(now + Duration::from_secs(second), &config, &guest, &status(130, 80, 60, 24));
        }
        let told = reclaiming.describe("web", now + Duration::from_secs(20));
        assert!(!reclaiming.is_on() && reclaiming.cap_bytes().is_none());
        assert_eq!(told["won_by_bytes"]["balloon"], 40 * MIB);
        assert!(told["text"].to_string().ends_with("; given back, as the guest waited for memory\""), "{told}");
    }
}
