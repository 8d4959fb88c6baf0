//! The swap file on a real disk: unlinked from the first moment, preallocated, past the page cache.
//!
//! ```text
//!   create:  O_TMPFILE (no name at all) --not known to the file system--> create, then unlink
//!            O_DIRECT                   --refused--> through the page cache; [`SwapFile::caveat`] says so
//!            fallocate                  --no room-----------------------> an error before any guest starts
//!            one page is written and read back: what does not work is found now
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl},
    sys::statfs::{TMPFS_MAGIC, fstatfs},
};
use wire::PAGE_BYTES;

use crate::sys::{PageBuffer, SlotFile};

/// Why there is no swap file; the message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SwapFileError {
    /// no such directory
    #[error("{}: no such directory; create it, on a disk with room for the guests", .0.display())]
    Missing(PathBuf),
    /// no directory
    #[error("{}: is no directory; give the directory that swap files are to be in", .0.display())]
    NoDirectory(PathBuf),
    /// the directory is not ours to write to
    #[error("{}: {source}; give a directory that this user may create files in, on a file system mounted for writing", directory.display())]
    Forbidden {
        /// Which.
        directory: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// the disk is too small
    #[error("{}: no room for a swap file of {bytes} B; free some, or give less with --swap DIR:SIZE", directory.display())]
    Full {
        /// Which.
        directory: PathBuf,
        /// What was asked for.
        bytes: u64,
    },
    /// something else
    #[error("{}: {doing} a swap file: {source}", directory.display())]
    Io {
        /// Which.
        directory: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

/// An open swap file.
#[derive(Debug)]
pub struct SwapFile {
    file: File,
    bytes: u64,
}

impl SwapFile {
    /// A file of `bytes` bytes (whole pages) in `directory`, with its room reserved, and without a name.
    pub fn create(directory: &Path, bytes: u64) -> Result<SwapFile, SwapFileError> {
        let failed = |doing| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::ENOENT) => SwapFileError::Missing(directory.into()),
                Some(libc::ENOTDIR) => SwapFileError::NoDirectory(directory.into()),
                Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                    SwapFileError::Forbidden { directory: directory.into(), source }
                }
                Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
                    SwapFileError::Full { directory: directory.into(), bytes }
                }
                _ => SwapFileError::Io { directory: directory.into(), doing, source },
            }
        };
        let file = nameless(directory, libc::O_DIRECT).or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => nameless(directory, 0),
            _ => Err(error),
        });
        let file = file.map_err(failed("creating"))?;
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        retry(|| fallocate(&file, FallocateFlags::empty(), 0, length)).map_err(failed("reserving room for"))?;
        let swap = SwapFile { file, bytes };
        match swap.works() {
            // Direct I/O in units larger than a page.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && swap.direct() => {
                let flags = OFlag::from_bits_retain(swap.flags() & !libc::O_DIRECT);
                fcntl(&swap.file, FcntlArg::F_SETFL(flags)).map_err(super::io_error).map_err(failed("opening"))?;
                swap.works().map_err(failed("trying"))?;
            }
            result => result.map_err(failed("trying"))?,
        }
        Ok(swap)
    }

    /// The file that another process of ours created and handed over.
    pub fn inherited(fd: OwnedFd) -> io::Result<SwapFile> {
        let file = File::from(fd);
        let bytes = file.metadata()?.len();
        Ok(SwapFile { file, bytes })
    }

    /// For another process of ours.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    /// What is not as it should be with the file system it is in.
    pub fn caveat(&self) -> Option<&'static str> {
        let kind = fstatfs(&self.file).map(|statfs| statfs.filesystem_type());
        match kind {
            Ok(TMPFS_MAGIC) => Some("is in memory itself: swapped pages take memory that is in no budget"),
            _ if !self.direct() => {
                Some("refuses direct I/O: swapped pages are in the host's page cache too, which is in no budget")
            }
            _ => None,
        }
    }

    /// Whether pages go to the disk directly.
    pub fn direct(&self) -> bool {
        self.flags() & libc::O_DIRECT != 0
    }

    fn flags(&self) -> i32 {
        fcntl(&self.file, FcntlArg::F_GETFL).unwrap_or(0)
    }

    fn works(&self) -> io::Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let mut page = PageBuffer::new(1)?;
        page.page_mut(0).fill(0x5a);
        let whole = |count| if count == PAGE_BYTES { Ok(()) } else { Err(io::Error::other("it takes no whole page")) };
        self.write_at(page.bytes(0, 1), 0).and_then(whole)?;
        page.page_mut(0).fill(0);
        self.read_at(page.bytes_mut(0, 1), 0).and_then(whole)?;
        if page.page(0) != &[0x5a; PAGE_BYTES] {
            return Err(io::Error::other("it reads other bytes than were written"));
        }
        self.discard(0, PAGE_BYTES as u64)
    }
}

