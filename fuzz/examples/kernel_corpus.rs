//! Writes the first inputs of `kernel` into the folder given: small kernels of both kinds.
//!
//!     cargo run --example kernel-corpus -- corpus

use std::fs;

#[path = "../../boot/tests/files/mod.rs"]
mod files;

use files::{Header, bzimage, code, data, elf, vmlinux, vmlinuz};

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("the folder of the corpus");
    let without_note = elf(0x100_0000, &[code(0x100_0000, &[0x90; 64]), data(0x100_0040, b"", 0x1000)]);
    let fixed = Header { relocatable: 0, setup_sects: 0, ..Header::default() };
    for (name, how, kernel) in [
        ("vmlinux", 0, vmlinux()),
        ("vmlinux-in-64-bits", 0b01001, vmlinux()),
        ("vmlinux-without-note", 0b10110, without_note),
        ("vmlinuz", 0b11000, vmlinuz()),
        ("vmlinuz-fixed", 0b00010, bzimage(fixed, &[0x90; 1024])),
    ] {
        fs::write(format!("{folder}/kernel/{name}"), [&[how][..], &kernel].concat())?;
    }
    Ok(())
}
