//! What a kernel is told, in the form of its protocol.

use std::ops::Range;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::ByteValued;
use wire::pc::{PVH_BASE, ZERO_PAGE_BASE};

use crate::kernel::{Entry, Kernel};
use crate::start::{self, Start};
use crate::{Region, Write};

/// `XEN_HVM_START_MAGIC_VALUE`.
const PVH_MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const PVH_VERSION: u32 = 1;

/// What a bzImage's own header would say, for kernels without one: "HdrS", the boot sector's mark, the
/// protocol's version.
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const BOOT_FLAG: u16 = 0xaa55;
const VERSION: u16 = 0x020f;
/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;

/// What there is to tell.
pub(crate) struct Told {
    pub(crate) memory_map: Vec<Region>,
    pub(crate) command_line: u64,
    pub(crate) initrd: Option<Range<u64>>,
    pub(crate) root_pointer: u64,
}

/// The registers for `kernel`, what they point to, and what it is told.
pub(crate) fn write(kernel: &Kernel<'_>, told: &Told) -> (Vec<Write<'static>>, Start) {
    let (mut writes, start) = start::write(kernel.entry);
    writes.push(match kernel.entry {
        Entry::Pvh(_) => start_information(told),
        Entry::Linux64(_) => zero_page(kernel.header, told),
    });
    (writes, start)
}

/// The start information, and behind it the memory map and the one module.
fn start_information(told: &Told) -> Write<'static> {
    let map: Vec<_> = told
        .memory_map
        .iter()
        .map(|region| hvm_memmap_table_entry {
            addr: region.range.start,
            size: region.range.end - region.range.start,
            type_: region.kind as u32,
            reserved: 0,
        })
        .collect();
    let map_at = PVH_BASE + size_of::<hvm_start_info>() as u64;
    let module_at = map_at + size_of_val(&map[..]) as u64;
    let module = told.initrd.as_ref().map(|range| hvm_modlist_entry {
        paddr: range.start,
        size: range.end - range.start,
        ..hvm_modlist_entry::default()
    });
    let information = hvm_start_info {
        magic: PVH_MAGIC,
        version: PVH_VERSION,
        nr_modules: module.is_some().into(),
        modlist_paddr: if module.is_some() { module_at } else { 0 },
        cmdline_paddr: told.command_line,
        rsdp_paddr: told.root_pointer,
        memmap_paddr: map_at,
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    let mut bytes = information.as_slice().to_vec();
    map.iter().for_each(|entry| bytes.extend(entry.as_slice()));
    module.iter().for_each(|module| bytes.extend(module.as_slice()));
    Write { gpa: PVH_BASE, bytes: bytes.into() }
}

/// The zero page: the kernel's own header, if it has one, and what the loader fills in.
fn zero_page(header: Option<setup_header>, told: &Told) -> Write<'static> {
    let plain = setup_header { header: MAGIC, boot_flag: BOOT_FLAG, version: VERSION, ..setup_header::default() };
    let mut params =
        boot_params { hdr: header.unwrap_or(plain), acpi_rsdp_addr: told.root_pointer, ..boot_params::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    // All below 4 GiB.
    params.hdr.cmd_line_ptr = told.command_line as u32;
    if let Some(range) = &told.initrd {
        params.hdr.ramdisk_image = range.start as u32;
        params.hdr.ramdisk_size = (range.end - range.start) as u32;
    }
    params.e820_entries = told.memory_map.len() as u8;
    for (entry, region) in params.e820_table.iter_mut().zip(&told.memory_map) {
        let size = region.range.end - region.range.start;
        *entry = boot_e820_entry { addr: region.range.start, size, r#type: region.kind as u32 };
    }
    Write { gpa: ZERO_PAGE_BASE, bytes: params.as_slice().to_vec().into() }
}
