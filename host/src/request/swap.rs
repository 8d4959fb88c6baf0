//! Swap files: one for each guest, in the directory of `--swap`, without a name.
//!
//! They are what makes the difference between a guest that is slow and one that ends: memory that does not
//! compress has nowhere else to go. So there are some unless somebody says `off`, in a place that every Linux
//! has, as long as that costs nobody anything.

use std::path::Path;
use std::str::FromStr;

use pager::{SwapFile, SwapFileError};
use wire::PAGE_BYTES;

use crate::bytes::ByteCount;
use crate::config::{SWAP_DIRECTORY, SwapChoice, SwapConfig};

/// Part of a file system that stays free of files that nobody asked for: root of ext4 has as much to itself.
const ROOM_DIVISOR: u64 = 20;

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

/// `auto`, `off`, or where.
impl FromStr for SwapChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(SwapChoice::Auto),
            "off" => Ok(SwapChoice::Off),
            _ => text.parse().map(SwapChoice::In),
        }
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

/// Where the files of guests with so much RAM each are, and what is to be said of that.
pub fn settle(choice: SwapChoice, guests: &[u64]) -> Result<(SwapChoice, Option<String>), SwapFileError> {
    match choice {
        SwapChoice::Off => Ok((SwapChoice::Off, None)),
        SwapChoice::In(config) => {
            let caveat = check(&config.directory, config.shares(guests).iter().sum())?;
            let note = caveat.map(|caveat| format!("--swap {}: {caveat}", config.directory.display()));
            Ok((SwapChoice::In(config), note))
        }
        SwapChoice::Auto => Ok(by_default(Path::new(SWAP_DIRECTORY), guests)),
    }
}

/// The same where nobody has said anything: files only if they do no harm.
fn by_default(directory: &Path, guests: &[u64]) -> (SwapChoice, Option<String>) {
    let bytes = guests.iter().sum::<u64>();
    let shown = directory.display();
    let why_not =
        match leaves_room(directory, bytes).and_then(|()| check(directory, bytes).map_err(|error| error.to_string())) {
            Ok(None) => {
                let note = format!("swap files of {} in {shown}; --swap off for none", ByteCount::rounded(bytes));
                let config = SwapConfig { directory: directory.into(), bytes: None };
                return (SwapChoice::In(config), Some(note));
            }
            Ok(Some(caveat)) => format!("{shown} {caveat}"),
            Err(error) => error,
        };
    let note =
        format!("no swap files: {why_not}. What does not compress stays in memory; --swap DIR for another directory");
    (SwapChoice::Off, Some(note))
}

/// Whether there is room for files of so many bytes that nobody asked for.
fn leaves_room(directory: &Path, bytes: u64) -> Result<(), String> {
    let shown = directory.display();
    let of = rustix::fs::statvfs(directory).map_err(|error| format!("{shown}: {error}"))?;
    let (all, free) = (of.f_blocks * of.f_frsize, of.f_bavail * of.f_frsize);
    let needed = bytes.saturating_add(all / ROOM_DIVISOR);
    if free >= needed {
        return Ok(());
    }
    let (free, needed, bytes) = (ByteCount::rounded(free), ByteCount::rounded(needed), ByteCount::rounded(bytes));
    Err(format!("{shown} has {free} free, of {needed} for files of {bytes} and a twentieth of the disk to spare"))
}

/// Whether files of so many bytes together can be had in the directory; `Ok` says what is not as it should
/// be.
pub fn check(directory: &Path, bytes: u64) -> Result<Option<&'static str>, SwapFileError> {
    // One file in the place of all of them, gone at the end of this function.
    Ok(SwapFile::create(directory, bytes)?.caveat())
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
    fn whether_there_are_files_may_be_left_open() {
        assert_eq!("auto".parse(), Ok(SwapChoice::Auto));
        assert_eq!("off".parse(), Ok(SwapChoice::Off));
        assert_eq!("./off".parse(), Ok(SwapChoice::In(SwapConfig { directory: "./off".into(), bytes: None })));
    }

    #[test]
    fn files_that_nobody_asked_for_are_only_where_they_do_no_harm_and_one_line_says_so() {
        let lines = |directory: &str, bytes: u64| {
            let (choice, note) = by_default(Path::new(directory), &[bytes]);
            let note = note.unwrap();
            assert_eq!(note.lines().count(), 1, "{note}");
            (choice, note)
        };
        // Memory, and a kernel that knows no direct I/O for it, or one that does.
        let (choice, note) = lines("/dev/shm", 1 << 20);
        assert_eq!(choice, SwapChoice::Off);
        assert!(note.starts_with("no swap files: /dev/shm "), "{note}");
        let (choice, note) = lines("/var/tmp", 1 << 50);
        assert_eq!(choice, SwapChoice::Off);
        assert!(note.contains("/var/tmp has") && note.contains("a twentieth of the disk to spare"), "{note}");
        let (choice, note) = lines("/nowhere", 1 << 20);
        assert_eq!(choice, SwapChoice::Off);
        assert!(note.contains("/nowhere: No such file"), "{note}");
        let asked_for = SwapChoice::In(SwapConfig { directory: "/nowhere".into(), bytes: None });
        assert!(settle(asked_for, &[1 << 20]).is_err(), "what was asked for is had or nothing starts");
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
