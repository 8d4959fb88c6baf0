//! The compressed pool: a slab allocator over one arena, for pieces of up to four fifths of a page.
//!
//! ```text
//!   arena   | slab 0 (16 KiB) | slab 1 | ...          a slab holds pieces of one size class, or is free and costs nothing
//!   slab    | piece | piece | ... |                   classes: 5, 6, 7, ... 128 pieces a slab, so that no slab has a rest
//!   piece   | owner: u32 | codec, length: u16 | bytes ... |            by lz4 or zstd
//!           | owner: u32 | codec, length: u16 | frame: u32 | bytes ... |      a patch: by zstd, with the frame's bytes as if they came before
//!   slot    = slab number × 256 + piece number        what the page-state table remembers
//! ```
//!
//! A slab whose last piece is freed goes back to the kernel at once. **Fragmentation** is bounded by compaction: while a class has room
//! for all pieces of its emptiest slab elsewhere, that slab's pieces are moved ([`Pool::sparse_slab`]), which is what owners are kept for. So no
//! class keeps more than one slab's worth of free pieces for long.

use std::io;

use wire::{Frame, Gfn, PAGE_BYTES, PageBytes};
use zstd::zstd_safe::DCtx;

/// Bytes of a slab: large enough for five of the largest pieces, small enough to empty out soon.
pub const SLAB_BYTES: usize = 4 * PAGE_BYTES;
/// Pages (and credits) of a slab.
pub const SLAB_PAGES: i64 = (SLAB_BYTES / PAGE_BYTES) as i64;
/// Largest compressed page worth storing, bytes; above it, less than a fifth would be saved.
pub const COMPRESSED_BYTES_MAX: usize = piece_bytes(0) - HEADER_BYTES;

/// Pieces of a slab by class, the largest pieces first: steps of a tenth or less from 9 on, up to the most a slot number's low byte and
/// the bitmap hold.
const PIECES: [usize; 23] =
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 22, 25, 28, 32, 36, 42, 50, 64, 85, PIECES_MAX];
const PIECES_MAX: usize = 128;
const CLASSES: usize = PIECES.len();
const HEADER_BYTES: usize = 6;
/// A patch's frame number, before its bytes.
pub const FRAME_BYTES: usize = 4;
/// Where the codec is in the header's second part, above the length.
const CODEC_SHIFT: u32 = 12;

/// How a page is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// LZ4's block format: what a page is compressed with first, and comes back fastest from.
    Lz4,
    /// Zstandard, one frame: smaller by a third on real memory, for pages that stay.
    Zstd,
    /// A patch: the same with a frame of the store as prefix, which whoever stores it holds for as long as the pool has it.
    Patch(Frame),
}

impl Codec {
    const LZ4: u16 = 0;
    const ZSTD: u16 = 1;
    const PATCH: u16 = 2;

    fn number(self) -> u16 {
        match self {
            Codec::Lz4 => Codec::LZ4,
            Codec::Zstd => Codec::ZSTD,
            Codec::Patch(_) => Codec::PATCH,
        }
    }

    fn frame(self) -> Option<Frame> {
        if let Codec::Patch(frame) = self { Some(frame) } else { None }
    }

    /// What a page that compressed to `bytes` bytes is in the pool, bytes.
    pub fn length(self, bytes: usize) -> usize {
        bytes + if self.frame().is_some() { FRAME_BYTES } else { 0 }
    }
}

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
    /// Slabs in use, and pieces in use, by class.
    of_class: [usize; CLASSES],
    used: [usize; CLASSES],
    free: Vec<u32>,
    in_use: usize,
    patches: Patches,
    // Made once: whoever serves faults allocates nothing.
    zstd: DCtx<'static>,
    prefix: Box<PageBytes>,
}

/// Patches in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patches {
    /// Pages.
    pub pages: u64,
    /// What they are compressed to, bytes.
    pub bytes: u64,
}

/// The pool's arena is full, or the kernel has no memory for another slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

const fn piece_bytes(class: usize) -> usize {
    SLAB_BYTES / PIECES[class] / 8 * 8
}

/// The smallest pieces that hold `length` bytes.
fn class_of(length: usize) -> usize {
    (0..CLASSES).rev().find(|&class| piece_bytes(class) >= length + HEADER_BYTES).unwrap_or(0)
}

