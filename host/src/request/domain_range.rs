//! What `--domain` says: which guests may share with which. `NAME[=COUNT][:zero-pages-only]`, or
//! `none[=COUNT]` for guests that each share with themselves only.

use std::fmt;
use std::str::FromStr;

/// What guests that share with nobody else have in place of a domain's name.
pub const NONE: &str = "none";
const ZERO_PAGES_ONLY: &str = "zero-pages-only";
/// Longest name of a domain, bytes: a label of all its series.
const NAME_BYTES_MAX: usize = 64;

/// The next guests of a run, and what they may share with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRange {
    /// Their sharing domain; without one, each guest is its own.
    pub name: Option<String>,
    /// How many; without a number, all that are left.
    pub guests: Option<u32>,
    /// Only zero pages are dropped, nothing is shared.
    pub zero_pages_only: bool,
}

impl FromStr for DomainRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "{text:?} is no domain: give NAME, NAME=COUNT or NAME=COUNT:{ZERO_PAGES_ONLY}, with a name of letters, digits, \
                 '.', '_' and '-', or {NONE}"
            )
        };
        let (range, zero_pages_only) = match text.split_once(':') {
            Some((range, ZERO_PAGES_ONLY)) => (range, true),
            Some(_) => return Err(malformed()),
            None => (text, false),
        };
        let (name, guests) = match range.split_once('=') {
            Some((name, count)) => (name, Some(count.parse().map_err(|_| malformed())?)),
            None => (range, None),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_name) {
            return Err(malformed());
        }
        Ok(Self { name: (name != NONE).then(|| name.to_owned()), guests, zero_pages_only })
    }
}

impl fmt::Display for DomainRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or(NONE))?;
        self.guests.map_or(Ok(()), |guests| write!(f, "={guests}"))?;
        if self.zero_pages_only { write!(f, ":{ZERO_PAGES_ONLY}") } else { Ok(()) }
    }
}

/// The domain of a guest that shares with itself only. No other can have this name: the colon is not allowed
/// there.
pub(crate) fn own_domain(number: u32) -> String {
    format!("own:guest{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["web", "web=4", "db.eu-1=2:zero-pages-only", "none", "none=3", "none:zero-pages-only"] {
            assert_eq!(text.parse::<DomainRange>().unwrap().to_string(), text);
        }
        assert_eq!("none=3".parse::<DomainRange>().unwrap().name, None);
    }

    #[test]
    fn what_is_no_domain_is_answered_with_what_is() {
        for text in ["", "=4", "web=", "web=-1", "web=four", "we b", "web:zero", "web=1:", "a/b", &"x".repeat(65)] {
            let refusal = text.parse::<DomainRange>().unwrap_err();
            assert!(refusal.contains("NAME=COUNT"), "{refusal}");
        }
    }
}
