//! The ACPI tables as others read them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod files;

use std::process::Command;

use boot::{Config, VirtioMmio, prepare};
use files::{config, vmlinux};
use wire::pc::ACPI_BASE;

/// All tables of a machine, from the root pointer on.
fn tables(vcpus: u32, devices: &[VirtioMmio]) -> Vec<u8> {
    let kernel = vmlinux();
    let boot = prepare(&Config { vcpus, devices, ..config(&kernel) }).unwrap();
    boot.writes.iter().find(|write| write.gpa == ACPI_BASE).unwrap().bytes.to_vec()
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().unwrap())
}

fn le64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at this address, as long as it says.
fn table(tables: &[u8], gpa: u64) -> &[u8] {
    let table = &tables[(gpa - ACPI_BASE) as usize..];
    &table[..le32(&table[4..]) as usize]
}

/// Follows the pointers: XSDT, FADT, FACS, DSDT, MADT.
fn found(tables: &[u8]) -> [&[u8]; 5] {
    let xsdt = table(tables, le64(&tables[24..]));
    let [fadt, madt] = [36, 44].map(|at| table(tables, le64(&xsdt[at..])));
    [xsdt, fadt, table(tables, le32(&fadt[36..]).into()), table(tables, le64(&fadt[140..])), madt]
}

/// As many devices as there are interrupts.
fn many() -> Vec<VirtioMmio> {
    let interrupts = (5..24).filter(|interrupt| !wire::pc::INTERRUPTS_TAKEN.contains(interrupt));
    interrupts
        .enumerate()
        .map(|(nth, interrupt)| VirtioMmio { base: 0xd000_0000 + nth as u64 * 0x1000, interrupt })
        .collect()
}

#[test]
fn every_table_is_found_from_the_root_and_sums_to_zero() {
    for (vcpus, devices) in [(1, vec![]), (255, many())] {
        let tables = tables(vcpus, &devices);
        assert!(tables.len() <= 0x2_0000);
        assert_eq!((&tables[..8], sum(&tables[..20]), sum(&tables[..36])), (&b"RSD PTR "[..], 0, 0));
        let found = found(&tables);
        assert_eq!(found.map(|table| &table[..4]), [b"XSDT", b"FACP", b"FACS", b"DSDT", b"APIC"]);
        assert!(found.iter().all(|table| &table[..4] == b"FACS" || sum(table) == 0));
        assert_eq!((found[2].as_ptr() as usize - tables.as_ptr() as usize) % 64, 0, "the FACS is aligned");
    }
}

#[test]
fn every_processor_has_an_interrupt_controller() {
    let tables = tables(3, &[]);
    let madt = found(&tables)[4];
    assert_eq!((le32(&madt[36..]), le32(&madt[40..])), (0xfee0_0000, 1));
    let (mut at, mut structures) = (44, Vec::new());
    while at < madt.len() {
        structures.push(&madt[at..at + usize::from(madt[at + 1])]);
        at += usize::from(madt[at + 1]);
    }
    let processors: Vec<_> = structures.iter().filter(|s| s[0] == 0).map(|s| (s[3], le32(&s[4..]))).collect();
    assert_eq!(processors, [(0, 1), (1, 1), (2, 1)]);
    let controllers: Vec<_> = structures.iter().filter(|s| s[0] == 1).map(|s| (le32(&s[4..]), le32(&s[8..]))).collect();
    assert_eq!(controllers, [(0xfec0_0000, 0)]);
}

#[test]
fn iasl_reads_all_tables_without_complaint() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("SKIPPED: reading ACPI tables takes iasl, of Debian's acpica-tools");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(3, &many());
    let iasl = |arguments: &[&str]| {
        let output = Command::new("iasl").current_dir(folder.path()).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    for (name, table) in ["xsdt", "facp", "facs", "dsdt", "apic"].into_iter().zip(found(&tables)) {
        std::fs::write(folder.path().join(format!("{name}.dat")), table).unwrap();
        let said = iasl(&["-d", &format!("{name}.dat")]);
        let text = std::fs::read_to_string(folder.path().join(format!("{name}.dsl"))).unwrap();
        for complaint in ["Error", "Warning", "Invalid", "invalid", "Unknown", "Checksum should be"] {
            let found = format!("{said}{text}").lines().find(|line| line.contains(complaint)).map(str::to_owned);
            assert_eq!(found, None, "{name}");
        }
    }
    let devices = std::fs::read_to_string(folder.path().join("dsdt.dsl")).unwrap();
    assert_eq!(devices.matches("\"LNRO0005\"").count(), many().len());
    assert!(devices.contains("_S5") && devices.contains("PNP0501"), "{devices}");
    // And what it read it takes for a program.
    let said = iasl(&["-tc", "dsdt.dsl"]);
    assert!(said.contains("0 Errors, 0 Warnings"), "{said}");
}
