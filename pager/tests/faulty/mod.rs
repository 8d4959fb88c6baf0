//! A file layer that fails on purpose, over a file in memory.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{PAGE_BYTES, SlotFile};

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Writes fail with this error number.
    pub write_error: Option<i32>,
    /// Reads fail with this error number.
    pub read_error: Option<i32>,
    /// Reads panic.
    pub read_panic: bool,
    /// So many reads fail, or find a flipped bit, and then no more.
    pub failing_reads: Option<u32>,
    /// No call transfers more than this many bytes.
    pub most_bytes: Option<usize>,
    /// Every other call is interrupted by a signal.
    pub interrupted: bool,
    /// The lowest bit of this byte of each page is read wrongly.
    pub flipped_byte: Option<usize>,
    /// The file ends here.
    pub truncated_to: Option<u64>,
    /// Writes say that they wrote, and do not.
    pub lost_writes: bool,
}

#[derive(Default)]
struct State {
    content: Vec<u8>,
    faults: Faults,
    calls: u64,
    discarded: Vec<(u64, u64)>,
}

/// The file; clones are the same one.
#[derive(Clone, Default)]
pub struct FaultyFile(Arc<Mutex<State>>);

impl FaultyFile {
    /// A file of so many pages that works.
    pub fn new(pages: usize) -> FaultyFile {
        let file = FaultyFile::default();
        file.state().content = vec![0xee; pages * PAGE_BYTES];
        file
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this goes wrong and nothing else.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Changes what the disk holds.
    pub fn damage(&self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.state().content);
    }

    /// Offset and length of everything discarded so far.
    pub fn discarded(&self) -> Vec<(u64, u64)> {
        self.state().discarded.clone()
    }
}

impl State {
    /// How many bytes this call may transfer.
    fn begin(&mut self, bytes: usize, error: Option<i32>) -> io::Result<usize> {
        assert!(bytes.is_multiple_of(PAGE_BYTES), "direct I/O takes whole pages");
        self.calls += 1;
        if self.faults.interrupted && self.calls % 2 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        error.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))?;
        Ok(bytes.min(self.faults.most_bytes.unwrap_or(usize::MAX)))
    }

    /// Whether this read is to go wrong.
    fn fails_now(&mut self) -> bool {
        match &mut self.faults.failing_reads {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

impl SlotFile for FaultyFile {
    fn bytes(&self) -> u64 {
        self.state().content.len() as u64
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        assert!(into.as_ptr().addr().is_multiple_of(PAGE_BYTES) && offset.is_multiple_of(PAGE_BYTES as u64));
        let mut state = self.state();
        assert!(!state.faults.read_panic, "reading {} bytes at {offset}", into.len());
        let wrong = (state.faults.read_error.is_some() || state.faults.flipped_byte.is_some()) && state.fails_now();
        let error = state.faults.read_error.filter(|_| wrong);
        let most = state.begin(into.len(), error)?;
        let end = state.faults.truncated_to.unwrap_or(u64::MAX).min(state.content.len() as u64);
        let count = most.min(end.saturating_sub(offset) as usize);
        into[..count].copy_from_slice(&state.content[offset as usize..][..count]);
        if let Some(byte) = state.faults.flipped_byte.filter(|_| wrong) {
            into[..count].chunks_exact_mut(PAGE_BYTES).for_each(|page| page[byte] ^= 1);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        assert!(bytes.as_ptr().addr().is_multiple_of(PAGE_BYTES) && offset.is_multiple_of(PAGE_BYTES as u64));
        let mut state = self.state();
        let error = state.faults.write_error;
        let count = state.begin(bytes.len(), error)?;
        if !state.faults.lost_writes {
            state.content[offset as usize..][..count].copy_from_slice(&bytes[..count]);
        }
        Ok(count)
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        state.content[offset as usize..][..bytes as usize].fill(0xdd);
        state.discarded.push((offset, bytes));
        Ok(())
    }
}
