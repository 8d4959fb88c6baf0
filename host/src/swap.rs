//! Swap files: one for each guest, in the directory of `--swap`, without a name.

use std::path::Path;
use std::str::FromStr;

use pager::{SwapFile, SwapFileError};
use wire::PAGE_BYTES;

use crate::bytes::ByteCount;
use crate::config::SwapConfig;

/// `DIR`, or `DIR:SIZE`. What comes after the last colon is a size unless it has a slash.
impl FromStr for SwapConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (directory, bytes) = match text.rsplit_once(':').filter(|(_, size)| !size.contains('/')) {
            Some((directory, size)) => (directory, Some(size.parse::<ByteCount>()?.0)),
            None => (text, None),
        };
        if directory.is_empty() {
            return Err("give a directory, or a directory and a size: DIR:SIZE".into());
        }
        Ok(SwapConfig { directory: directory.into(), bytes })
    }
}

impl SwapConfig {
    /// What each guest's file may have of it, bytes: in proportion to its RAM, and not more than that.
    pub fn shares(&self, guests: &[u64]) -> Vec<u64> {
        let promised: u64 = guests.iter().sum();
        let all = u128::from(self.bytes.unwrap_or(promised));
        let page = PAGE_BYTES as u64;
        let share = |&ram: &u64| (all * u128::from(ram) / u128::from(promised.max(1))).min(u128::from(ram)) as u64;
        guests.iter().map(|ram| share(ram) / page * page).collect()
    }
}

/// Whether files of so many bytes together can be had in the directory; `Ok` says what is not as it should be.
pub fn check(directory: &Path, bytes: u64) -> Result<Option<String>, SwapFileError> {
    // One file in the place of all of them, gone at the end of this function.
    let file = SwapFile::create(directory, bytes)?;
    Ok(file.caveat().map(|caveat| format!("--swap {}: {caveat}", directory.display())))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config(text: &str) -> Result<(PathBuf, Option<u64>), String> {
        text.parse().map(|SwapConfig { directory, bytes }| (directory, bytes))
    }

    #[test]
    fn a_directory_may_be_followed_by_a_size() {
        assert_eq!(config("/var/tmp"), Ok(("/var/tmp".into(), None)));
        assert_eq!(config("/var/tmp:2G"), Ok(("/var/tmp".into(), Some(2 << 30))));
        assert_eq!(config("/mnt/a:b/c"), Ok(("/mnt/a:b/c".into(), None)));
        for text in ["", ":1G", "/var/tmp:", "/var/tmp:-1", "/var/tmp:1.5G", "/var/tmp:much"] {
            assert!(config(text).is_err(), "{text}");
        }
    }

    #[test]
    fn guests_share_the_size_by_their_ram_in_whole_pages_and_get_no_more_than_that() {
        let shares = |bytes, guests: &[u64]| SwapConfig { directory: "/".into(), bytes }.shares(guests);
        assert_eq!(shares(None, &[64 << 20, 32 << 20]), [64 << 20, 32 << 20]);
        assert_eq!(shares(Some(9000), &[64 << 20, 32 << 20]), [4096, 0]);
        assert_eq!(shares(Some(1 << 40), &[64 << 20, 32 << 20]), [64 << 20, 32 << 20]);
        assert!(shares(Some(u64::MAX), &[]).is_empty());
    }

    #[test]
    fn a_directory_without_room_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check(directory.path(), 1 << 20).is_ok());
        let error = check(directory.path(), 1 << 44).unwrap_err().to_string();
        assert!(error.contains(directory.path().to_str().unwrap()) && error.contains("no room"), "{error}");
    }
}
