//! Compression of one page, with buffers and tables that are made once.

use std::io;

use zstd::{bulk::Compressor, zstd_safe::CParameter};

use crate::{
    pool::COMPRESSED_BYTES_MAX,
    units::{PAGE_BYTES, PageBytes},
};

/// Zstandard's level: 3 wins another 2 % on real memory, for a tenth more time; beyond that it is time for nothing.
const LEVEL: i32 = 1;
/// LZ4 may grow what it does not compress.
pub const QUICK_BYTES: usize = lz4_flex::block::get_maximum_output_size(PAGE_BYTES);

/// The page by lz4, if it fits the pool.
pub fn quickly<'a>(page: &PageBytes, buffer: &'a mut [u8; QUICK_BYTES]) -> Option<&'a [u8]> {
    let length = lz4_flex::block::compress_into(page, buffer.as_mut_slice()).ok();
    length.filter(|&length| length <= COMPRESSED_BYTES_MAX).map(|length| &buffer[..length])
}

/// The compressor for pages that stay, and where it writes to.
pub struct Squeeze {
    zstd: Compressor<'static>,
    // No room for more than what would be kept: Zstandard gives up sooner.
    buffer: Box<[u8; COMPRESSED_BYTES_MAX]>,
}

impl Squeeze {
    /// Fails for want of memory only.
    pub fn new() -> io::Result<Squeeze> {
        let mut zstd = Compressor::new(LEVEL)?;
        // Every page is as long as every other.
        zstd.set_parameter(CParameter::ContentSizeFlag(false))?;
        Ok(Squeeze { zstd, buffer: Box::new([0; COMPRESSED_BYTES_MAX]) })
    }

    /// The page by zstd, if it fits the pool.
    pub fn densely(&mut self, page: &PageBytes) -> Option<&[u8]> {
        let length = self.zstd.compress_to_buffer(page, self.buffer.as_mut_slice()).ok()?;
        Some(&self.buffer[..length])
    }
}
