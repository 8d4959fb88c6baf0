//! The kernel's compressed memory (zram), with devices of our own, and what makes a swap area of one.
//!
//! Settings are named, not made: whoever wants a device knows how to put it back when a signal ends the
//! process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use wire::swap_area::first_page;

const CONTROL: &str = "/sys/class/zram-control";

/// A file of the kernel's, and what to write to it.
pub type Setting = (PathBuf, String);

/// A device; it stays until somebody follows [`Zram::removal`].
#[derive(Clone, Debug)]
pub struct Zram {
    number: String,
}

impl Zram {
    /// A new one. An error where the kernel has no zram, or does not let us.
    pub fn add() -> io::Result<Zram> {
        // Reading it makes a device.
        let number = fs::read_to_string(Path::new(CONTROL).join("hot_add"))?;
        Ok(Zram { number: number.trim().to_owned() })
    }

    /// Where it is read and written.
    pub fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/zram{}", self.number))
    }

    /// Where it has its figures.
    pub fn statistics(&self) -> PathBuf {
        self.sys("mm_stat")
    }

    /// What has it take so many bytes of pages, with lz4; in order.
    pub fn sizing(&self, bytes: u64) -> [Setting; 2] {
        [(self.sys("comp_algorithm"), "lz4".into()), (self.sys("disksize"), bytes.to_string())]
    }

    /// What removes it, once nobody uses it; in order.
    pub fn removal(&self) -> [Setting; 2] {
        let remove = Path::new(CONTROL).join("hot_remove");
        [(self.sys("reset"), "1".into()), (remove, self.number.clone())]
    }

    fn sys(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/zram{}/{name}", self.number))
    }
}

/// Makes a swap area of a file or device of so many bytes.
pub fn make_swap_area(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(&first_page(bytes), 0)?;
    file.sync_all()
}
