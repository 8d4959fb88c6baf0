//! Compression of one page, with buffers and tables that are made once.

use std::io;

use wire::{PAGE_BYTES, PageBytes};
use zstd::zstd_safe::{CCtx, CParameter};

use crate::tiers::pool::{COMPRESSED_BYTES_MAX, FRAME_BYTES};

/// Zstandard's level: 3 wins another 2 % on real memory, for a tenth more time; beyond that it is time for
/// nothing.
const LEVEL: i32 = 1;
/// LZ4 may grow what it does not compress.
pub const QUICK_BYTES: usize = lz4_flex::block::get_maximum_output_size(PAGE_BYTES);

/// The page by lz4, if it fits the pool.
pub fn quickly<'a>(page: &PageBytes, buffer: &'a mut [u8; QUICK_BYTES]) -> Option<&'a [u8]> {
    let length = lz4_flex::block::compress_into(page, buffer.as_mut_slice()).ok();
    length.filter(|&length| length <= COMPRESSED_BYTES_MAX).map(|length| &buffer[..length])
}

/// Whether a page is most likely noise, compressed or encrypted already: a look that costs a tenth of a try.
/// Of 586 bytes of noise, 230 of 256 values occur, give or take 4; of programs and text, hardly ever 180.
pub fn is_noise(page: &PageBytes) -> bool {
    const VALUES_MIN: usize = 210;
    let mut seen = [false; 256];
    // Seven is no divisor of a word: every byte of words is looked at.
    page.iter().step_by(7).for_each(|&byte| seen[usize::from(byte)] = true);
    seen.iter().filter(|&&seen| seen).count() >= VALUES_MIN
}

/// The compressor for pages that stay, and where it writes to.
pub struct Squeeze {
    zstd: CCtx<'static>,
    // No room for more than what would be kept: Zstandard gives up sooner.
    buffer: Box<[u8; COMPRESSED_BYTES_MAX]>,
}

impl Squeeze {
    /// Fails for want of memory only.
    pub fn new() -> io::Result<Squeeze> {
        let mut zstd = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        // Every page is as long as every other.
        for parameter in [CParameter::CompressionLevel(LEVEL), CParameter::ContentSizeFlag(false)] {
            zstd.set_parameter(parameter).map_err(|_| io::ErrorKind::OutOfMemory)?;
        }
        Ok(Squeeze { zstd, buffer: Box::new([0; COMPRESSED_BYTES_MAX]) })
    }

    /// The page by zstd, if it fits the pool.
    pub fn densely(&mut self, page: &PageBytes) -> Option<&[u8]> {
        let length = self.zstd.compress2(self.buffer.as_mut_slice(), page).ok()?;
        Some(&self.buffer[..length])
    }

    /// The page by zstd as if it came right after `reference`, if it fits the pool as a patch.
    pub fn against(&mut self, page: &PageBytes, reference: &PageBytes) -> Option<&[u8]> {
        let room = &mut self.buffer[..COMPRESSED_BYTES_MAX - FRAME_BYTES];
        let length = self.zstd.compress_using_dict(room, page, reference, LEVEL).ok()?;
        Some(&self.buffer[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_from_what_only_zstd_compresses_and_that_from_what_lz4_does() {
        let mut state = 1u64;
        let noise: PageBytes = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let skewed = noise.map(|byte| byte & 0x3f);
        let mut half = noise;
        half[PAGE_BYTES / 2..].fill(0);
        let mut squeeze = Squeeze::new().unwrap();
        assert_eq!([noise, skewed, half].map(|page| is_noise(&page)), [true, false, false]);
        assert_eq!(
            [noise, skewed, half].map(|page| quickly(&page, &mut [0; QUICK_BYTES]).is_some()),
            [false, false, true]
        );
        assert_eq!([noise, skewed, half].map(|page| squeeze.densely(&page).is_some()), [false, true, true]);
        let bytes = squeeze.densely(&skewed).unwrap().to_vec();
        let mut back = [0; PAGE_BYTES];
        assert_eq!(zstd::bulk::decompress_to_buffer(&bytes, &mut back[..]).unwrap(), PAGE_BYTES);
        assert!(back == skewed);
    }
}