/// Opens a file that has no name.
fn nameless(directory: &Path, flags: i32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(libc::O_TMPFILE | flags).open(directory);
    match unnamed {
        // EISDIR: a kernel file system that never heard of O_TMPFILE.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            unlinked(options.create_new(true).custom_flags(flags), directory)
        }
        result => result,
    }
}

/// Creates a file and takes its name away; the name is there for that moment only.
fn unlinked(options: &OpenOptions, directory: &Path) -> io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".ballast-swap-{}-{number}", std::process::id()));
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn retry(mut step: impl FnMut() -> nix::Result<()>) -> io::Result<()> {
    loop {
        match step() {
            Err(Errno::EINTR) => {}
            result => return result.map_err(super::io_error),
        }
    }
}

impl SlotFile for SwapFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let (offset, bytes) = (offset as i64, bytes as i64);
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        retry(|| fallocate(&self.file, punch, offset, bytes))?;
        // Reserved again at once. Somebody else may have been faster; then writes there fail, and pages stay
        // in memory.
        let _ = retry(|| fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_swap_file_has_its_room_and_no_name_and_gives_back_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = SwapFile::create(directory.path(), 1 << 20).unwrap();
        assert_eq!((file.bytes(), entries(directory.path())), (1 << 20, 0));
        let blocks = |file: &SwapFile| std::os::unix::fs::MetadataExt::blocks(&file.file.metadata().unwrap()) * 512;
        assert!(blocks(&file) >= 1 << 20);
        let mut buffer = PageBuffer::new(2).unwrap();
        buffer.page_mut(1).fill(7);
        assert_eq!(file.write_at(buffer.bytes(0, 2), 8192).unwrap(), 8192);
        buffer.page_mut(1).fill(0);
        assert_eq!(file.read_at(buffer.bytes_mut(0, 2), 8192).unwrap(), 8192);
        assert_eq!(buffer.page(1), &[7; PAGE_BYTES]);
        file.discard(0, 1 << 20).unwrap();
        file.read_at(buffer.bytes_mut(0, 2), 8192).unwrap();
        assert_eq!(buffer.page(1), &[0; PAGE_BYTES], "it was given back");
        assert!(blocks(&file) >= 1 << 20, "and is reserved again");
    }

    #[test]
    fn without_unnamed_files_the_name_is_gone_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = OpenOptions::new();
        let file = unlinked(options.read(true).write(true).create_new(true), directory.path()).unwrap();
        file.write_at(&[1], 0).unwrap();
        assert_eq!(entries(directory.path()), 0);
    }

    #[test]
    fn a_directory_that_is_none_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let error = SwapFile::create(&missing, 4096).unwrap_err();
        assert!(matches!(&error, SwapFileError::Missing(path) if *path == missing), "{error}");
        std::fs::write(&missing, "").unwrap();
        let error = SwapFile::create(&missing, 4096).unwrap_err();
        assert!(matches!(&error, SwapFileError::NoDirectory(path) if *path == missing), "{error}");
    }

    #[test]
    fn a_file_larger_than_the_disk_is_refused_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let error = SwapFile::create(directory.path(), 1 << 44).unwrap_err();
        assert!(matches!(error, SwapFileError::Full { bytes, .. } if bytes == 1 << 44), "{error}");
        assert_eq!(entries(directory.path()), 0);
    }
}
