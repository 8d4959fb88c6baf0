//! The compressed pool: a slab allocator over one arena, for pieces of 64 B to 3 KiB.
//!
//! ```text
//!   arena   | slab 0 (16 KiB) | slab 1 | ...          a slab holds pieces of one size class, or is free and costs nothing
//!   slab    | piece | piece | ... |                   classes: multiples of 128 B up to 3072
//!   piece   | length: u16 | bytes ... |
//!   slot    = slab number × 256 + piece number        what the page-state table remembers
//! ```
//!
//! A slab whose last piece is freed goes back to the kernel at once. Internal waste is at most 128 B a piece.

use std::io;

use crate::units::PAGE_BYTES;

/// Bytes of a slab: large enough for five of the largest pieces, small enough to empty out soon.
pub const SLAB_BYTES: usize = 4 * PAGE_BYTES;
/// Pages (and credits) of a slab.
pub const SLAB_PAGES: i64 = (SLAB_BYTES / PAGE_BYTES) as i64;
/// Largest compressed page worth storing, bytes; above it, less than a quarter would be saved.
pub const COMPRESSED_BYTES_MAX: usize = CLASS_BYTES * CLASSES - LENGTH_BYTES;

const CLASS_BYTES: usize = 128;
const CLASSES: usize = 24;
const LENGTH_BYTES: usize = 2;
/// Pieces of the smallest class in a slab, rounded to what a slot number's low byte and the bitmap hold.
const PIECES_MAX: usize = SLAB_BYTES / CLASS_BYTES;

/// Memory the pool may spread over. Slabs that were released read as anything and cost nothing.
pub trait Arena: Send {
    /// Bytes, a multiple of [`SLAB_BYTES`].
    fn bytes(&self) -> usize;
    /// The `length` bytes from `start` on.
    fn slice(&self, start: usize, length: usize) -> &[u8];
    /// The same, to write to.
    fn slice_mut(&mut self, start: usize, length: usize) -> &mut [u8];
    /// Has the kernel back these bytes with memory, or say that there is none: memory that is promised but not there would be
    /// found out by a signal.
    fn commit(&mut self, start: usize, length: usize) -> io::Result<()>;
    /// Gives memory back to the kernel.
    fn release(&mut self, start: usize, length: usize);
}

#[derive(Clone, Default)]
struct Slab {
    class: u8,
    used: u16,
    bitmap: [u64; PIECES_MAX / 64],
}

/// Compressed pages by slot.
pub struct Pool {
    arena: Box<dyn Arena>,
    slabs: Vec<Slab>,
    /// Slabs with a free piece, by class.
    partial: [Vec<u32>; CLASSES],
    /// Slabs in use, by class.
    of_class: [usize; CLASSES],
    free: Vec<u32>,
    in_use: usize,
}

/// The pool's arena is full, or the kernel has no memory for another slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

fn class_of(length: usize) -> usize {
    (length + LENGTH_BYTES).div_ceil(CLASS_BYTES) - 1
}

fn piece_bytes(class: usize) -> usize {
    (class + 1) * CLASS_BYTES
}

fn pieces(class: usize) -> usize {
    SLAB_BYTES / piece_bytes(class)
}

impl Pool {
    /// An empty pool over `arena`.
    pub fn new(arena: Box<dyn Arena>) -> Pool {
        Pool {
            arena,
            slabs: Vec::new(),
            partial: Default::default(),
            of_class: [0; CLASSES],
            free: Vec::new(),
            in_use: 0,
        }
    }

    /// Bytes of the slabs in use.
    pub fn bytes(&self) -> u64 {
        (self.in_use * SLAB_BYTES) as u64
    }

    /// Whether storing `length` bytes would take a new slab.
    pub fn needs_slab(&self, length: usize) -> bool {
        self.partial[class_of(length)].is_empty()
    }

