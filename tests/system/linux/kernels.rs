//! A kernel that several guests start is in memory once, from the start: before any scanner has found it.

use std::fs;

use crate::support::{MIB, Run, Turn};

/// Of the kernel: much more than a VMM costs.
const KERNEL_BYTES: usize = 24 << 20;
const ENTRY: u32 = 0x100_0000;
/// `cli`, then `hlt` for ever.
const CODE: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// An ELF file whose pages all differ, entered by the PVH protocol, which does nothing.
fn kernel() -> Vec<u8> {
    let note =
        [&4u32.to_le_bytes()[..], &4u32.to_le_bytes(), &18u32.to_le_bytes(), b"Xen\0", &ENTRY.to_le_bytes()].concat();
    let segment = |kind: u32, offset: u64, gpa: u64, bytes: u64| {
        let head = [kind, 5].map(u32::to_le_bytes).concat();
        [head, [offset, gpa, gpa, bytes, bytes, 4].map(u64::to_le_bytes).concat()].concat()
    };
    let header = [
        &b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0"[..],
        &[u64::from(ENTRY), 64, 0].map(u64::to_le_bytes).concat(),
        &[0u16, 0, 64, 56, 2, 0, 0, 0].map(u16::to_le_bytes).concat(),
    ];
    let mut file = header.concat();
    file.extend(segment(4, 64 + 2 * 56, 0, note.len() as u64));
    file.extend(segment(1, 4096, ENTRY.into(), KERNEL_BYTES as u64));
    file.extend(note);
    file.resize(4096, 0);
    file.extend(
        (0..KERNEL_BYTES as u64 / 8).flat_map(|nth| (nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()),
    );
    file[4096..][..CODE.len()].copy_from_slice(&CODE);
    file
}

#[test]
fn the_second_guest_of_a_kernel_costs_nothing_for_it_before_anything_is_scanned() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    fs::write(&path, kernel()).unwrap();
    let run =
        Run::start(&format!("--kernel {} --guests 2 --memory 64MiB --budget 128MiB --duration 120s", path.display()));
    run.wait_for(2, "running");
    let of = |guest: &str, family: &str, label: &str| {
        run.metric_where(family, |labels| labels.contains(guest) && labels.contains(label))
    };
    let shared = |guest: &str| of(guest, "ballast_guest_memory_bytes", "state=\"shared\"");
    run.wait_until("a kernel that both share", || {
        ["guest0", "guest1"].iter().all(|guest| shared(guest) >= KERNEL_BYTES as f64)
    });
    let scanned = run.metric_where("ballast_guest_merges_total", |labels| labels.contains("same_address"));
    assert_eq!(scanned, 0.0, "pages that scanners shared at home");
    let resident = |guest| of(guest, "ballast_guest_resident_bytes", "");
    let (first, second) = (resident("guest0") + run.metric("ballast_host_frames_bytes"), resident("guest1"));
    println!("the first guest of a kernel costs {:.1} MiB, the second {:.1} MiB", first / MIB, second / MIB);
    assert!(second <= 0.6 * first, "{second} bytes for the second guest, {first} for the first");
}
