//! What lies in memory at the start, page by page: as it goes in, and as guests of one kernel share it.

use wire::{PAGE_BYTES, PageBytes};

use crate::{Boot, Write};

impl Boot<'_> {
    /// The pages that are not all zero, in order, each with its address.
    pub fn pages(&self) -> impl Iterator<Item = (u64, PageBytes)> {
        Pages { writes: &self.writes, done: 0 }
    }
}

struct Pages<'a> {
    /// Those that are not done; of the first one, perhaps a part is.
    writes: &'a [Write<'a>],
    /// All below this address is done.
    done: u64,
}

impl Pages<'_> {
    /// The page of the first byte that is not done.
    fn fill(&mut self) -> Option<(u64, PageBytes)> {
        let first = self.writes.first()?.gpa.max(self.done);
        let page = first - first % PAGE_BYTES as u64;
        let end = page + PAGE_BYTES as u64;
        let mut bytes = [0; PAGE_BYTES];
        while let [write, rest @ ..] = self.writes
            && write.gpa < end
        {
            let part = write.gpa.max(page)..write.end().min(end);
            let from = (part.start - write.gpa) as usize..(part.end - write.gpa) as usize;
            bytes[(part.start - page) as usize..(part.end - page) as usize].copy_from_slice(&write.bytes[from]);
            if write.end() > end {
                break;
            }
            self.writes = rest;
        }
        self.done = end;
        Some((page, bytes))
    }
}

impl Iterator for Pages<'_> {
    type Item = (u64, PageBytes);

    fn next(&mut self) -> Option<(u64, PageBytes)> {
        loop {
            let page = self.fill()?;
            if page.1 != [0; PAGE_BYTES] {
                return Some(page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_hold_what_the_writes_say_and_zeroes_elsewhere(
            parts in prop::collection::vec((0u64..5000, 1usize..9000), 0..8),
        ) {
            let (mut memory, mut writes, mut gpa) = (vec![0u8; 1 << 17], Vec::new(), 0);
            for (gap, length) in parts {
                gpa += gap;
                let bytes: Vec<u8> = (0..length).map(|nth| (gpa as usize + nth) as u8 | 1).collect();
                memory[gpa as usize..][..length].copy_from_slice(&bytes);
                writes.push(Write { gpa, bytes: bytes.into() });
                gpa += length as u64;
            }
            let mut found = vec![0u8; memory.len()];
            let mut last = None;
            for (page, bytes) in (Pages { writes: &writes, done: 0 }) {
                prop_assert!(last < Some(page) && bytes != [0; PAGE_BYTES]);
                last = Some(page);
                found[page as usize..][..PAGE_BYTES].copy_from_slice(&bytes);
            }
            prop_assert!(found == memory);
        }
    }
}
