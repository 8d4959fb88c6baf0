//! What becomes of kernels, right and wrong ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod files;

use boot::{Boot, Config, Error, Protocol, VirtioMmio, Write, prepare, ram_ranges};
use files::{
    DEVICES, Header, MIB, RAM_BYTES, Segment, bzimage, code, config, data, elf, note, pvh_note, vmlinux, vmlinuz,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader, PvhBootCapability};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// What no machine may break: writes are sorted, disjoint, in RAM, and not where KVM and devices are.
fn check(boot: &Boot<'_>, config: &Config<'_>) {
    assert!(boot.writes.windows(2).all(|pair| pair[0].end() <= pair[1].gpa), "two writes to one place");
    for Write { gpa, bytes } in &boot.writes {
        let end = gpa + bytes.len() as u64;
        assert!(!bytes.is_empty() && ram_ranges(config.ram_bytes).any(|ram| *gpa >= ram.start && end <= ram.end));
    }
    assert!(bytes_at(boot, boot.start.rip, 1).is_some(), "it starts at a byte that was written");
}

fn bytes_at<'a>(boot: &'a Boot<'_>, gpa: u64, bytes: usize) -> Option<&'a [u8]> {
    let write = boot.writes.iter().find(|write| write.gpa <= gpa && gpa < write.end())?;
    write.bytes.get((gpa - write.gpa) as usize..)?.get(..bytes)
}

fn le64(boot: &Boot<'_>, gpa: u64) -> u64 {
    u64::from_le_bytes(bytes_at(boot, gpa, 8).unwrap().try_into().unwrap())
}

fn le32(boot: &Boot<'_>, gpa: u64) -> u32 {
    u32::from_le_bytes(bytes_at(boot, gpa, 4).unwrap().try_into().unwrap())
}

fn prepared<'a>(config: &Config<'a>) -> Boot<'a> {
    let boot = prepare(config).unwrap();
    check(&boot, config);
    boot
}

#[test]
fn an_elf_kernel_with_the_note_is_entered_by_it() {
    let kernel = vmlinux();
    let initrd = [7; 5000];
    let boot = prepared(&Config { initrd: Some(&initrd), ..config(&kernel) });
    let start = boot.start;
    assert_eq!((boot.protocol, start.rip, start.cr0 & 1, start.cr3), (Protocol::Pvh, 0x100_0010, 1, 0));
    assert!(start.code.wide && !start.code.long);
    assert_eq!(bytes_at(&boot, 0x120_0000, 4), Some(&b"data"[..]));
    // hvm_start_info, Xen's public/arch-x86/hvm/start_info.h.
    let at = start.rbx;
    assert_eq!((le32(&boot, at), le32(&boot, at + 4), le32(&boot, at + 12)), (0x336e_c578, 1, 1));
    let (modules, line, pointer, map) =
        (le64(&boot, at + 16), le64(&boot, at + 24), le64(&boot, at + 32), le64(&boot, at + 40));
    assert_eq!(bytes_at(&boot, line, 14), Some(&b"console=ttyS0\0"[..]));
    assert_eq!(bytes_at(&boot, pointer, 8), Some(&b"RSD PTR "[..]));
    let place = le64(&boot, modules);
    assert_eq!((place % 4096, le64(&boot, modules + 8)), (0, 5000));
    assert_eq!((place, bytes_at(&boot, place, 5000)), (RAM_BYTES - 2 * 4096, Some(&initrd[..])));
    let regions: Vec<_> = (0..u64::from(le32(&boot, at + 48)))
        .map(|nth| (le64(&boot, map + nth * 24), le64(&boot, map + nth * 24 + 8), le32(&boot, map + nth * 24 + 16)))
        .collect();
    assert_eq!(regions, [(0, 0x9_fc00, 1), (0x9_fc00, 0x400, 2), (0xe_0000, 0x2_0000, 3), (MIB, RAM_BYTES - MIB, 1)]);
}

