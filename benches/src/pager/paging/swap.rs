//! Swap devices for the kernel: compressed memory (zram) and a file.
//!
//! Both are there only while a [`Swap`] is. The kernel has one list of swap devices for the whole machine, so
//! nobody else may be short of memory meanwhile; pages of others do not leave memory unless they are.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::{FallocateFlags, fallocate};
use peers::zram::{Zram, make_swap_area};

use crate::kit::{
    error::Error,
    settings::{self, Step, Undo},
};

/// `SWAP_FLAG_PREFER`, with the priority in the low bits (`swapon(2)`).
const PREFER: i32 = 0x8000;

/// A swap device in use; dropping it takes it out of use, and removes it.
pub struct Swap {
    zram: Option<Zram>,
    _undo: Undo,
}

impl Swap {
    /// zram with lz4 that takes so many bytes of pages; priority 100: before all files.
    pub fn zram(bytes: u64) -> Result<Swap, Error> {
        let zram = Zram::add().map_err(|source| Error::NoZram { source })?;
        let removal = zram.removal().map(|(path, value)| Step::Write(path, value));
        let undo = Undo::register([Step::SwapOff(zram.node())].into_iter().chain(removal).collect());
        zram.sizing(bytes).iter().try_for_each(|(path, value)| settings::change(path, value))?;
        swap_on(&zram.node(), bytes, 100)?;
        Ok(Swap { zram: Some(zram), _undo: undo })
    }

    /// A file of so many bytes in `directory`; priority 1.
    pub fn file(directory: &Path, bytes: u64) -> Result<Swap, Error> {
        let path = directory.join(format!("ballast-bench-{}.swap", std::process::id()));
        let undo = Undo::register(vec![Step::SwapOff(path.clone()), Step::RemoveFile(path.clone())]);
        let file = File::create_new(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes as i64).map_err(Error::system("reserving a swap file"))?;
        drop(file);
        swap_on(&path, bytes, 1)?;
        Ok(Swap { zram: None, _undo: undo })
    }

    /// Memory it takes, bytes: what zram's allocator has, waste and all (`mem_used_total`).
    pub fn memory_bytes(&self) -> u64 {
        self.statistics().and_then(|path| zram_bytes(&path)).map_or(0, |(_, used)| used)
    }

    /// Where a zram device has its figures.
    pub fn statistics(&self) -> Option<PathBuf> {
        self.zram.as_ref().map(Zram::statistics)
    }
}

/// Of a zram device, whose `mm_stat` this is: the pages it has, and the memory they take, bytes
/// (`Documentation/admin-guide/blockdev/zram.rst`).
pub fn zram_bytes(mm_stat: &Path) -> Option<(u64, u64)> {
    let statistics = fs::read_to_string(mm_stat).ok()?;
    let mut fields = statistics.split_whitespace();
    Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

/// Makes a swap area of a file or device, and has the kernel use it.
fn swap_on(path: &Path, bytes: u64, priority: i32) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    make_swap_area(path, bytes).map_err(failed)?;
    let name = settings::c_path(path);
    // SAFETY: the path is a string that ends with 0.
    match unsafe { libc::swapon(name.as_ptr(), PREFER | priority) } {
        0 => Ok(()),
        _ => Err(failed(io::Error::last_os_error())),
    }
}
