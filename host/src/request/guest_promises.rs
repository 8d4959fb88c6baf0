//! What a guest is promised of the host's memory: at the start by `--guest`, later by `ballast guest set`;
//! checked alike.

use std::str::FromStr;

use crate::bytes::ByteCount;
use crate::request::overhead::{least_bytes, most_bytes};

/// Largest shares: a thousand times the default.
pub const SHARES_MAX: u32 = 1_000_000;

/// What a guest was promised beyond the defaults, which are by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// Its weight.
    pub shares: u32,
    /// What it is certain of, bytes.
    pub reservation_bytes: Option<u64>,
    /// What it never gets more of, bytes.
    pub limit_bytes: Option<u64>,
}

impl Default for Promises {
    fn default() -> Self {
        Promises { shares: policy::SHARES_DEFAULT, reservation_bytes: None, limit_bytes: None }
    }
}

impl Promises {
    /// Whether a guest with so much RAM can be promised that; otherwise, what is allowed.
    pub fn check(&self, memory_bytes: u64) -> Result<(), String> {
        let (least, most) = (least_bytes(memory_bytes), most_bytes(memory_bytes));
        let &Promises { shares, reservation_bytes, limit_bytes } = self;
        if !(1..=SHARES_MAX).contains(&shares) {
            return Err(format!("shares from 1 to {SHARES_MAX}; {} is the default", policy::SHARES_DEFAULT));
        }
        if limit_bytes.is_some_and(|limit| !(least..=most).contains(&limit)) {
            return Err(format!(
                "limits from {} to {} (its RAM and what its VMM costs)",
                ByteCount(least),
                ByteCount(most)
            ));
        }
        if reservation_bytes.is_some_and(|reservation| !(least..=limit_bytes.unwrap_or(most)).contains(&reservation)) {
            let upper = if limit_bytes.is_some() { "its limit" } else { "its RAM and what its VMM costs" };
            let most = limit_bytes.unwrap_or(most);
            return Err(format!("reservations from {} to {} ({upper})", ByteCount(least), ByteCount(most)));
        }
        Ok(())
    }

    /// The promises after a change.
    pub fn with(&self, change: &PromiseChange) -> Promises {
        Promises {
            shares: change.shares.unwrap_or(self.shares),
            reservation_bytes: change.reservation_bytes.or(self.reservation_bytes),
            limit_bytes: change.limit_bytes.or(self.limit_bytes),
        }
    }
}

/// What is to be changed of a guest's promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromiseChange {
    /// Its weight.
    pub shares: Option<u32>,
    /// What it is certain of, bytes.
    pub reservation_bytes: Option<u64>,
    /// What it never gets more of, bytes.
    pub limit_bytes: Option<u64>,
}

/// One of `shares=2000`, `reservation=64MiB`, `limit=128MiB`.
impl FromStr for PromiseChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text:?} is no promise: give shares=2000, reservation=64MiB or limit=128MiB");
        let (key, value) = text.split_once('=').ok_or_else(malformed)?;
        let bytes = || value.parse().map(|ByteCount(bytes)| Some(bytes)).map_err(|_| malformed());
        let mut change = PromiseChange::default();
        match key {
            "shares" => change.shares = Some(value.parse().map_err(|_| malformed())?),
            "reservation" => change.reservation_bytes = bytes()?,
            "limit" => change.limit_bytes = bytes()?,
            _ => return Err(malformed()),
        }
        Ok(change)
    }
}

impl PromiseChange {
    /// Both changes; an error says what both want to change.
    pub fn and(self, other: PromiseChange) -> Result<PromiseChange, String> {
        let twice = |what: &str| Err(format!("{what} is given twice"));
        match (self, other) {
            (PromiseChange { shares: Some(_), .. }, PromiseChange { shares: Some(_), .. }) => twice("shares"),
            (PromiseChange { reservation_bytes: Some(_), .. }, PromiseChange { reservation_bytes: Some(_), .. }) => {
                twice("reservation")
            }
            (PromiseChange { limit_bytes: Some(_), .. }, PromiseChange { limit_bytes: Some(_), .. }) => twice("limit"),
            _ => Ok(PromiseChange {
                shares: self.shares.or(other.shares),
                reservation_bytes: self.reservation_bytes.or(other.reservation_bytes),
                limit_bytes: self.limit_bytes.or(other.limit_bytes),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(words: &[&str]) -> Result<PromiseChange, String> {
        words.iter().try_fold(PromiseChange::default(), |all, word| all.and(word.parse()?))
    }

    #[test]
    fn a_change_is_given_word_by_word() {
        let all = change(&["shares=2000", "limit=128MiB", "reservation=64MiB"]).unwrap();
        let promises = Promises::default().with(&all);
        assert_eq!(
            (promises.shares, promises.limit_bytes, promises.reservation_bytes),
            (2000, Some(128 << 20), Some(64 << 20))
        );
        assert_eq!(promises.with(&change(&["shares=5"]).unwrap()), Promises { shares: 5, ..promises });
        for (words, complaint) in [
            (&["shares"][..], "is no promise: give shares=2000"),
            (&["shares=-1"], "\"shares=-1\" is no promise"),
            (&["limit=much"], "is no promise"),
            (&["weight=3"], "is no promise"),
            (&["shares=1", "shares=2"], "shares is given twice"),
        ] {
            let refusal = change(words).unwrap_err();
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }
}
