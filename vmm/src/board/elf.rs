//! The guest image: a static ELF executable whose segments lie where `wire::machine` has room for them.
//!
//! It may come from a file of the user, so everything is checked before a byte is copied.

use elf::{ElfBytes, abi, endian::LittleEndian, file::Class};
use wire::machine::{IMAGE_BASE, IMAGE_BYTES_MAX};

use crate::Error;

/// Part of an image that has bytes of its own; what lies beyond them (`.bss`) is zero as the memory is.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it goes, inside the image's area.
    pub gpa: u64,
    /// What goes there.
    pub bytes: &'a [u8],
}

/// An image that fits.
#[derive(Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// First instruction, inside an executable segment.
    pub entry: u64,
    /// What to load.
    pub segments: Vec<Segment<'a>>,
}

impl<'a> Image<'a> {
    /// Reads `file`.
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| Error::Image("not an ELF file"))?;
        let header = &elf.ehdr;
        if header.class != Class::ELF64 || header.e_machine != abi::EM_X86_64 {
            return Err(Error::Image("not for x86-64"));
        }
        if header.e_type != abi::ET_EXEC && header.e_type != abi::ET_DYN {
            return Err(Error::Image("not an executable"));
        }
        let entry = header.e_entry;
        let (mut segments, mut entry_is_code) = (Vec::new(), false);
        for header in elf.segments().ok_or(Error::Image("has no segments"))?.iter() {
            if header.p_type != abi::PT_LOAD {
                continue;
            }
            let end = header.p_vaddr.checked_add(header.p_memsz);
            let fits = end.is_some_and(|end| header.p_vaddr >= IMAGE_BASE && end <= IMAGE_BASE + IMAGE_BYTES_MAX);
            if !fits || header.p_filesz > header.p_memsz {
                return Err(Error::Image("has a segment outside of the image's area"));
            }
            let bytes = elf.segment_data(&header).map_err(|_| Error::Image("is truncated"))?;
            let holds_entry = entry >= header.p_vaddr && entry - header.p_vaddr < header.p_memsz;
            entry_is_code |= holds_entry && header.p_flags & abi::PF_X != 0;
            segments.push(Segment { gpa: header.p_vaddr, bytes });
        }
        if !entry_is_code {
            return Err(Error::Image("starts outside of its code"));
        }
        Ok(Self { entry, segments })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER_BYTES: usize = 64;
    const SEGMENT_BYTES: usize = 56;

    /// An image of one segment at `gpa` that holds `code` and starts with it.
    pub(crate) fn image(gpa: u64, code: &[u8]) -> Vec<u8> {
        let mut file = vec![0; HEADER_BYTES + SEGMENT_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &abi::ET_EXEC.to_le_bytes());
        put(18, &abi::EM_X86_64.to_le_bytes());
        put(20, &1u32.to_le_bytes());
        put(24, &gpa.to_le_bytes());
        put(32, &(HEADER_BYTES as u64).to_le_bytes());
        put(52, &(HEADER_BYTES as u16).to_le_bytes());
        put(54, &(SEGMENT_BYTES as u16).to_le_bytes());
        put(56, &1u16.to_le_bytes());
        put(HEADER_BYTES, &abi::PT_LOAD.to_le_bytes());
        put(HEADER_BYTES + 4, &(abi::PF_R | abi::PF_X).to_le_bytes());
        put(HEADER_BYTES + 8, &((HEADER_BYTES + SEGMENT_BYTES) as u64).to_le_bytes());
        put(HEADER_BYTES + 16, &gpa.to_le_bytes());
        put(HEADER_BYTES + 32, &(code.len() as u64).to_le_bytes());
        put(HEADER_BYTES + 40, &(code.len() as u64).to_le_bytes());
        file.extend(code);
        file
    }

    #[test]
    fn a_segment_is_found_with_its_bytes_and_place() {
        let file = image(IMAGE_BASE, b"code");
        let segments = vec![Segment { gpa: IMAGE_BASE, bytes: b"code" }];
        assert_eq!(Image::parse(&file).unwrap(), Image { entry: IMAGE_BASE, segments });
    }

    #[test]
    fn a_segment_outside_of_the_area_is_refused() {
        for gpa in [0, IMAGE_BASE - 1, IMAGE_BASE + IMAGE_BYTES_MAX - 3, u64::MAX - 1] {
            assert!(matches!(Image::parse(&image(gpa, b"code")), Err(Error::Image(_))), "{gpa:#x}");
        }
    }

    #[test]
    fn a_truncated_image_is_refused() {
        let file = image(IMAGE_BASE, b"code");
        for bytes in 0..file.len() {
            assert!(Image::parse(&file[..bytes]).is_err(), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn damaged_images_never_panic_and_never_leave_the_area(
            damage in proptest::collection::vec((0usize..124, any::<u8>()), 1..8)
        ) {
            let mut file = image(IMAGE_BASE, b"code");
            damage.into_iter().for_each(|(at, byte)| file[at] = byte);
            for segment in Image::parse(&file).map(|image| image.segments).unwrap_or_default() {
                prop_assert!(segment.gpa >= IMAGE_BASE);
                prop_assert!(segment.gpa + segment.bytes.len() as u64 <= IMAGE_BASE + IMAGE_BYTES_MAX);
            }
        }
    }
}