    /// Stores `bytes` (at most [`COMPRESSED_BYTES_MAX`]) and gives their slot.
    pub fn store(&mut self, bytes: &[u8]) -> Result<u64, Full> {
        let class = class_of(bytes.len());
        let slab = match self.partial[class].last() {
            Some(&slab) => slab,
            None => self.new_slab(class)?,
        };
        let meta = &mut self.slabs[slab as usize];
        let piece = free_piece(&meta.bitmap);
        meta.bitmap[piece / 64] |= 1 << (piece % 64);
        meta.used += 1;
        if usize::from(meta.used) == pieces(class) {
            self.partial[class].pop();
        }
        let start = slab as usize * SLAB_BYTES + piece * piece_bytes(class);
        let target = self.arena.slice_mut(start, LENGTH_BYTES + bytes.len());
        target[..LENGTH_BYTES].copy_from_slice(&(bytes.len() as u16).to_le_bytes());
        target[LENGTH_BYTES..].copy_from_slice(bytes);
        Ok(u64::from(slab) << 8 | piece as u64)
    }

    fn new_slab(&mut self, class: usize) -> Result<u32, Full> {
        let slab = match self.free.last() {
            Some(&slab) => slab,
            None if (self.slabs.len() + 1) * SLAB_BYTES <= self.arena.bytes() => self.slabs.len() as u32,
            None => return Err(Full),
        };
        self.slabs.try_reserve(1).map_err(|_| Full)?;
        // Room for every slab's number in each list it can come to: freeing is the fault thread's, and must not allocate.
        let partial = &mut self.partial[class];
        partial.try_reserve(self.of_class[class] + 1 - partial.len()).map_err(|_| Full)?;
        self.free.try_reserve(self.slabs.len() + 1 - self.free.len()).map_err(|_| Full)?;
        self.arena.commit(slab as usize * SLAB_BYTES, SLAB_BYTES).map_err(|_| Full)?;
        if self.free.pop().is_none() {
            self.slabs.push(Slab::default());
        }
        self.slabs[slab as usize] = Slab { class: class as u8, ..Slab::default() };
        self.partial[class].push(slab);
        self.of_class[class] += 1;
        self.in_use += 1;
        Ok(slab)
    }

    /// The bytes in `slot`.
    pub fn get(&self, slot: u64) -> &[u8] {
        let (slab, piece) = ((slot >> 8) as usize, (slot & 0xff) as usize);
        let start = slab * SLAB_BYTES + piece * piece_bytes(usize::from(self.slabs[slab].class));
        let length = self.arena.slice(start, LENGTH_BYTES);
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        self.arena.slice(start + LENGTH_BYTES, length)
    }

    /// Frees `slot`; gives back how many slabs that emptied (0 or 1).
    pub fn free(&mut self, slot: u64) -> i64 {
        let (slab, piece) = ((slot >> 8) as u32, (slot & 0xff) as usize);
        let meta = &mut self.slabs[slab as usize];
        let class = usize::from(meta.class);
        debug_assert!(meta.bitmap[piece / 64] & 1 << (piece % 64) != 0, "slot {slot:#x} freed twice");
        meta.bitmap[piece / 64] &= !(1 << (piece % 64));
        meta.used -= 1;
        if usize::from(meta.used) + 1 == pieces(class) {
            self.partial[class].push(slab);
        }
        if meta.used > 0 {
            return 0;
        }
        self.partial[class].retain(|&other| other != slab);
        self.free.push(slab);
        self.of_class[class] -= 1;
        self.in_use -= 1;
        self.arena.release(slab as usize * SLAB_BYTES, SLAB_BYTES);
        1
    }
}

