//! Sizes as people write them: `512MiB`, `1G`, plain bytes. All suffixes count in 1024s.

use std::fmt;
use std::str::FromStr;

const SUFFIXES: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

/// A number of bytes, read from and shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// For figures that change all the time: whole MiB.
    pub fn rounded(bytes: u64) -> String {
        format!("{} MiB", bytes.saturating_add(1 << 19) >> 20)
    }
}

impl FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("{text:?} is no size: give a whole number of bytes, or of KiB, MiB, GiB, TiB (512MiB, 1G)");
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, suffix) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let unit = match suffix {
            "" | "B" => 1,
            _ => {
                let known = |name: &str| suffix == name || suffix.strip_prefix(name) == Some("iB");
                SUFFIXES.iter().find(|(name, _)| known(name)).ok_or_else(malformed)?.1
            }
        };
        number.checked_mul(unit).map(ByteCount).ok_or_else(|| format!("{text:?} is more than 2^64 bytes"))
    }
}

/// Exact where a unit divides the number, otherwise with one decimal.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match SUFFIXES.iter().find(|&&(_, unit)| self.0 >= unit) {
            None => format!("{} B", self.0),
            Some((name, unit)) if self.0.is_multiple_of(*unit) => format!("{} {name}iB", self.0 / unit),
            Some((name, unit)) => format!("{:.1} {name}iB", self.0 as f64 / *unit as f64),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn suffixes_count_in_1024s() {
        for (text, bytes) in
            [("4096", 4096), ("1B", 1), ("3K", 3 << 10), ("512MiB", 512 << 20), ("1G", 1 << 30), ("2TiB", 2 << 40)]
        {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_of_bytes_is_refused() {
        for text in ["", "MiB", "-1", "+1", "1.5G", "1 G", "12MB", "1iB", "1GiBiB", "99999999999999999999", "20000000T"]
        {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_see_the_largest_unit_that_fits() {
        let shown = [0, 1023, 768 << 20, 1 << 30, 1500 << 20].map(|bytes| ByteCount(bytes).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "768 MiB", "1 GiB", "1.5 GiB"]);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = text.parse::<ByteCount>();
        }

        #[test]
        fn plain_bytes_are_read_back(bytes: u64) {
            prop_assert_eq!(bytes.to_string().parse(), Ok(ByteCount(bytes)));
        }
    }
}