#[test]
fn an_elf_kernel_is_entered_in_64_bits_where_that_is_wanted_or_there_is_no_note() {
    let with_note = vmlinux();
    let without = elf(0x100_0000, &[code(0x100_0000, &[0x90; 300])]);
    for (kernel, prefer) in [(&with_note, Protocol::Linux64), (&without, Protocol::Pvh)] {
        let boot = prepared(&Config { prefer, ram_bytes: 5 << 30, ..config(kernel) });
        let start = boot.start;
        assert_eq!((boot.protocol, start.rip, start.rbx), (Protocol::Linux64, 0x100_0000, 0));
        assert!(start.code.long && start.cr0 >> 31 == 1 && start.cr4 == 0x20 && start.efer == 0x500);
        assert_eq!(le64(&boot, start.cr3), 0xa003);
        // The zero page: E820's entries, their number at 0x1e8, the root pointer at 0x70, the header's mark.
        let page = start.rsi;
        let count = bytes_at(&boot, page + 0x1e8, 1).unwrap()[0];
        let last = page + 0x2d0 + u64::from(count - 1) * 20;
        assert_eq!((count, le64(&boot, last), le64(&boot, last + 8), le32(&boot, last + 16)), (5, 4 << 30, 2 << 30, 1));
        assert_eq!(bytes_at(&boot, le64(&boot, page + 0x70), 8), Some(&b"RSD PTR "[..]));
        assert_eq!(
            (bytes_at(&boot, page + 0x202, 4), bytes_at(&boot, page + 0x210, 1)),
            (Some(&b"HdrS"[..]), Some(&[0xff][..]))
        );
        assert_eq!(bytes_at(&boot, le32(&boot, page + 0x228).into(), 7), Some(&b"console"[..]));
    }
}

#[test]
fn a_bzimage_is_entered_in_64_bits_and_told_what_it_said_of_itself() {
    let kernel = vmlinuz();
    let initrd = [7; 5000];
    let boot = prepared(&Config { initrd: Some(&initrd), ..config(&kernel) });
    assert_eq!((boot.protocol, boot.start.rip), (Protocol::Linux64, MIB + 0x200));
    let page = boot.start.rsi;
    // All of the header but what the loader writes: who it is, where the disk and the line are.
    let header = bytes_at(&boot, page + 0x1f1, 0x7b).unwrap();
    let changed: Vec<_> = (0x1f1..0x26c).filter(|&at| header[at - 0x1f1] != kernel[at]).collect();
    assert!(changed.iter().all(|at| matches!(at, 0x210 | 0x218..0x220 | 0x228..0x22c)), "{changed:x?}");
    let (place, bytes) = (le32(&boot, page + 0x218), le32(&boot, page + 0x21c));
    assert_eq!((bytes_at(&boot, place.into(), 5000), bytes), (Some(&initrd[..]), 5000));
    assert_eq!(bytes_at(&boot, MIB, 5000), Some(&[0x90; 5000][..]));
    let zero_sectors = bzimage(Header { setup_sects: 0, ..Header::default() }, &[0x91; 4000]);
    assert_eq!(bytes_at(&prepared(&config(&zero_sectors)), MIB, 1), Some(&[0x91][..]), "0 means 4");
}

#[test]
fn an_initrd_is_below_what_kernel_and_hole_allow_and_above_the_kernel() {
    let initrd = vec![7; 4097];
    let place = |kernel: &[u8], ram_bytes| {
        let boot = prepare(&Config { initrd: Some(&initrd), ram_bytes, ..config(kernel) })?;
        let found = boot.writes.iter().find(|write| *write.bytes == initrd[..]).unwrap().gpa;
        Ok::<_, Error>(found)
    };
    assert_eq!(place(&vmlinux(), 8 << 30), Ok(0xc000_0000 - 0x2000), "below the hole");
    let low = bzimage(Header { initrd_addr_max: 0x37ff_ffff, ..Header::default() }, &[0x90; 5000]);
    assert_eq!(place(&low, 8 << 30), Ok(0x3800_0000 - 0x2000), "where the kernel can reach it");
    // The kernel unpacks itself to 16 MiB + 8 MiB, so two pages fit behind it, and one does not.
    assert_eq!(place(&vmlinuz(), 24 * MIB + 0x2000), Ok(24 * MIB));
    assert_eq!(
        place(&vmlinuz(), 24 * MIB + 0x1000),
        Err(Error::Initrd { bytes: 4097, low: 24 * MIB, high: 24 * MIB + 0x1000 })
    );
    let kernel = vmlinux();
    let nothing = prepare(&Config { initrd: Some(&[]), ..config(&kernel) });
    assert!(matches!(nothing, Err(Error::Initrd { bytes: 0, .. })));
}

/// Why a kernel is refused, as the user reads it.
fn refusal(kernel: &[u8]) -> String {
    prepare(&config(kernel)).unwrap_err().to_string()
}

#[test]
fn what_is_no_kernel_is_named_by_how_it_begins() {
    assert_eq!(refusal(b"#!/bin/sh"), "kernel: neither an ELF file nor a bzImage, it begins with 23 21 2f 62");
    assert_eq!(refusal(b""), "kernel: neither an ELF file nor a bzImage, it begins with nothing: the file is empty");
    assert!(refusal(&[0x1f, 0x8b, 8, 0]).ends_with("1f 8b 08 00: it is compressed, unpack it first"));
    let mut foreign = vmlinux();
    foreign[18] = 183;
    assert_eq!(
        refusal(&foreign),
        "kernel: ELF header, which is ELF64, machine 183; needed is ELF64, machine 62 (x86-64)"
    );
    foreign[4] = 1;
    assert!(refusal(&foreign).starts_with("kernel: ELF header"));
    let object = {
        let mut file = vmlinux();
        file[16] = 1;
        file
    };
    assert!(refusal(&object).starts_with("kernel: ELF type, which is 1"));
}

