//! Self-checking pages: a page says who it is, and a checksum says that all of it is what was written.
//!
//! ```text
//!   word 0   MAGIC | texture          word 2       address
//!   word 1   owner << 32 | version    word 3       checksum of everything else
//!                                     words 4..512 body, generated from the identity
//! ```
//!
//! The reader knows the identity it expects, so a page that is stale, swapped with another or another guest's
//! is found out by its header; a page with any other wrong byte by its checksum. The checksum runs four
//! lanes, each step `h = rotate((h ^ word) * odd)`, one to one in `h` and in `word`: a single wrong word
//! always changes it.

use crate::memory::{PAGE_WORDS, Span};
use crate::rng::{Rng, mix};

/// Owner of pages that are the same in every guest.
pub const OWNER_COMMON: u32 = u32::MAX;

const MAGIC: u64 = u64::from_le_bytes(*b"selfchk\0");
const HEADER_WORDS: usize = 4;
const LANE_FACTOR: u64 = 0x9e37_79b1_85eb_ca87;

/// What a page's body is like to a compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texture {
    /// Incompressible.
    Random,
    /// lz4 takes it to about a half.
    Half,
    /// lz4 takes it to about a quarter.
    Text,
    /// lz4 takes it to about a third.
    Third,
}

/// Everything that decides a page's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Seed of the run.
    pub seed: u64,
    /// Guest number, or [`OWNER_COMMON`].
    pub owner: u32,
    /// Times it was rewritten.
    pub version: u32,
    /// The owner's name for the page; no two of its pages share one.
    pub address: u64,
    /// Kind of body.
    pub texture: Texture,
}

impl Identity {
    fn header(&self) -> [u64; 3] {
        [MAGIC | (self.texture as u64) << 56, u64::from(self.owner) << 32 | u64::from(self.version), self.address]
    }
}

/// Writes the whole page.
pub fn fill(page: Span, identity: &Identity) {
    let header = identity.header();
    let mut rng = Rng::new(identity.seed ^ mix(header[0] ^ mix(header[1] ^ mix(header[2]))));
    let word = [rng.next_u64(), rng.next_u64()];
    for index in HEADER_WORDS..PAGE_WORDS {
        let fresh = match identity.texture {
            Texture::Random => true,
            Texture::Half => index < PAGE_WORDS / 2,
            Texture::Text => index % 16 < 3,
            Texture::Third => is_fresh_third(index),
        };
        page.set_u64(index, if fresh { rng.next_u64() } else { word[(index / 128) & 1] });
    }
    for (index, &value) in header.iter().enumerate() {
        page.set_u64(index, value);
    }
    page.set_u64(3, checksum(page, &header));
}

/// Whether the word at this index of a page of [`Texture::Third`] is like no other.
pub fn is_fresh_third(index: usize) -> bool {
    index % 16 < 4
}

/// Whether the page is, to the last byte, what [`fill`] wrote for this identity.
pub fn verify(page: Span, identity: &Identity) -> bool {
    let header = identity.header();
    let header_right = header.iter().enumerate().all(|(index, &value)| page.u64(index) == value);
    header_right && page.u64(3) == checksum(page, &header)
}

fn checksum(page: Span, header: &[u64; 3]) -> u64 {
    let mut lanes = [header[0], header[1], header[2], !header[2]];
    for base in (HEADER_WORDS..PAGE_WORDS).step_by(4) {
        for (lane, state) in lanes.iter_mut().enumerate() {
            *state = step(*state, page.u64(base + lane));
        }
    }
    fold(lanes)
}

/// The same checksum over a copied page, header and all.
pub fn checksum_words(words: &[u64; PAGE_WORDS]) -> u64 {
    let mut lanes = [1, 2, 3, 4];
    for base in (0..PAGE_WORDS).step_by(4) {
        for (lane, state) in lanes.iter_mut().enumerate() {
            *state = step(*state, words[base + lane]);
        }
    }
    fold(lanes)
}

#[inline(always)]
fn step(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(LANE_FACTOR).rotate_left(31)
}

fn fold(lanes: [u64; 4]) -> u64 {
    lanes[0] ^ lanes[1].rotate_left(16) ^ lanes[2].rotate_left(32) ^ lanes[3].rotate_left(48)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRam;
    use proptest::prelude::*;
    use wire::PAGE_BYTES;

    const SEVEN: Identity = Identity { seed: 1, owner: 3, version: 2, address: 7, texture: Texture::Half };

    fn texture(number: u8) -> Texture {
        [Texture::Random, Texture::Half, Texture::Text, Texture::Third][usize::from(number % 4)]
    }

    proptest! {
        #[test]
        fn any_flipped_byte_is_detected(at in 0..PAGE_BYTES, flip in 1..=255u8, kind in 0..4u8, address: u64) {
            let ram = TestRam::new(2);
            let identity = Identity { address, texture: texture(kind), ..SEVEN };
            let page = ram.ram().page(1);
            fill(page, &identity);
            prop_assert!(verify(page, &identity));
            page.set_u16(at / 2, page.u16(at / 2) ^ (u16::from(flip) << (8 * (at % 2))));
            prop_assert!(!verify(page, &identity));
        }
    }

    #[test]
    fn another_identity_is_detected() {
        let ram = TestRam::new(2);
        let page = ram.ram().page(1);
        fill(page, &SEVEN);
        for other in [
            Identity { owner: 4, ..SEVEN },
            Identity { version: 1, ..SEVEN },
            Identity { address: 8, ..SEVEN },
            Identity { texture: Texture::Text, ..SEVEN },
        ] {
            assert!(!verify(page, &other), "{other:?}");
        }
    }

    #[test]
    fn neighbouring_identities_have_different_bodies() {
        let ram = TestRam::new(3);
        fill(ram.ram().page(1), &SEVEN);
        fill(ram.ram().page(2), &Identity { version: 3, ..SEVEN });
        let equal = (4..PAGE_WORDS).filter(|&word| ram.ram().page(1).u64(word) == ram.ram().page(2).u64(word)).count();
        assert_eq!(equal, 0);
    }
}
