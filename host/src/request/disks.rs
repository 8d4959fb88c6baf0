//! Disks of Linux guests: raw files and block devices, opened here and locked for as long as a VMM has them.
//!
//! ```text
//!   read-write   an exclusive lock (flock), a block device opened for this use alone (O_EXCL)
//!   read-only    a shared lock: any number of guests may have it, as long as nobody writes
//! ```
//!
//! The lock is the descriptor's: it goes to the VMM with it, and is gone when that ends, however that comes.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use wire::block::SECTOR_BYTES;

use crate::error::Error;

/// A disk as asked for: `FILE`, or `FILE:ro`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRequest {
    /// A raw file or a block device.
    pub path: PathBuf,
    /// Whether guests may only read it.
    pub read_only: bool,
}

impl FromStr for DiskRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, read_only) = text.strip_suffix(":ro").map_or((text, false), |path| (path, true));
        if path.is_empty() {
            return Err("give a raw file or a block device: FILE, or FILE:ro to only read it".into());
        }
        Ok(DiskRequest { path: path.into(), read_only })
    }
}

impl fmt::Display for DiskRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path.display(), if self.read_only { ":ro" } else { "" })
    }
}

impl DiskRequest {
    /// Opens it for one VMM.
    pub(crate) fn open(&self) -> Result<File, Error> {
        let refused = |why: String| Error::Disk { disk: self.to_string(), why };
        let system = |error: std::io::Error| refused(format!("{error}; give a raw file or a block device"));
        let in_use = || {
            let way_out =
                if self.read_only { "nobody may write to it" } else { "give it :ro to all, or each a file of its own" };
            refused(format!("in use by another guest or program; {way_out}"))
        };
        let kind = std::fs::metadata(&self.path).map_err(system)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(refused("neither a file nor a block device".into()));
        }
        let alone = if kind.is_block_device() && !self.read_only { OFlags::EXCL } else { OFlags::empty() };
        let opened =
            OpenOptions::new().read(true).write(!self.read_only).custom_flags(alone.bits() as i32).open(&self.path);
        let mut file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::BUSY) => in_use(),
            _ => system(error),
        })?;
        let lock = if self.read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        flock(&file, lock).map_err(|errno| if errno == Errno::WOULDBLOCK { in_use() } else { system(errno.into()) })?;
        // Block devices say 0 in their metadata.
        let bytes = file.seek(SeekFrom::End(0)).map_err(system)?;
        if bytes < SECTOR_BYTES {
            return Err(refused(format!(
                "{bytes} bytes are less than a sector of {SECTOR_BYTES}; make it larger: truncate -s 1G"
            )));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_file_and_how_it_may_be_used() {
        let read = |text: &str| text.parse().map(|DiskRequest { path, read_only }| (path, read_only));
        assert_eq!(read("a:b.img"), Ok(("a:b.img".into(), false)));
        assert_eq!(read("a.img:ro"), Ok(("a.img".into(), true)));
        assert!(read(":ro").is_err() && read("").is_err());
    }

    #[test]
    fn who_writes_is_alone_and_readers_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        File::create(&path).unwrap().set_len(512).unwrap();
        let [writable, readable] = [false, true].map(|read_only| DiskRequest { path: path.clone(), read_only });
        let refusal = |disk: &DiskRequest| disk.open().map(drop).unwrap_err().to_string();
        let readers = [readable.open().unwrap(), readable.open().unwrap()];
        assert!(refusal(&writable).contains("in use") && refusal(&writable).contains(":ro"));
        drop(readers);
        let _writer = writable.open().unwrap();
        assert!(refusal(&writable).contains("in use") && refusal(&readable).contains("nobody may write"));
    }

    #[test]
    fn what_is_no_disk_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let refusal = |path: PathBuf| DiskRequest { path, read_only: true }.open().map(drop).unwrap_err().to_string();
        assert!(refusal(path.clone()).starts_with(&format!("--disk {}:ro: No such file", path.display())));
        File::create(&path).unwrap().set_len(511).unwrap();
        assert!(refusal(path).contains("511 bytes are less than a sector"));
        assert!(refusal(folder.path().into()).contains("neither a file nor a block device"));
    }
}
