//! The file layer: what the swap tier asks of a disk. [`crate::sys::SwapFile`] is the real one; tests have
//! one that fails on purpose.

use std::io;

/// A file of fixed length, read and written by several threads at once. As `pread` and `pwrite`: a call may
/// be short.
///
/// Buffers begin at a multiple of the page size, in memory and in the file, and are whole pages long.
pub trait SlotFile: Send + Sync {
    /// Its length.
    fn bytes(&self) -> u64;
    /// Reads from `offset` on; gives how many bytes, 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes from `offset` on; gives how many bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Gives back what `bytes` bytes from `offset` on hold. They read as anything afterwards, and stay
    /// reserved as far as the file system can.
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()>;
}