#[test]
fn segments_that_overlap_or_are_out_of_range_are_named() {
    let text = [0x90; 0x2000];
    let with = |segment| elf(0x100_0000, &[code(0x100_0000, &text), segment]);
    for (gpa, memory_bytes) in [(0x100_1fff, 1), (0x0ff_f000, 0x1001), (0x100_0800, 16), (0x100_0000, 0x2000)] {
        let refusal = refusal(&with(data(gpa, b"", memory_bytes)));
        assert!(refusal.starts_with("kernel: segments ") && refusal.contains("are both for 0x100"), "{refusal}");
    }
    assert!(prepare(&config(&with(data(0x100_2000, b"", 0x1000)))).is_ok(), "side by side");
    for (gpa, memory_bytes) in
        [(0, 16), (MIB - 1, 16), (RAM_BYTES - 1, 2), (RAM_BYTES, 1), (1 << 40, 1), (u64::MAX, 9), (MIB, u64::MAX)]
    {
        let refusal = refusal(&with(data(gpa, b"", memory_bytes)));
        assert!(refusal.starts_with(&format!("kernel: segment 1 is for {gpa:#x} to ")), "{refusal}");
        assert!(refusal.ends_with("there is RAM for it from 0x100000 to 0x4000000"), "{refusal}");
    }
    let longer = with(data(0x200_0000, b"four", 3));
    assert_eq!(refusal(&longer), "kernel: p_filesz, which is 4 bytes of 3 in segment 1; needed is at most 3");
}

#[test]
fn an_entry_outside_of_the_code_is_refused() {
    let text = [0x90; 64];
    for entry in [0, 0xff_ffff, 0x100_0040, 0x200_0000, u64::MAX] {
        let kernel = elf(entry, &[code(0x100_0000, &text), data(0x200_0000, b"data", 4)]);
        assert_eq!(prepare(&config(&kernel)).unwrap_err(), Error::Entry { entry });
    }
    // Code that is not in the file is zeroes.
    let empty = Segment { memory_bytes: 0x1000, ..code(0x100_0000, &text) };
    let kernel = elf(0x100_0040, &[empty]);
    assert_eq!(prepare(&config(&kernel)).unwrap_err(), Error::Entry { entry: 0x100_0040 });
    let wrong_note = pvh_note(0x200_0000);
    let kernel = elf(0x100_0000, &[note(&wrong_note), code(0x100_0000, &text)]);
    assert_eq!(prepare(&config(&kernel)).unwrap_err(), Error::Entry { entry: 0x200_0000 });
}

#[test]
fn bzimages_that_cannot_be_started_are_refused_with_the_value() {
    let refusal = |header| refusal(&bzimage(header, &[0x90; 5000]));
    let header = Header::default();
    assert_eq!(
        refusal(Header { version: 0x20b, ..header }),
        "kernel: boot protocol, which is 2.11; needed is 2.12 or later (Linux 3.8)"
    );
    assert!(refusal(Header { loadflags: 0, ..header }).starts_with("kernel: loadflags, which is 0x0"));
    assert!(refusal(Header { xloadflags: 2, ..header }).contains("a kernel for x86-64"));
    for kernel_alignment in [0, 3, 0x20_0001] {
        assert!(refusal(Header { kernel_alignment, ..header }).contains("needed is a power of two"));
    }
    for (pref_address, init_size) in [(0x100_0000, 0x400_0000), (u64::MAX - 5, 0x1000), (1 << 40, 1)] {
        let refusal = refusal(Header { pref_address, init_size, ..header });
        assert!(refusal.starts_with("kernel: unpacked kernel is for ") && refusal.ends_with("0x4000000"), "{refusal}");
    }
    assert!(refusal(Header { relocatable: 0, pref_address: 0x1000, ..header }).starts_with("kernel: unpacked kernel"));
    let long = bzimage(header, &vec![0x90; RAM_BYTES as usize]);
    assert!(files_refusal(&long).starts_with("kernel: payload is for 0x100000 to 0x4100000"));
    for bytes in [0x206, 0x230, 0x26b, 2048, 2048 + 0x200] {
        assert!(files_refusal(&vmlinuz()[..bytes]).starts_with("kernel: set"), "{bytes}");
    }
}

