//! A list of buffers in guest memory, used up from the front.
//!
//! Where one buffer ends and the next begins means nothing (2.7.4.1), so a header may be cut in two, or share
//! a buffer with data. Here they are one string of bytes, of which pieces are taken: by [`Buffers::read`] and
//! [`Buffers::write`], or unread by [`Buffers::take`].

use std::collections::VecDeque;

use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

use crate::Error;

/// A piece of guest memory: it does not wrap around, and was there if its chain was checked for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub address: GuestAddress,
    /// How long it is.
    pub bytes: u32,
}

/// Pieces of guest memory in the driver's order, all for one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    parts: VecDeque<Part>,
    bytes: u64,
}

impl Buffers {
    pub(crate) fn push(&mut self, part: Part) {
        if part.bytes > 0 {
            self.bytes += u64::from(part.bytes);
            self.parts.push_back(part);
        }
    }

    /// Bytes that are left.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pieces that are left, none of them empty.
    pub fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        self.parts.iter().copied()
    }

    /// The first `bytes` of them, or all if there are fewer; they are no longer part of this.
    pub fn take(&mut self, bytes: u64) -> Buffers {
        let mut taken = Buffers::default();
        while let Some(part) = self.next(bytes - taken.bytes) {
            taken.push(part);
        }
        taken
    }

    /// Fills `into` from the front, as far as there is something; how far.
    pub fn read<M: GuestMemory>(&mut self, memory: &M, into: &mut [u8]) -> Result<usize, Error> {
        self.for_each(into.len(), |address, range| {
            memory.read_slice(&mut into[range], address).map_err(|source| Error::Memory { address, source })
        })
    }

    /// Writes `from` to the front, as far as there is room; how far.
    pub fn write<M: GuestMemory>(&mut self, memory: &M, from: &[u8]) -> Result<usize, Error> {
        self.for_each(from.len(), |address, range| {
            memory.write_slice(&from[range], address).map_err(|source| Error::Memory { address, source })
        })
    }

    fn for_each(
        &mut self,
        bytes: usize,
        mut with: impl FnMut(GuestAddress, std::ops::Range<usize>) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let mut done = 0;
        while let Some(part) = self.next((bytes - done) as u64) {
            let end = done + part.bytes as usize;
            with(part.address, done..end)?;
            done = end;
        }
        Ok(done)
    }

    /// What is in front, at most `most` bytes of it. None at the end, or if nothing is wanted.
    fn next(&mut self, most: u64) -> Option<Part> {
        let part = self.parts.front_mut().filter(|_| most > 0)?;
        let bytes = part.bytes.min(u32::try_from(most).unwrap_or(u32::MAX));
        let next = Part { address: part.address, bytes };
        // The part does not wrap around.
        part.address = part.address.unchecked_add(bytes.into());
        part.bytes -= bytes;
        if part.bytes == 0 {
            self.parts.pop_front();
        }
        self.bytes -= u64::from(bytes);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::GuestMemoryMmap;

    use super::*;

    const BYTES: usize = 0x1000;

    fn memory() -> GuestMemoryMmap<()> {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BYTES)]).unwrap()
    }

    fn buffers(parts: &[(u64, u32)]) -> Buffers {
        let mut buffers = Buffers::default();
        parts.iter().for_each(|&(address, bytes)| buffers.push(Part { address: GuestAddress(address), bytes }));
        buffers
    }

    #[test]
    fn a_piece_that_is_cut_in_two_is_read_as_one() {
        let memory = memory();
        memory.write_slice(b"head", GuestAddress(0x10)).unwrap();
        memory.write_slice(b"er and data", GuestAddress(0x80)).unwrap();
        let mut buffers = buffers(&[(0x10, 4), (0x20, 0), (0x80, 11)]);
        let mut header = [0; 6];
        assert_eq!((buffers.read(&memory, &mut header).unwrap(), &header), (6, b"header"));
        assert_eq!(buffers.bytes(), 9);
        let mut data = [0; 20];
        assert_eq!(buffers.read(&memory, &mut data).unwrap(), 9);
        assert_eq!((&data[..9], buffers.bytes()), (&b" and data"[..], 0));
    }

    proptest! {
        /// Exactly the bytes of the buffers, in their order, and no others.
        #[test]
        fn what_is_written_is_where_the_buffers_are_and_nowhere_else(
            lengths in prop::collection::vec(0u32..50, 0..20),
            skip in 0u64..200,
            data in prop::collection::vec(1u8..=255, 0..400),
        ) {
            let memory = memory();
            // Parts of 50 bytes at most, each 100 behind the one before.
            let parts: Vec<_> = lengths.iter().enumerate().map(|(nth, &bytes)| (nth as u64 * 100, bytes)).collect();
            let mut buffers = buffers(&parts);
            let all: u64 = lengths.iter().copied().map(u64::from).sum();
            let skipped = buffers.take(skip);
            prop_assert_eq!(skipped.bytes(), all.min(skip));
            prop_assert_eq!(buffers.bytes(), all - skipped.bytes());
            let written = buffers.write(&memory, &data).unwrap();
            prop_assert_eq!(written as u64, (all - skipped.bytes()).min(data.len() as u64));
            prop_assert_eq!(buffers.bytes(), all - skipped.bytes() - written as u64);

            let mut expected = vec![0; BYTES];
            let places = parts.iter().flat_map(|&(at, bytes)| at..at + u64::from(bytes)).skip(skipped.bytes() as usize);
            places.zip(&data).for_each(|(at, &byte)| expected[at as usize] = byte);
            let mut found = vec![0; BYTES];
            memory.read_slice(&mut found, GuestAddress(0)).unwrap();
            prop_assert!(found == expected);
        }
    }
}
