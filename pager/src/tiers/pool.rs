//! The compressed pool: a slab allocator over one arena, for pieces of up to four fifths of a page.
//!
//! ```text
//!   arena   | slab 0 (16 KiB) | slab 1 | ...    pieces of one size class, or free: it costs nothing
//!   slab    | piece | piece | ... |             classes: 5, 6, ... 128 pieces a slab, without a rest
//!   piece   | owner: u32 | codec, length: u16 | bytes ... |            by lz4 or zstd
//!           | owner: u32 | codec, length: u16 | frame: u32 | bytes ... |  a patch: zstd, after the frame's
//!   slot    = slab number × 256 + piece number        what the page-state table remembers
//! ```
//!
//! A slab whose last piece is freed goes back to the kernel at once. **Fragmentation** is bounded by
//! compaction: while a class has room for all pieces of its emptiest slab elsewhere, that slab's pieces are
//! moved ([`Pool::sparse_slab`]), which is what owners are kept for. So no class keeps more than one slab's
//! worth of free pieces for long.

mod codec;
mod pieces;

use std::io;

use wire::{Frame, Gfn, PAGE_BYTES, PageBytes};
use zstd::zstd_safe::DCtx;

use crate::sys::Arena;
use codec::CODEC_SHIFT;
use pieces::{CLASSES, HEADER_BYTES, PIECES, PIECES_MAX, class_of, piece_bytes};

pub use codec::Codec;
pub use pieces::{COMPRESSED_BYTES_MAX, FRAME_BYTES, SLAB_BYTES, SLAB_PAGES, is_smaller, room_bytes};

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

    /// Stores `bytes` (with what belongs to the codec at most [`COMPRESSED_BYTES_MAX`]), which are `owner`'s
    /// page by `codec`, and gives their slot.
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
        // Room for every slab's number in each list it can come to: freeing is the fault thread's, and must
        // not allocate.
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

    /// Decompresses the page in `slot`; false if it is damaged. `read_frame` gives the bytes of the frame
    /// that a patch is of.
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

    /// Frees `slot`; gives back how many slabs that emptied (0 or 1). Of a patch, the frame's reference is
    /// the caller's to give back.
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

    /// Owners of the pieces in a slab that could be emptied, because the other slabs of its class have room
    /// for all of them: the emptiest of the first class there is one of. [`Pool::relocate`] moves them.
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

    /// Moves a piece, if it is in `slab`, to another slab of its class: its new slot, and how many slabs that
    /// emptied.
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
pub(crate) mod tests;
