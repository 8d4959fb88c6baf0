//! A bzImage (`vmlinuz`): a compressed kernel with its own unpacker, which is entered in 64-bit mode.
//!
//! ```text
//!   file     | boot sector, setup: setup_sects and 1 sectors | payload: the unpacker and what it unpacks |
//!                header at 0x1f1                                 to 1 MiB; entered 0x200 behind its start
//!   memory   1 MiB: payload          start of the kernel: init_size bytes, which it unpacks itself in
//! ```
//!
//! Documentation/arch/x86/boot.rst; numbers in parentheses are the version of the protocol.

use std::ops::Range;

use linux_loader::loader::bootparam::setup_header;
use vm_memory::ByteValued;
use wire::pc::HOLE;

use crate::Error;
use crate::Write;
use crate::kernel::{Entry, Kernel, place};

const HEADER_AT: usize = 0x1f1;
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
const SECTOR_BYTES: u64 = 512;
/// The first version that says whether there is an entry of 64 bits (2.12).
const VERSION_MIN: u16 = 0x020c;
/// `loadflags`: the payload goes to 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is an entry of 64 bits.
const XLF_KERNEL_64: u16 = 1;
/// Where that is, from the start of the payload.
const ENTRY_64_OFFSET: u64 = 0x200;

pub(crate) fn is_one(file: &[u8]) -> bool {
    file.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) == Some(MAGIC)
}

pub(crate) fn parse(file: &[u8], room: Range<u64>) -> Result<Kernel<'_>, Error> {
    let file_bytes = file.len() as u64;
    let header_end = HEADER_AT + size_of::<setup_header>();
    let truncated = |what: &str, end: u64| Error::Truncated { what: what.into(), end, file_bytes };
    let bytes = file.get(HEADER_AT..header_end).ok_or_else(|| truncated("setup header", header_end as u64))?;
    let mut header = setup_header::default();
    header.as_mut_slice().copy_from_slice(bytes);
    check(&header)?;

    // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
    let setup_sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let setup_bytes = (setup_sectors + 1) * SECTOR_BYTES;
    let payload = file.get(setup_bytes as usize..).filter(|payload| payload.len() as u64 > ENTRY_64_OFFSET);
    let payload = payload.ok_or_else(|| truncated("setup code", setup_bytes + ENTRY_64_OFFSET))?;

    let load = place(|| "payload".into(), room.start, payload.len() as u64, &room)?;
    // Where it unpacks itself: where it prefers to be, or at its alignment behind its load address, if it can
    // be moved.
    let alignment = u64::from(header.kernel_alignment);
    let start = if header.relocatable_kernel == 0 {
        header.pref_address
    } else {
        header.pref_address.max(load.start.next_multiple_of(alignment))
    };
    let run = place(|| "unpacked kernel".into(), start, header.init_size.into(), &room)?;
    Ok(Kernel {
        end: run.end.max(load.end),
        entry: Entry::Linux64(load.start + ENTRY_64_OFFSET),
        command_line_bytes_max: header.cmdline_size as usize,
        initrd_end_max: (u64::from(header.initrd_addr_max) + 1).min(HOLE.start),
        parts: vec![Write { gpa: load.start, bytes: payload.into() }],
        header: Some(header),
    })
}

fn check(header: &setup_header) -> Result<(), Error> {
    // Copies: the header is packed.
    let setup_header { version, loadflags, xloadflags, kernel_alignment, .. } = *header;
    let wrong = |what, found, needed: String| Err(Error::Header { what, found, needed });
    if version < VERSION_MIN {
        let text = |version: u16| format!("{}.{:02}", version >> 8, version & 0xff);
        return wrong("boot protocol", text(version), format!("{} or later (Linux 3.8)", text(VERSION_MIN)));
    }
    if loadflags & LOADED_HIGH == 0 {
        return wrong("loadflags", format!("{loadflags:#x}"), "bit 0: a zImage cannot be started".into());
    }
    if xloadflags & XLF_KERNEL_64 == 0 {
        return wrong("xloadflags", format!("{xloadflags:#x}"), "bit 0: a kernel for x86-64".into());
    }
    if !kernel_alignment.is_power_of_two() {
        return wrong("kernel_alignment", format!("{kernel_alignment:#x}"), "a power of two".into());
    }
    Ok(())
}