/// Room that `length` bytes take, with all that belongs to them.
pub fn room_bytes(length: usize) -> usize {
    piece_bytes(class_of(length))
}

/// Whether `length` bytes take less room than `other` bytes.
pub fn is_smaller(length: usize, other: usize) -> bool {
    class_of(length) > class_of(other)
}

impl Pool {
    /// An empty pool over `arena`.
    pub fn new(arena: Box<dyn Arena>) -> io::Result<Pool> {
        Ok(Pool {
            arena,
            slabs: Vec::new(),
            partial: Default::default(),
            of_class: [0; CLASSES],
            used: [0; CLASSES],
            free: Vec::new(),
            in_use: 0,
            patches: Patches::default(),
            zstd: DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?,
            prefix: Box::new([0; PAGE_BYTES]),
        })
    }

    /// Bytes of the slabs in use.
    pub fn bytes(&self) -> u64 {
        (self.in_use * SLAB_BYTES) as u64
    }

    /// What there is of patches.
    pub fn patches(&self) -> Patches {
        self.patches
    }

    /// Whether storing `length` bytes would take a new slab.
    pub fn needs_slab(&self, length: usize) -> bool {
        self.partial[class_of(length)].is_empty()
    }

    /// Stores `bytes` (with what belongs to the codec at most [`COMPRESSED_BYTES_MAX`]), which are `owner`'s page by `codec`, and gives their slot.
    pub fn store(&mut self, owner: Gfn, codec: Codec, bytes: &[u8]) -> Result<u64, Full> {
        let length = codec.length(bytes.len());
        let class = class_of(length);
        let slab = match self.partial[class].last() {
            Some(&slab) => slab,
            None => self.new_slab(class)?,
        };
        let slot = self.take_piece(slab);
        let start = self.start(slot);
        let target = self.arena.slice_mut(start, HEADER_BYTES + length);
        target[..4].copy_from_slice(&owner.0.to_le_bytes());
        let tail = codec.number() << CODEC_SHIFT | length as u16;
        target[4..HEADER_BYTES].copy_from_slice(&tail.to_le_bytes());
        target[HEADER_BYTES + length - bytes.len()..].copy_from_slice(bytes);
        if let Some(frame) = codec.frame() {
            target[HEADER_BYTES..HEADER_BYTES + FRAME_BYTES].copy_from_slice(&frame.0.to_le_bytes());
            self.patches.pages += 1;
            self.patches.bytes += length as u64;
        }
        Ok(slot)
    }

