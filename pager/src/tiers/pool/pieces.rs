//! How large the pool's slabs and pieces are.

use wire::PAGE_BYTES;

/// Bytes of a slab: large enough for five of the largest pieces, small enough to empty out soon.
pub const SLAB_BYTES: usize = 4 * PAGE_BYTES;
/// Pages (and credits) of a slab.
pub const SLAB_PAGES: i64 = (SLAB_BYTES / PAGE_BYTES) as i64;
/// Largest compressed page worth storing, bytes; above it, less than a fifth would be saved.
pub const COMPRESSED_BYTES_MAX: usize = piece_bytes(0) - HEADER_BYTES;

/// Pieces of a slab by class, the largest pieces first: steps of a tenth or less from 9 on, up to the most a
/// slot number's low byte and the bitmap hold.
pub(super) const PIECES: [usize; 23] =
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 22, 25, 28, 32, 36, 42, 50, 64, 85, PIECES_MAX];
pub(super) const PIECES_MAX: usize = 128;
pub(super) const CLASSES: usize = PIECES.len();
pub(super) const HEADER_BYTES: usize = 6;
/// A patch's frame number, before its bytes.
pub const FRAME_BYTES: usize = 4;
pub(super) const fn piece_bytes(class: usize) -> usize {
    SLAB_BYTES / PIECES[class] / 8 * 8
}

/// The smallest pieces that hold `length` bytes.
pub(super) fn class_of(length: usize) -> usize {
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
