//! An ELF kernel (`vmlinux`): segments that go where they say, and a place to start.
//!
//! Addresses are physical ones (`p_paddr`). All segments are checked against RAM and each other before one
//! byte is taken of them; what is behind the bytes of a segment (`.bss`) is zero as memory is.

use std::ops::Range;

use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::Note;
use elf::segment::ProgramHeader;
use elf::{ElfBytes, abi};
use wire::pc::HOLE;

use crate::kernel::{Entry, Kernel, place};
use crate::{Error, Protocol, Write};

/// Type of the note with the entry of 32 bits (`XEN_ELFNOTE_PHYS32_ENTRY`), by the name of [`NOTE_NAME`].
const NOTE_PHYS32_ENTRY: u64 = 18;
const NOTE_NAME: &str = "Xen";
/// `COMMAND_LINE_SIZE` of Linux on x86, less the zero behind it.
const COMMAND_LINE_BYTES_MAX: usize = 2047;

/// A segment with its place.
struct Placed {
    index: usize,
    range: Range<u64>,
    /// What of it is code that the file has.
    code: Range<u64>,
}

pub(crate) fn parse(file: &[u8], room: Range<u64>, prefer: Protocol) -> Result<Kernel<'_>, Error> {
    let wrong = |what, found: String, needed: &str| Error::Header { what, found, needed: needed.into() };
    let unreadable = |error: elf::ParseError| wrong("ELF header", format!("unreadable ({error})"), "one of 64 bits");
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(unreadable)?;
    let header = &elf.ehdr;
    if header.class != Class::ELF64 || header.e_machine != abi::EM_X86_64 {
        let found = format!("{:?}, machine {}", header.class, header.e_machine);
        return Err(wrong("ELF header", found, "ELF64, machine 62 (x86-64)"));
    }
    if header.e_type != abi::ET_EXEC && header.e_type != abi::ET_DYN {
        return Err(wrong("ELF type", header.e_type.to_string(), "2 or 3 (an executable)"));
    }
    let segments = elf.segments().ok_or_else(|| wrong("ELF header", "without segments".into(), "one with segments"))?;

    let (mut placed, mut parts, mut pvh) = (Vec::new(), Vec::new(), None);
    for (index, segment) in segments.iter().enumerate() {
        match segment.p_type {
            abi::PT_LOAD if segment.p_memsz > 0 => {
                let (range, bytes) = load(file, index, &segment, &room)?;
                if !bytes.is_empty() {
                    parts.push(Write { gpa: range.start, bytes: bytes.into() });
                }
                let is_code = segment.p_flags & abi::PF_X != 0;
                let code = range.start..if is_code { range.start + segment.p_filesz } else { range.start };
                placed.push(Placed { index, range, code });
            }
            abi::PT_NOTE => pvh = pvh.or_else(|| phys32_entry(&elf, &segment)),
            _ => {}
        }
    }
    placed.sort_by_key(|segment| segment.range.start);
    if let Some([first, second]) = placed.array_windows().find(|[a, b]| b.range.start < a.range.end) {
        return Err(Error::Overlap { first: first.index, second: second.index, gpa: second.range.start });
    }
    let entry = match (pvh, prefer) {
        (Some(entry), Protocol::Pvh) => Entry::Pvh(entry),
        _ => Entry::Linux64(header.e_entry),
    };
    let (Entry::Pvh(at) | Entry::Linux64(at)) = entry;
    if !placed.iter().any(|segment| segment.code.contains(&at)) {
        return Err(Error::Entry { entry: at });
    }
    let end = placed.last().map_or(room.start, |segment| segment.range.end);
    Ok(Kernel {
        parts,
        end,
        entry,
        header: None,
        command_line_bytes_max: COMMAND_LINE_BYTES_MAX,
        initrd_end_max: HOLE.start,
    })
}

/// The place of a segment and its bytes.
fn load<'a>(
    file: &'a [u8],
    index: usize,
    segment: &ProgramHeader,
    room: &Range<u64>,
) -> Result<(Range<u64>, &'a [u8]), Error> {
    let &ProgramHeader { p_offset, p_paddr, p_filesz, p_memsz, .. } = segment;
    if p_filesz > p_memsz {
        let found = format!("{p_filesz} bytes of {p_memsz} in segment {index}");
        return Err(Error::Header { what: "p_filesz", found, needed: format!("at most {p_memsz}") });
    }
    let range = place(|| format!("segment {index}"), p_paddr, p_memsz, room)?;
    let end = p_offset.saturating_add(p_filesz);
    let bytes = usize::try_from(p_offset).ok().and_then(|start| file.get(start..)?.get(..p_filesz as usize));
    let truncated = || Error::Truncated { what: format!("segment {index}"), end, file_bytes: file.len() as u64 };
    Ok((range, bytes.ok_or_else(truncated)?))
}

/// The entry of 32 bits, if there is a note of it. Notes that cannot be read are none.
fn phys32_entry(elf: &ElfBytes<'_, LittleEndian>, segment: &ProgramHeader) -> Option<u64> {
    elf.segment_data_as_notes(segment).ok()?.find_map(|note| match note {
        Note::Unknown(note) if note.n_type == NOTE_PHYS32_ENTRY && note.name_str().ok()? == NOTE_NAME => {
            Some(u32::from_le_bytes(*note.desc.first_chunk()?).into())
        }
        _ => None,
    })
}
