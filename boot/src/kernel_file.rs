//! What kind of kernel a file is.

use wire::pc::HIGH_RAM_BASE;

use crate::kernel::Kernel;
use crate::{Error, Protocol, bzimage, elf};

/// Reads `file`. There is RAM below `low_end`.
pub(crate) fn parse(file: &[u8], low_end: u64, prefer: Protocol) -> Result<Kernel<'_>, Error> {
    let room = HIGH_RAM_BASE..low_end;
    if file.starts_with(b"\x7fELF") {
        elf::parse(file, room, prefer)
    } else if bzimage::is_one(file) {
        bzimage::parse(file, room)
    } else {
        Err(not_a_kernel(file))
    }
}

fn not_a_kernel(file: &[u8]) -> Error {
    let hint = match file {
        [] => ": the file is empty",
        [0x1f, 0x8b, ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [b'B', b'Z', b'h', ..] => ": it is compressed, unpack it first",
        [b'M', b'Z', ..] => ": a program for UEFI without a bzImage in it",
        [b'!', b'<', b'a', b'r', ..] => ": a package, take boot/vmlinuz out of it",
        _ => "",
    };
    let begins = file.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    Error::NotAKernel { begins: if begins.is_empty() { "nothing".into() } else { begins }, hint }
}
