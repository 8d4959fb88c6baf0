//! Taps of Linux guests: interfaces of the host that others made, and connected to what they like.

use std::fmt;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use net::Tap;

use crate::error::Error;

/// A tap as asked for: `tap=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRequest {
    /// Its name.
    pub name: String,
}

impl FromStr for TapRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("tap=").filter(|name| !name.is_empty());
        let name = name.ok_or("give a tap that there is: tap=NAME (ip tuntap add dev NAME mode tap)")?;
        Ok(TapRequest { name: name.into() })
    }
}

impl fmt::Display for TapRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tap={}", self.name)
    }
}

impl TapRequest {
    /// Opens it for one VMM.
    pub(crate) fn open(&self) -> Result<File, Error> {
        Ok(Tap::open(&self.name)?.into_file())
    }

    /// The guest's address on it: locally administered, the same for this tap of this machine at every start.
    pub(crate) fn mac(&self) -> [u8; 6] {
        let mut hasher = DefaultHasher::new();
        (fs::read("/etc/machine-id").unwrap_or_default(), &self.name).hash(&mut hasher);
        let [a, b, c, d, e, ..] = hasher.finish().to_le_bytes();
        [2, a, b, c, d, e]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_named_and_gives_its_guest_an_address_of_its_own() {
        let tap = |text: &str| text.parse::<TapRequest>();
        let (first, second) = (tap("tap=vm0").unwrap(), tap("tap=vm1").unwrap());
        assert_eq!((first.name.as_str(), first.mac(), first.mac()[0]), ("vm0", first.mac(), 2));
        assert_ne!(first.mac(), second.mac());
        assert!(tap("vm0").is_err() && tap("tap=").is_err());
        let missing = tap("tap=no-such-tap").unwrap().open().unwrap_err().to_string();
        assert!(missing.contains("--net tap no-such-tap: there is none; make it with"), "{missing}");
    }
}
