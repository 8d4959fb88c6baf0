//! The registers that a kernel is entered with, and the tables that they point to.
//!
//! ```text
//!                    Pvh (32 bits)            Linux64
//!   cs               flat, 32 bits            flat, 64 bits, selector 0x10 (`__BOOT_CS`)
//!   ds es fs gs ss   flat                     flat, selector 0x18 (`__BOOT_DS`)
//!   cr0              PE                       PE, PG
//!   cr4, efer        0                        PAE; LME, LMA
//!   cr3              0                        first 4 GiB, identical, in pages of 2 MiB
//!   rbx              start information        0
//!   rsi              0                        zero page
//! ```
//!
//! Interrupts are off.

use wire::pc::{GDT_BASE, PAGE_TABLE_BASE, PVH_BASE, ZERO_PAGE_BASE};

use crate::Write;
use crate::kernel::Entry;

const CR0_PE: u64 = 1 << 0;
/// The processor has a floating-point unit of its own; it always reads 1.
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

/// Present, writable.
const TABLE_FLAGS: u64 = 0b11;
/// Present, writable, a page of 2 MiB.
const LARGE_PAGE_FLAGS: u64 = 0b1000_0011;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const ENTRIES: u64 = 512;
const TABLE_BYTES: u64 = 4096;
/// GiB that are mapped, each by a table of its own.
const GIBS: u64 = 4;

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its descriptor in the table.
    pub selector: u16,
    /// Its last byte; it starts at 0.
    pub limit: u32,
    /// Type (Intel's manual, volume 3, 3.4.5.1), 4 bits.
    pub kind: u8,
    /// It is of code or data, not of the system.
    pub user: bool,
    /// Its code has 64 bits.
    pub long: bool,
    /// Its code or stack has 32 bits.
    pub wide: bool,
    /// Its limit counts in pages.
    pub pages: bool,
}

impl Segment {
    /// Its descriptor. All segments are present, and of the innermost ring.
    fn descriptor(self) -> u64 {
        let limit = u64::from(if self.pages { self.limit >> 12 } else { self.limit });
        let access = u64::from(self.kind) | u64::from(self.user) << 4 | 1 << 7;
        let flags = u64::from(self.long) << 1 | u64::from(self.wide) << 2 | u64::from(self.pages) << 3;
        (limit & 0xffff) | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52
    }
}

/// Registers of the first processor; those that are not here are as after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the registers' names")]
pub struct Start {
    pub rip: u64,
    pub rbx: u64,
    pub rsi: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    /// For `cs`.
    pub code: Segment,
    /// For `ds`, `es`, `fs`, `gs` and `ss`.
    pub data: Segment,
    /// For `tr`.
    pub task: Segment,
    pub gdt_base: u64,
    pub gdt_limit: u16,
}

/// The registers for this entry, and the tables that they need.
pub(crate) fn write(entry: Entry) -> (Vec<Write<'static>>, Start) {
    let long = matches!(entry, Entry::Linux64(_));
    let flat =
        |selector, kind, long| Segment { selector, limit: u32::MAX, kind, user: true, long, wide: !long, pages: true };
    // Execute and read, accessed; read and write, accessed; busy task.
    let (code, data) = (flat(CODE_SELECTOR, 0xb, long), flat(DATA_SELECTOR, 0x3, false));
    let task = Segment {
        selector: TASK_SELECTOR,
        limit: 0x67,
        kind: 0xb,
        user: false,
        long: false,
        wide: false,
        pages: false,
    };
    let gdt: Vec<u8> = [0, 0, code.descriptor(), data.descriptor(), task.descriptor(), 0]
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect();
    let gdt_limit = gdt.len() as u16 - 1;
    let mut writes = vec![Write { gpa: GDT_BASE, bytes: gdt.into() }];
    if long {
        writes.push(Write { gpa: PAGE_TABLE_BASE, bytes: page_tables().into() });
    }
    let tables = |code, data, task| Start {
        rip: 0,
        rbx: 0,
        rsi: 0,
        cr0: CR0_PE | CR0_ET,
        cr3: 0,
        cr4: 0,
        efer: 0,
        code,
        data,
        task,
        gdt_base: GDT_BASE,
        gdt_limit,
    };
    let start = match entry {
        Entry::Pvh(rip) => Start { rip, rbx: PVH_BASE, ..tables(code, data, task) },
        Entry::Linux64(rip) => Start {
            rip,
            rsi: ZERO_PAGE_BASE,
            cr0: CR0_PE | CR0_ET | CR0_PG,
            cr3: PAGE_TABLE_BASE,
            cr4: CR4_PAE,
            efer: EFER_LME | EFER_LMA,
            ..tables(code, data, task)
        },
    };
    (writes, start)
}

/// Two levels with one table each, and a table of pages for each GiB.
fn page_tables() -> Vec<u8> {
    let table = |nth: u64| PAGE_TABLE_BASE + nth * TABLE_BYTES;
    let entry = |at: u64| match at / ENTRIES {
        0 if at == 0 => table(1) | TABLE_FLAGS,
        1 if at % ENTRIES < GIBS => table(2 + at % ENTRIES) | TABLE_FLAGS,
        0 | 1 => 0,
        _ => ((at - 2 * ENTRIES) * LARGE_PAGE_BYTES) | LARGE_PAGE_FLAGS,
    };
    (0..(2 + GIBS) * ENTRIES).flat_map(|at| entry(at).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as a processor does.
    fn translate(tables: &[u8], address: u64) -> u64 {
        let read = |table: u64, index: u64| {
            let at = (table - PAGE_TABLE_BASE + index * 8) as usize;
            let entry = u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
            assert_eq!(entry & 1, 1, "present");
            entry
        };
        let pointers = read(PAGE_TABLE_BASE, address >> 39) & !0xfff;
        let directory = read(pointers, address >> 30 & 0x1ff) & !0xfff;
        let page = read(directory, address >> 21 & 0x1ff);
        assert_eq!(page & 0x80, 0x80, "large");
        (page & !0x1f_ffff) | address & 0x1f_ffff
    }

    #[test]
    fn every_address_below_four_gib_is_its_own() {
        let tables = page_tables();
        assert_eq!(tables.len(), 6 * 4096);
        for address in [0, 0x7000, 0x10_0200, 0x1f_ffff, 0x20_0000, 0x3fff_ffff, 0x4000_0000, 0xffff_ffff] {
            assert_eq!(translate(&tables, address), address);
        }
    }

    #[test]
    fn descriptors_are_those_of_the_processors_manual() {
        let (writes, start) = write(Entry::Linux64(0x10_0200));
        let descriptor =
            |selector: u16| u64::from_le_bytes(*writes[0].bytes[usize::from(selector)..].first_chunk().unwrap());
        assert_eq!(descriptor(start.code.selector), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(start.data.selector), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(start.task.selector), 0x0000_8b00_0000_0067);
        let (writes, start) = write(Entry::Pvh(0x100_0000));
        let code = &writes[0].bytes[usize::from(start.code.selector)..][..8];
        assert_eq!((code, writes.len()), (&0x00cf_9b00_0000_ffffu64.to_le_bytes()[..], 1));
    }
}