    /// Takes a free piece of a slab that has one.
    fn take_piece(&mut self, slab: u32) -> u64 {
        let meta = &mut self.slabs[slab as usize];
        let class = usize::from(meta.class);
        let piece = free_piece(&meta.bitmap);
        meta.bitmap[piece / 64] |= 1 << (piece % 64);
        meta.used += 1;
        self.used[class] += 1;
        if usize::from(meta.used) == PIECES[class] {
            // Most often the last.
            let at = self.partial[class].iter().rposition(|&other| other == slab);
            at.map(|at| self.partial[class].swap_remove(at));
        }
        u64::from(slab) << 8 | piece as u64
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

    fn start(&self, slot: u64) -> usize {
        let (slab, piece) = ((slot >> 8) as usize, (slot & 0xff) as usize);
        slab * SLAB_BYTES + piece * piece_bytes(usize::from(self.slabs[slab].class))
    }

    /// The header of a piece: owner, codec, length.
    fn header(&self, slot: u64) -> (Gfn, u16, usize) {
        let header = self.arena.slice(self.start(slot), HEADER_BYTES);
        let tail = u16::from_le_bytes([header[4], header[5]]);
        let owner = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        (Gfn(owner), tail >> CODEC_SHIFT, usize::from(tail & ((1 << CODEC_SHIFT) - 1)))
    }

    /// Bytes that the page in `slot` was compressed to.
    pub fn length(&self, slot: u64) -> usize {
        self.header(slot).2
    }

    /// Whether the page in `slot` is compressed by the faster and less dense codec.
    pub fn is_quick(&self, slot: u64) -> bool {
        self.header(slot).1 == Codec::LZ4
    }

    /// The frame that the page in `slot` is a patch of.
    pub fn frame(&self, slot: u64) -> Option<Frame> {
        let (_, codec, length) = self.header(slot);
        let bytes = self.arena.slice(self.start(slot) + HEADER_BYTES, length.min(COMPRESSED_BYTES_MAX));
        let (frame, _) = bytes.split_first_chunk::<FRAME_BYTES>().filter(|_| codec == Codec::PATCH)?;
        Some(Frame(u32::from_le_bytes(*frame)))
    }

    /// Decompresses the page in `slot`; false if it is damaged. `read_frame` gives the bytes of the frame that a patch is of.
    pub fn decompress(
        &mut self,
        slot: u64,
        into: &mut PageBytes,
        read_frame: impl FnOnce(Frame, &mut PageBytes),
    ) -> bool {
        let (_, codec, length) = self.header(slot);
        let bytes = self.arena.slice(self.start(slot) + HEADER_BYTES, length.min(COMPRESSED_BYTES_MAX));
        let done = match codec {
            Codec::LZ4 => lz4_flex::block::decompress_into(bytes, into).ok(),
            Codec::ZSTD => self.zstd.decompress(into.as_mut_slice(), bytes).ok(),
            Codec::PATCH => bytes.split_first_chunk::<FRAME_BYTES>().and_then(|(frame, bytes)| {
                read_frame(Frame(u32::from_le_bytes(*frame)), &mut self.prefix);
                self.zstd.decompress_using_dict(into.as_mut_slice(), bytes, self.prefix.as_slice()).ok()
            }),
            _ => None,
        };
        done == Some(PAGE_BYTES)
    }

    /// Whether `bytes`, a patch of `reference`, give `page`.
    pub fn gives(&mut self, bytes: &[u8], reference: &PageBytes, page: &PageBytes) -> bool {
        let done = self.zstd.decompress_using_dict(self.prefix.as_mut_slice(), bytes, reference);
        done == Ok(PAGE_BYTES) && *self.prefix == *page
    }

    /// Frees `slot`; gives back how many slabs that emptied (0 or 1). Of a patch, the frame's reference is the caller's to give back.
    pub fn free(&mut self, slot: u64) -> i64 {
        if self.frame(slot).is_some() {
            self.patches.pages -= 1;
            self.patches.bytes -= self.length(slot) as u64;
        }
        self.give_piece(slot)
    }

    fn give_piece(&mut self, slot: u64) -> i64 {
        let (slab, piece) = ((slot >> 8) as u32, (slot & 0xff) as usize);
        let meta = &mut self.slabs[slab as usize];
        let class = usize::from(meta.class);
        debug_assert!(meta.bitmap[piece / 64] & 1 << (piece % 64) != 0, "slot {slot:#x} freed twice");
        meta.bitmap[piece / 64] &= !(1 << (piece % 64));
        meta.used -= 1;
        self.used[class] -= 1;
        if usize::from(meta.used) + 1 == PIECES[class] {
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

    /// Owners of the pieces in a slab that could be emptied, because the other slabs of its class have room for all of them: the emptiest of the
    /// first class there is one of. [`Pool::relocate`] moves them.
    pub fn sparse_slab(&self) -> Option<(u32, Vec<Gfn>)> {
        let roomy = |&class: &usize| self.of_class[class] * PIECES[class] - self.used[class] >= PIECES[class];
        let class = (0..CLASSES).find(roomy)?;
        let &slab = self.partial[class].iter().min_by_key(|&&slab| self.slabs[slab as usize].used)?;
        let taken = taken(&self.slabs[slab as usize]);
        Some((slab, taken.map(|piece| self.header(u64::from(slab) << 8 | piece as u64).0).collect()))
    }

    /// Slabs there are, free ones included.
    pub fn slabs(&self) -> u32 {
        self.slabs.len() as u32
    }

    /// Owners and frames of the patches in a slab.
    pub fn patches_in(&self, slab: u32) -> Vec<(Gfn, Frame)> {
        let meta = &self.slabs[slab as usize];
        let patch = |piece: usize| {
            let slot = u64::from(slab) << 8 | piece as u64;
            Some((self.header(slot).0, self.frame(slot)?))
        };
        taken(meta).filter_map(patch).collect()
    }

    /// Moves a piece, if it is in `slab`, to another slab of its class: its new slot, and how many slabs that emptied.
    pub fn relocate(&mut self, slot: u64, slab: u32) -> Option<(u64, i64)> {
        let class = usize::from(self.slabs[(slot >> 8) as usize].class);
        let &target = self.partial[class].iter().find(|&&other| slot >> 8 == u64::from(slab) && other != slab)?;
        let length = HEADER_BYTES + self.length(slot);
        let mut piece = [0; piece_bytes(0)];
        piece[..length].copy_from_slice(self.arena.slice(self.start(slot), length));
        let new = self.take_piece(target);
        let start = self.start(new);
        self.arena.slice_mut(start, length).copy_from_slice(&piece[..length]);
        Some((new, self.give_piece(slot)))
    }
}

/// Numbers of the pieces in use.
fn taken(slab: &Slab) -> impl Iterator<Item = usize> {
    (0..PIECES_MAX).filter(|piece| slab.bitmap[piece / 64] & 1 << (piece % 64) != 0)
}

fn free_piece(bitmap: &[u64]) -> usize {
    let word = bitmap.iter().position(|&word| word != u64::MAX).unwrap_or(0);
    word * 64 + bitmap[word].trailing_ones() as usize
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::transition::Squeeze;
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

    pub(crate) fn pool(arena: HeapArena) -> Pool {
        Pool::new(Box::new(arena)).unwrap()
    }

    /// A page whose first `noise` bytes do not compress.
    fn page(noise: usize, seed: u8) -> PageBytes {
        let mut state = u64::from(seed) + 1;
        std::array::from_fn(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if i < noise { (state >> 56) as u8 } else { seed }
        })
    }

    /// The frames of these tests: the pages of their numbers' seeds, all noise.
    fn read_frame(frame: Frame, into: &mut PageBytes) {
        *into = page(PAGE_BYTES, frame.0 as u8);
    }

    fn compress(page: &PageBytes, seed: u8) -> (Codec, Vec<u8>) {
        match seed % 3 {
            0 => {
                let mut bytes = vec![0; 2 * PAGE_BYTES];
                let length = lz4_flex::block::compress_into(page, &mut bytes).unwrap();
                bytes.truncate(length);
                (Codec::Lz4, bytes)
            }
            1 => (Codec::Zstd, zstd::bulk::compress(page, 1).unwrap()),
            _ => {
                let mut reference = [0; PAGE_BYTES];
                read_frame(Frame(u32::from(seed)), &mut reference);
                let against = Squeeze::new().unwrap().against(page, &reference).map(<[u8]>::to_vec);
                // Nothing a patch of noise cannot do: it has the noise of the page.
                (Codec::Patch(Frame(u32::from(seed))), against.unwrap())
            }
        }
    }

    proptest! {
        #[test]
        fn every_slot_keeps_its_page_until_it_is_freed_and_compaction_bounds_what_is_wasted(
            steps in proptest::collection::vec((any::<u8>(), 0usize..=PAGE_BYTES), 1..400),
        ) {
            let mut pool = pool(HeapArena::new(64));
            let mut kept: HashMap<u64, PageBytes> = HashMap::new();
            let mut stored = 0;
            for (seed, noise) in steps {
                if seed < 100 && let Some(&slot) = kept.keys().next() {
                    pool.free(slot);
                    kept.remove(&slot);
                    continue;
                }
                let page = page(noise, seed);
                let (codec, bytes) = compress(&page, seed);
                if bytes.len() > COMPRESSED_BYTES_MAX {
                    continue;
                }
                match pool.store(Gfn(stored), codec, &bytes) {
                    Ok(slot) => prop_assert!(kept.insert(slot, page).is_none()),
                    Err(Full) => prop_assert!(pool.bytes() as usize == 64 * SLAB_BYTES),
                }
                stored += 1;
            }
            while let Some((slab, owners)) = pool.sparse_slab() {
                let before = pool.bytes();
                let slots: Vec<u64> = kept.keys().copied().filter(|slot| slot >> 8 == u64::from(slab)).collect();
                prop_assert_eq!(slots.len(), owners.len());
                for slot in slots {
                    let (new, _) = pool.relocate(slot, slab).unwrap();
                    let page = kept.remove(&slot).unwrap();
                    prop_assert!(kept.insert(new, page).is_none());
                }
                prop_assert_eq!(pool.bytes() as usize, before as usize - SLAB_BYTES);
            }
            for (class, pieces) in PIECES.into_iter().enumerate() {
                prop_assert!(pool.of_class[class] * pieces < pool.used[class] + pieces);
            }
            let mut found = [0; PAGE_BYTES];
            for (&slot, page) in &kept {
                prop_assert!(pool.decompress(slot, &mut found, read_frame));
                prop_assert!(found == *page);
            }
            let patches: Vec<u64> = kept.keys().copied().filter(|&slot| pool.frame(slot).is_some()).collect();
            let bytes = patches.iter().map(|&slot| pool.length(slot) as u64).sum();
            prop_assert_eq!(pool.patches(), Patches { pages: patches.len() as u64, bytes });
            for slot in kept.into_keys() {
                pool.free(slot);
            }
            prop_assert_eq!((pool.bytes(), pool.patches()), (0, Patches::default()));
        }

        #[test]
        fn any_page_comes_back_from_a_patch_of_any_frame(
            bytes in proptest::collection::vec(any::<u8>(), PAGE_BYTES),
            copied in (0..PAGE_BYTES, 0..=PAGE_BYTES),
            dictionary in any::<bool>(),
        ) {
            let mut reference: PageBytes = bytes.try_into().unwrap();
            if dictionary {
                // Zstandard takes bytes that begin so for a dictionary of its own making, and refuses them.
                reference[..4].copy_from_slice(&[0x37, 0xa4, 0x30, 0xec]);
            }
            let mut page = page(PAGE_BYTES, 9);
            let (start, end) = (copied.0.min(copied.1), copied.0.max(copied.1));
            page[start..end].copy_from_slice(&reference[start..end]);
            let mut squeeze = Squeeze::new().unwrap();
            let mut pool = pool(HeapArena::new(1));
            let Some(patch) = squeeze.against(&page, &reference).filter(|patch| pool.gives(patch, &reference, &page)) else {
                prop_assert!(dictionary || end - start < 1500, "{start} to {end}");
                return Ok(());
            };
            let slot = pool.store(Gfn(1), Codec::Patch(Frame(3)), patch).unwrap();
            prop_assert_eq!(pool.frame(slot), Some(Frame(3)));
            let mut found = [0; PAGE_BYTES];
            prop_assert!(pool.decompress(slot, &mut found, |_, into| *into = reference));
            prop_assert!(found == page);
        }
    }

    fn bytes(pool: &Pool, slot: u64) -> &[u8] {
        pool.arena.slice(pool.start(slot) + HEADER_BYTES, pool.length(slot))
    }

    #[test]
    fn a_damaged_page_is_found_out() {
        let mut pool = pool(HeapArena::new(1));
        let page = page(1000, 3);
        for seed in [0, 1, 2] {
            let (codec, bytes) = compress(&page, seed);
            let slot = pool.store(Gfn(1), codec, &bytes[..bytes.len() / 2]).unwrap();
            assert!(!pool.decompress(slot, &mut [0; PAGE_BYTES], read_frame));
        }
    }

    #[test]
    fn a_full_arena_refuses_and_loses_nothing() {
        let mut pool = pool(HeapArena::new(1));
        let slots: Vec<_> =
            (0..5u8).map(|i| pool.store(Gfn(0), Codec::Lz4, &[i; COMPRESSED_BYTES_MAX]).unwrap()).collect();
        assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; COMPRESSED_BYTES_MAX]), Err(Full));
        assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; 10]), Err(Full));
        assert!((0..5u8).all(|i| bytes(&pool, slots[usize::from(i)]) == [i; COMPRESSED_BYTES_MAX]));
    }

    #[test]
    fn without_memory_for_another_slab_the_pool_refuses_keeps_what_it_has_and_goes_on_when_slots_are_freed() {
        let mut pool = pool(HeapArena::short_of_memory(64, 1));
        let slots: Vec<_> =
            (0..5u8).map(|i| pool.store(Gfn(0), Codec::Lz4, &[i; COMPRESSED_BYTES_MAX]).unwrap()).collect();
        assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; COMPRESSED_BYTES_MAX]), Err(Full));
        assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; 10]), Err(Full));
        assert_eq!(pool.bytes() as usize, SLAB_BYTES, "a refused slab costs nothing");
        assert!((0..5u8).all(|i| bytes(&pool, slots[usize::from(i)]) == [i; COMPRESSED_BYTES_MAX]));
        slots.into_iter().for_each(|slot| _ = pool.free(slot));
        assert!(pool.store(Gfn(0), Codec::Lz4, &[9; 10]).is_ok());
    }
}
