//! What a page can hold in the model: a handful of contents, one or two for each tier.

use std::sync::LazyLock;

use wire::{PAGE_BYTES, PageBytes};

/// One of [`Content::COUNT`] contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content(pub u8);

impl Content {
    /// All zero.
    pub const ZERO: Content = Content(0);
    /// What a guest that poisons its free pages fills them with.
    pub const POISON: Content = Content(1);
    /// The first few are zero, or one pattern repeated: they need no pool.
    pub const FILLED: u8 = 3;
    /// Those before this compress; this one and the next do by zstd, and hardly by lz4, and resemble each
    /// other.
    pub const COMPRESSIBLE: u8 = 5;
    const NOISE: u8 = 7;
    /// All; the last do not compress.
    pub const COUNT: u8 = 9;

    /// Its bytes.
    pub fn bytes(self) -> &'static PageBytes {
        static ALL: LazyLock<Vec<PageBytes>> = LazyLock::new(|| (0..Content::COUNT).map(page).collect());
        &ALL[usize::from(self.0)]
    }

    /// The content these bytes are; bytes that no thread of the model ever wrote are a failure.
    pub fn of(bytes: &PageBytes) -> Content {
        let found = (0..Content::COUNT).map(Content).find(|content| content.bytes() == bytes);
        found.expect("bytes that nobody wrote")
    }
}

fn page(number: u8) -> PageBytes {
    let mut page = [0; PAGE_BYTES];
    match number {
        0..Content::FILLED => page.fill(number),
        Content::FILLED..Content::COMPRESSIBLE => page[0] = number,
        Content::COMPRESSIBLE..Content::NOISE => {
            // Four bits of noise a byte, in half of the page: no repetitions for lz4, half of it for an
            // entropy coder.
            let mut noise = 1u32;
            page[..PAGE_BYTES / 2].iter_mut().for_each(|byte| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (noise >> 28) as u8;
            });
            page[0] = number;
        }
        _ => {
            let mut noise = u64::from(number);
            for word in page.chunks_exact_mut(8) {
                noise = (noise ^ noise << 13 ^ noise >> 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                word.copy_from_slice(&noise.to_ne_bytes());
            }
        }
    }
    page
}
