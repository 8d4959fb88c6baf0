//! By what a piece of the pool is compressed.

use wire::Frame;

use super::pieces::FRAME_BYTES;

/// Where the codec is in the header's second part, above the length.
pub(super) const CODEC_SHIFT: u32 = 12;

/// How a page is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// LZ4's block format: what a page is compressed with first, and comes back fastest from.
    Lz4,
    /// Zstandard, one frame: smaller by a third on real memory, for pages that stay.
    Zstd,
    /// A patch: the same with a frame of the store as prefix, which whoever stores it holds for as long as
    /// the pool has it.
    Patch(Frame),
}

impl Codec {
    pub(super) const LZ4: u16 = 0;
    pub(super) const ZSTD: u16 = 1;
    pub(super) const PATCH: u16 = 2;

    pub(super) fn number(self) -> u16 {
        match self {
            Codec::Lz4 => Codec::LZ4,
            Codec::Zstd => Codec::ZSTD,
            Codec::Patch(_) => Codec::PATCH,
        }
    }

    pub(super) fn frame(self) -> Option<Frame> {
        if let Codec::Patch(frame) = self { Some(frame) } else { None }
    }

    /// What a page that compressed to `bytes` bytes is in the pool, bytes.
    pub fn length(self, bytes: usize) -> usize {
        bytes + if self.frame().is_some() { FRAME_BYTES } else { 0 }
    }
}
