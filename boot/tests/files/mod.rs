//! Kernels' files, as right or wrong as a test wants them.

#![allow(dead_code, reason = "each test file uses its own part")]

use boot::{Config, Protocol, VirtioMmio};

pub const MIB: u64 = 1 << 20;
pub const RAM_BYTES: u64 = 64 * MIB;
pub const DEVICES: &[VirtioMmio] =
    &[VirtioMmio { base: 0xd000_0000, interrupt: 16 }, VirtioMmio { base: 0xd000_1000, interrupt: 5 }];

/// A machine for `kernel`.
pub fn config(kernel: &[u8]) -> Config<'_> {
    Config {
        kernel,
        initrd: None,
        command_line: "console=ttyS0",
        ram_bytes: RAM_BYTES,
        vcpus: 2,
        devices: DEVICES,
        prefer: Protocol::Pvh,
    }
}

/// A segment of an ELF file.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    pub kind: u32,
    pub flags: u32,
    pub gpa: u64,
    pub memory_bytes: u64,
    pub bytes: &'a [u8],
}

pub fn code(gpa: u64, bytes: &[u8]) -> Segment<'_> {
    Segment { kind: 1, flags: 5, gpa, memory_bytes: bytes.len() as u64, bytes }
}

pub fn data(gpa: u64, bytes: &[u8], memory_bytes: u64) -> Segment<'_> {
    Segment { kind: 1, flags: 6, gpa, memory_bytes, bytes }
}

pub fn note(bytes: &[u8]) -> Segment<'_> {
    Segment { kind: 4, flags: 4, gpa: 0, memory_bytes: 0, bytes }
}

/// The note with the entry of 32 bits, behind another note.
pub fn pvh_note(entry: u32) -> Vec<u8> {
    let other = [&4u32.to_le_bytes()[..], &6u32.to_le_bytes(), &1u32.to_le_bytes(), b"Xen\0", b"linux\0\0\0"];
    let ours = [&4u32.to_le_bytes()[..], &4u32.to_le_bytes(), &18u32.to_le_bytes(), b"Xen\0", &entry.to_le_bytes()];
    [other.concat(), ours.concat()].concat()
}

/// An ELF file with these segments, headers first.
pub fn elf(entry: u64, segments: &[Segment<'_>]) -> Vec<u8> {
    const HEADER: usize = 64;
    const SEGMENT: usize = 56;
    let mut file = vec![0; HEADER + SEGMENT * segments.len()];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &entry.to_le_bytes());
    put(32, &(HEADER as u64).to_le_bytes());
    put(52, &(HEADER as u16).to_le_bytes());
    put(54, &(SEGMENT as u16).to_le_bytes());
    put(56, &(segments.len() as u16).to_le_bytes());
    let mut offset = (HEADER + SEGMENT * segments.len()) as u64;
    for (nth, segment) in segments.iter().enumerate() {
        let at = HEADER + nth * SEGMENT;
        put(at, &segment.kind.to_le_bytes());
        put(at + 4, &segment.flags.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        // A kernel's virtual addresses are others.
        put(at + 16, &segment.gpa.wrapping_add(0xffff_ffff_8000_0000).to_le_bytes());
        put(at + 24, &segment.gpa.to_le_bytes());
        put(at + 32, &(segment.bytes.len() as u64).to_le_bytes());
        put(at + 40, &segment.memory_bytes.to_le_bytes());
        put(at + 48, &4u64.to_le_bytes());
        offset += segment.bytes.len() as u64;
    }
    segments.iter().for_each(|segment| file.extend(segment.bytes));
    file
}

/// An ELF kernel that can be entered in both ways.
pub fn vmlinux() -> Vec<u8> {
    let text = [0x90; 300];
    let note = pvh_note(0x100_0010);
    elf(0x100_0000, &[code(0x100_0000, &text), data(0x120_0000, b"data", 0x1000), self::note(&note)])
}

/// What a bzImage says of itself.
#[derive(Clone, Copy)]
pub struct Header {
    pub setup_sects: u8,
    pub version: u16,
    pub loadflags: u8,
    pub xloadflags: u16,
    pub initrd_addr_max: u32,
    pub kernel_alignment: u32,
    pub relocatable: u8,
    pub cmdline_size: u32,
    pub pref_address: u64,
    pub init_size: u32,
}

impl Default for Header {
    fn default() -> Self {
        Header {
            setup_sects: 3,
            version: 0x20f,
            loadflags: 1,
            xloadflags: 0x3,
            initrd_addr_max: 0x7fff_ffff,
            kernel_alignment: 0x20_0000,
            relocatable: 1,
            cmdline_size: 2047,
            pref_address: 0x100_0000,
            init_size: 0x80_0000,
        }
    }
}

/// A bzImage with this header and payload.
pub fn bzimage(header: Header, payload: &[u8]) -> Vec<u8> {
    let setup_sects = if header.setup_sects == 0 { 4 } else { usize::from(header.setup_sects) };
    let mut file = vec![0; (setup_sects + 1) * 512];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[header.setup_sects]);
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &header.version.to_le_bytes());
    put(0x211, &[header.loadflags]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &header.initrd_addr_max.to_le_bytes());
    put(0x230, &header.kernel_alignment.to_le_bytes());
    put(0x234, &[header.relocatable]);
    put(0x236, &header.xloadflags.to_le_bytes());
    put(0x238, &header.cmdline_size.to_le_bytes());
    put(0x258, &header.pref_address.to_le_bytes());
    put(0x260, &header.init_size.to_le_bytes());
    file.extend(payload);
    file
}

/// A bzImage as Debian's is, but small.
pub fn vmlinuz() -> Vec<u8> {
    bzimage(Header::default(), &[0x90; 5000])
}
