//! The buffer between disk and guest memory.

/// Bytes that are moved at once: half of a small second-level cache, so that the second copy of them costs
/// little.
pub const SCRATCH_BYTES: usize = 256 << 10;

/// What `O_DIRECT` wants memory aligned to at most.
const ALIGNMENT_BYTES: usize = 4096;

/// [`SCRATCH_BYTES`] that are aligned; allocated when first used, as most disks of idle guests never are.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.0.resize(SCRATCH_BYTES + ALIGNMENT_BYTES, 0);
        let at = self.0.as_ptr().align_offset(ALIGNMENT_BYTES);
        &mut self.0[at..][..SCRATCH_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_for_direct_access() {
        let mut scratch = Scratch::default();
        let bytes = scratch.bytes();
        assert_eq!((bytes.len(), bytes.as_ptr() as usize % ALIGNMENT_BYTES), (SCRATCH_BYTES, 0));
    }
}
