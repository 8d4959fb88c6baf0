//! How much memory of this process is in memory, as the kernel counts it.

use std::{fs::File, io, os::unix::fs::FileExt};

use wire::PAGE_BYTES;

/// `/proc/self/statm` (`Documentation/filesystems/proc.rst`), kept open: a few microseconds a look.
pub struct Resident(File);

impl Resident {
    /// Of this process.
    pub fn open() -> io::Result<Resident> {
        File::open("/proc/self/statm").map(Resident)
    }

    /// Anonymous memory that is here, bytes: all that is resident but what belongs to files.
    pub fn anonymous_bytes(&self) -> io::Result<u64> {
        let mut line = [0; 128];
        let length = self.0.read_at(&mut line, 0)?;
        let strange = || io::Error::other("/proc/self/statm is not a line of numbers");
        let line = std::str::from_utf8(&line[..length]).map_err(|_| strange())?;
        let mut fields = line.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        let (Some(Ok(resident)), Some(Ok(shared))) = (fields.next(), fields.next()) else { return Err(strange()) };
        Ok(resident.saturating_sub(shared) * PAGE_BYTES as u64)
    }
}