fn free_piece(bitmap: &[u64]) -> usize {
    let word = bitmap.iter().position(|&word| word != u64::MAX).unwrap_or(0);
    word * 64 + bitmap[word].trailing_ones() as usize
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// An arena on the heap, whose bytes beyond `committed_max` the kernel has no memory for.
    pub(crate) struct HeapArena {
        bytes: Vec<u8>,
        committed_max: usize,
    }

    impl HeapArena {
        pub fn new(slabs: usize) -> HeapArena {
            HeapArena { bytes: vec![0; slabs * SLAB_BYTES], committed_max: usize::MAX }
        }

        pub fn short_of_memory(slabs: usize, backed_slabs: usize) -> HeapArena {
            HeapArena { committed_max: backed_slabs * SLAB_BYTES, ..HeapArena::new(slabs) }
        }
    }

    impl Arena for HeapArena {
        fn bytes(&self) -> usize {
            self.bytes.len()
        }
        fn commit(&mut self, start: usize, length: usize) -> io::Result<()> {
            if start + length > self.committed_max { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
        }
        fn slice(&self, start: usize, length: usize) -> &[u8] {
            &self.bytes[start..start + length]
        }
        fn slice_mut(&mut self, start: usize, length: usize) -> &mut [u8] {
            &mut self.bytes[start..start + length]
        }
        fn release(&mut self, start: usize, length: usize) {
            self.bytes[start..start + length].fill(0xdd);
        }
    }

    proptest! {
        #[test]
        fn every_slot_keeps_its_bytes_until_it_is_freed(steps in proptest::collection::vec((any::<u8>(), 1usize..=COMPRESSED_BYTES_MAX), 1..400)) {
            let mut pool = Pool::new(Box::new(HeapArena::new(64)));
            let mut kept: HashMap<u64, Vec<u8>> = HashMap::new();
            for (seed, length) in steps {
                if seed < 100 && let Some(&slot) = kept.keys().next() {
                    pool.free(slot);
                    kept.remove(&slot);
                    continue;
                }
                let bytes: Vec<u8> = (0..length).map(|i| seed.wrapping_mul(31).wrapping_add(i as u8)).collect();
                match pool.store(&bytes) {
                    Ok(slot) => prop_assert!(kept.insert(slot, bytes).is_none()),
                    Err(Full) => prop_assert!(pool.bytes() as usize == 64 * SLAB_BYTES),
                }
            }
            for (&slot, bytes) in &kept {
                prop_assert_eq!(pool.get(slot), bytes.as_slice());
            }
            for slot in kept.into_keys() {
                pool.free(slot);
            }
            prop_assert_eq!(pool.bytes(), 0);
        }
    }

    #[test]
    fn a_full_arena_refuses_and_loses_nothing() {
        let mut pool = Pool::new(Box::new(HeapArena::new(1)));
        let slots: Vec<_> = (0..5u8).map(|i| pool.store(&[i; COMPRESSED_BYTES_MAX]).unwrap()).collect();
        assert_eq!(pool.store(&[9; COMPRESSED_BYTES_MAX]), Err(Full));
        assert_eq!(pool.store(&[9; 10]), Err(Full));
        assert!((0..5u8).all(|i| pool.get(slots[usize::from(i)]) == [i; COMPRESSED_BYTES_MAX]));
    }

    #[test]
    fn without_memory_for_another_slab_the_pool_refuses_keeps_what_it_has_and_goes_on_when_slots_are_freed() {
        let mut pool = Pool::new(Box::new(HeapArena::short_of_memory(64, 1)));
        let slots: Vec<_> = (0..5u8).map(|i| pool.store(&[i; COMPRESSED_BYTES_MAX]).unwrap()).collect();
        assert_eq!(pool.store(&[9; COMPRESSED_BYTES_MAX]), Err(Full));
        assert_eq!(pool.store(&[9; 10]), Err(Full));
        assert_eq!(pool.bytes() as usize, SLAB_BYTES, "a refused slab costs nothing");
        assert!((0..5u8).all(|i| pool.get(slots[usize::from(i)]) == [i; COMPRESSED_BYTES_MAX]));
        slots.into_iter().for_each(|slot| _ = pool.free(slot));
        assert!(pool.store(&[9; 10]).is_ok());
    }
}