fn files_refusal(kernel: &[u8]) -> String {
    refusal(kernel)
}

#[test]
fn what_is_around_the_kernel_is_checked_too() {
    let kernel = vmlinux();
    let refused = |config: Config<'_>| prepare(&config).unwrap_err();
    let config = config(&kernel);
    let long = "x".repeat(2048);
    assert_eq!(
        refused(Config { command_line: &long, ..config }).to_string(),
        "command line of 2048 bytes: this kernel takes at most 2047"
    );
    assert_eq!(refused(Config { vcpus: 0, ..config }), Error::Vcpus { vcpus: 0 });
    assert_eq!(refused(Config { vcpus: 256, ..config }).to_string(), "256 vCPUs: must be from 1 to 255");
    assert_eq!(refused(Config { ram_bytes: 1000, ..config }), Error::Ram { bytes: 1000 });
    let device = DEVICES[0];
    for base in [0, 0xd000_0800, 0xfec0_0000, 0xd010_0000] {
        assert_eq!(
            refused(Config { devices: &[VirtioMmio { base, ..device }], ..config }),
            Error::DeviceWindow { base }
        );
    }
    for interrupt in [0, 4, 9, 24, u32::MAX] {
        let devices = [VirtioMmio { interrupt, ..device }];
        assert!(
            matches!(refused(Config { devices: &devices, ..config }), Error::DeviceInterrupt { .. }),
            "{interrupt}"
        );
    }
    let twice = [device, VirtioMmio { interrupt: 17, ..device }];
    assert!(matches!(refused(Config { devices: &twice, ..config }), Error::DeviceWindow { .. }));
    let shared = [device, VirtioMmio { base: 0xd000_1000, ..device }];
    assert!(matches!(refused(Config { devices: &shared, ..config }), Error::DeviceInterrupt { interrupt: 16, .. }));
}

#[test]
fn linux_loader_puts_the_same_bytes_in_the_same_places() {
    let memory = || GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM_BYTES as usize)]).unwrap();
    let all = |memory: &GuestMemoryMmap<()>| {
        let mut bytes = vec![0; (RAM_BYTES - MIB) as usize];
        memory.read_slice(&mut bytes, GuestAddress(MIB)).unwrap();
        bytes
    };
    for kernel in [vmlinux(), vmlinuz()] {
        let (theirs, ours) = (memory(), memory());
        let entry = if kernel.starts_with(b"\x7fELF") {
            let loaded = Elf::load(&theirs, None, &mut std::io::Cursor::new(&kernel), None).unwrap();
            let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else { panic!("{loaded:?}") };
            entry.0
        } else {
            BzImage::load(&theirs, None, &mut std::io::Cursor::new(&kernel), None).unwrap().kernel_load.0 + 0x200
        };
        let boot = prepared(&config(&kernel));
        boot.writes.iter().for_each(|write| ours.write_slice(&write.bytes, GuestAddress(write.gpa)).unwrap());
        assert!(boot.start.rip == entry && all(&theirs) == all(&ours));
    }
}

/// Kernels that are damaged in a few places, most of them in their headers.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let file = prop::sample::select(vec![vmlinux(), vmlinuz()]);
    let at = prop_oneof![3 => 0usize..300, 3 => 0x1f1usize..0x270, 1 => 0usize..8000];
    let damage = prop::collection::vec((at, prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 0..12);
    (file, damage, prop_oneof![4 => Just(usize::MAX), 1 => 0usize..8000]).prop_map(|(mut file, damage, length)| {
        for (at, byte) in damage {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        file.truncate(length);
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_file_makes_a_machine_that_writes_outside_of_its_ram(
        kernel in damaged(),
        initrd in prop::option::of(0usize..0x300_0000),
        ram_bytes in prop_oneof![Just(RAM_BYTES), (4u64..0x4000).prop_map(|pages| pages * 0x1000), (0u64..8).prop_map(|n| n << 30)],
        vcpus in 0u32..300,
        prefer in prop::sample::select(vec![Protocol::Pvh, Protocol::Linux64]),
    ) {
        static INITRD: [u8; 0x300_0000] = [7; 0x300_0000];
        let initrd = initrd.map(|bytes| &INITRD[..bytes]);
        let config = Config { initrd, ram_bytes, vcpus, prefer, ..config(&kernel) };
        match prepare(&config) {
            Ok(boot) => check(&boot, &config),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), magic: bool) {
        let mut kernel = bytes;
        if magic && kernel.len() >= 4 {
            kernel[..4].copy_from_slice(b"\x7fELF");
        }
        let _ = prepare(&config(&kernel));
    }
}
