//! Identity page tables for a bare guest: guest-virtual is guest-physical, in pages of 2 MiB.
//!
//! ```text
//!   PML4 [0] --> PDPT [0..256]  --> one page directory a GiB of RAM
//!                     [256]     --> page directory of device windows and firmware
//! ```
//!
//! The accessed and dirty bits are set already, so that no CPU (and no KVM that emulates one) has to write
//! here. All is user memory, writable; only the firmware can be executed.

use wire::machine::{BALLOON_BASE, FIRMWARE_BASE, FIRMWARE_BYTES, MMIO_END, PAGE_TABLE_BASE, RAM_BYTES_MAX};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED;
const PAGE: u64 = TABLE | DIRTY | LARGE;

const TABLE_BYTES: u64 = 4096;
const LARGE_BYTES: u64 = 2 << 20;
/// What one page directory maps.
const DIRECTORY_SPAN: u64 = 1 << 30;

const PML4: u64 = PAGE_TABLE_BASE;
const PDPT: u64 = PML4 + TABLE_BYTES;
const DIRECTORIES: u64 = PDPT + TABLE_BYTES;
/// The most directories there can be: those of RAM, and the one of the device windows and the firmware.
const DIRECTORIES_MAX: u64 = RAM_BYTES_MAX / DIRECTORY_SPAN + 1;

const _: () = {
    assert!(DIRECTORIES + DIRECTORIES_MAX * TABLE_BYTES <= FIRMWARE_BASE + FIRMWARE_BYTES);
    assert!(BALLOON_BASE / DIRECTORY_SPAN == (FIRMWARE_BASE + FIRMWARE_BYTES - 1) / DIRECTORY_SPAN);
    assert!((FIRMWARE_BASE + FIRMWARE_BYTES).is_multiple_of(LARGE_BYTES) && MMIO_END <= FIRMWARE_BASE);
    // One PDPT is enough.
    assert!(FIRMWARE_BASE + FIRMWARE_BYTES <= 512 * DIRECTORY_SPAN);
};

/// Writes every entry that is not zero through `write(gpa, entry)`, and returns the root's address.
pub fn build(ram_bytes: u64, mut write: impl FnMut(u64, u64)) -> u64 {
    write(PML4, PDPT | TABLE);
    let ram = (0, ram_bytes, NO_EXECUTE);
    let devices = (BALLOON_BASE, MMIO_END, NO_EXECUTE);
    let firmware = (FIRMWARE_BASE, FIRMWARE_BASE + FIRMWARE_BYTES, 0);
    let (mut directory, mut directory_span) = (DIRECTORIES - TABLE_BYTES, None);
    // In order of address, so that a new span always means a new directory.
    for (start, end, execute) in [ram, devices, firmware] {
        for gpa in (start..end).step_by(LARGE_BYTES as usize) {
            let span = gpa / DIRECTORY_SPAN;
            if directory_span != Some(span) {
                directory_span = Some(span);
                directory += TABLE_BYTES;
                write(PDPT + span * 8, directory | TABLE);
            }
            write(directory + gpa % DIRECTORY_SPAN / LARGE_BYTES * 8, gpa | PAGE | execute);
        }
    }
    PML4
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Walks the tables as a CPU does: the entry of the 2 MiB page that maps `address`.
    fn walk(memory: &HashMap<u64, u64>, root: u64, address: u64) -> Option<u64> {
        let mut table = root;
        for shift in [39, 30, 21] {
            let entry = *memory.get(&(table + (address >> shift) % 512 * 8))?;
            assert_eq!(entry & TABLE, TABLE);
            if shift == 21 {
                return Some(entry);
            }
            table = entry & !0xfff;
        }
        unreachable!()
    }

    #[test]
    fn every_address_of_the_machine_maps_to_itself_and_no_other_does() {
        for ram_bytes in [4096, 64 << 20, (1 << 30) + 4096, 3 << 30, RAM_BYTES_MAX] {
            let mut memory = HashMap::new();
            let root = build(ram_bytes, |gpa, entry| assert!(memory.insert(gpa, entry).is_none(), "written twice"));
            let room = PAGE_TABLE_BASE..FIRMWARE_BASE + FIRMWARE_BYTES;
            assert!(memory.keys().all(|gpa| room.contains(gpa)));
            let inside = [0, ram_bytes / 2, ram_bytes - 1, BALLOON_BASE, MMIO_END - 1, FIRMWARE_BASE, root];
            for gpa in inside {
                let entry = walk(&memory, root, gpa).unwrap();
                assert_eq!(entry & !(PAGE | NO_EXECUTE), gpa & !(LARGE_BYTES - 1), "{gpa:#x}");
                assert_eq!(entry & NO_EXECUTE == 0, gpa >= FIRMWARE_BASE, "{gpa:#x}");
            }
            let beyond_ram = (ram_bytes.next_multiple_of(LARGE_BYTES) < RAM_BYTES_MAX)
                .then_some(ram_bytes.next_multiple_of(LARGE_BYTES));
            for gpa in beyond_ram.into_iter().chain([FIRMWARE_BASE - 1, FIRMWARE_BASE + FIRMWARE_BYTES]) {
                assert_eq!(walk(&memory, root, gpa), None, "{gpa:#x}");
            }
        }
    }
}
