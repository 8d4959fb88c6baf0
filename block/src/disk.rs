//! What a disk is to the device, and a file or block device as one.
//!
//! A disk's geometry is looked at once. If its file becomes shorter later, reads behind its end fail, and
//! that is all.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};
use wire::block::SECTOR_BYTES;

/// Zeroes that are written at once where the file system has no better way.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Whether a guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It may not.
    ReadOnly,
}

/// A disk's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of a block, which requests are best aligned to.
    pub block_bytes: u32,
}

/// Where a device's bytes are. Ranges are inside of the geometry; a call may block, and does all or fails.
pub trait Disk: Send + Sync {
    /// How large it is; always the same.
    fn geometry(&self) -> Geometry;
    /// Whether it may be written; always the same.
    fn access(&self) -> Access;
    /// Fills `into` from this byte on.
    fn read_at(&self, at_byte: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes `from` from this byte on.
    fn write_at(&self, at_byte: u64, from: &[u8]) -> io::Result<()>;
    /// What was written so far is stable once this has returned.
    fn flush(&self) -> io::Result<()>;
    /// Nobody needs what is in these bytes.
    fn discard(&self, bytes: Range<u64>) -> io::Result<()>;
    /// These bytes are zero once this has returned; whether their space may go is the driver's wish.
    fn write_zeroes(&self, bytes: Range<u64>, may_deallocate: bool) -> io::Result<()>;
}

/// Why a descriptor is no disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Its size cannot be had.
    #[error("its size cannot be found out")]
    Size(#[source] io::Error),
    /// It has no sector.
    #[error("{bytes} bytes are less than a block of {block_bytes}")]
    Small {
        /// How long it is.
        bytes: u64,
        /// How long a block is.
        block_bytes: u32,
    },
    /// Not a size that a block can have.
    #[error("a block of {block_bytes} bytes: must be a power of two from 512 to 4096")]
    Block {
        /// How long it would be.
        block_bytes: u32,
    },
}

/// A raw file or a block device, opened elsewhere.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    geometry: Geometry,
    access: Access,
}

impl FileDisk {
    /// The disk behind `file`, in whole blocks. `block_bytes` is 512, or what the descriptor needs its
    /// accesses aligned to (`O_DIRECT`).
    ///
    /// # Errors
    /// It has no size, or less than a block.
    pub fn new(file: File, access: Access, block_bytes: u32) -> Result<Self, DiskError> {
        if !block_bytes.is_power_of_two() || !(SECTOR_BYTES as u32..=4096).contains(&block_bytes) {
            return Err(DiskError::Block { block_bytes });
        }
        // Block devices say 0 in their metadata.
        let bytes = (&file).seek(SeekFrom::End(0)).map_err(DiskError::Size)?;
        if bytes < block_bytes.into() {
            return Err(DiskError::Small { bytes, block_bytes });
        }
        let sectors = (bytes - bytes % u64::from(block_bytes)) / SECTOR_BYTES;
        Ok(FileDisk { file, geometry: Geometry { sectors, block_bytes }, access })
    }

    fn fallocate(&self, flags: FallocateFlags, bytes: &Range<u64>) -> nix::Result<()> {
        // Inside of the geometry, which is a file's, so both fit.
        fallocate(
            &self.file,
            flags | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            bytes.start as i64,
            (bytes.end - bytes.start) as i64,
        )
    }
}

impl Disk for FileDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn access(&self) -> Access {
        self.access
    }

    fn read_at(&self, at_byte: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at_byte)
    }

    fn write_at(&self, at_byte: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_all_at(from, at_byte)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, bytes: Range<u64>) -> io::Result<()> {
        match self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, &bytes) {
            // It is a hint (5.2.6.2: "the device MAY deallocate").
            Err(nix::Error::EOPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn write_zeroes(&self, bytes: Range<u64>, may_deallocate: bool) -> io::Result<()> {
        let flags =
            if may_deallocate { FallocateFlags::FALLOC_FL_PUNCH_HOLE } else { FallocateFlags::FALLOC_FL_ZERO_RANGE };
        match self.fallocate(flags, &bytes) {
            Err(nix::Error::EOPNOTSUPP) => {
                let mut at_byte = bytes.start;
                while at_byte < bytes.end {
                    let step = (bytes.end - at_byte).min(ZEROES.len() as u64);
                    self.write_at(at_byte, &ZEROES[..step as usize])?;
                    at_byte += step;
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }
}
