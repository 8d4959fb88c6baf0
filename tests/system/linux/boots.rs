//! Stock kernels boot, find their devices, and end as they should.

use crate::linux::machine::Machine;
use crate::support::Turn;

#[test]
fn stock_kernels_boot_find_their_devices_and_end_as_they_should() {
    let _turn = Turn::take();
    let Some(machine) = Machine::new() else { return };
    let said = machine.run(
        r#"
        one() { name=$1 tasks=$2; shift 2; part $name; guests --budget 220MiB --console --cmdline "quiet panic=-1 ballast.do=$tasks" "$@"; }
        truncate -s 32M disk; truncate -s 1M fixed

        kernel=vmlinuz
        one bzimage devices --disk fixed:ro; over
        kernel=vmlinux
        one elf disk,flush --disk disk --disk fixed:ro
        await grep '@disk: trimmed' said
        echo "@trimmed, KiB: $(du -k disk | cut -f 1)"
        await grep @flush said
        kill -9 $(vmm); over
        echo "@kept: $(dd if=disk bs=1M count=2 2>/dev/null | sha1sum)"
        part panic
        BALLAST_LINUX_IMAGE=/image ballast run --linux --guests 1 --memory 96MiB --budget 220MiB --metrics $endpoint --swap off \
            --cmdline "quiet panic=-1 ballast.do=panic" >said 2>errors &
        ballast=$!; over
        "#,
    );
    said.assert(
        "bzimage",
        &[
            "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable",
            "BIOS-e820: [mem 0x00000000000e0000-0x00000000000fffff] ACPI data",
            "BIOS-e820: [mem 0x0000000000100000-0x0000000005ffffff] usable",
            "Switched to clocksource kvm-clock",
            "@virtio 0x0005 virtio_balloon",
            "@virtio 0x0004 virtio_rng",
            "@virtio 0x0002 virtio_blk",
            "@clock kvm-clock",
            "@random 16 from virtio_rng",
            "OK: all 1 guests switched themselves off",
            "exit code 0",
        ],
    );
    let bzimage = said.part("bzimage");
    assert!(!bzimage.contains("ACPI Error") && !bzimage.contains("ACPI Warning"), "{bzimage}");
    said.assert(
        "elf",
        &[
            "@disk: 8 MiB read back buffered and direct",
            "@disk: trimmed",
            "@disk: the second is read-only",
            "lost: killed by signal 9 (SIGKILL)\n",
            "exit code 1",
        ],
    );
    let kib: u64 = said.after("elf", "@trimmed, KiB: ").parse().unwrap();
    assert!(kib < 8 << 10, "{kib} KiB are left of a disk whose file of 8 MiB was removed and trimmed");
    assert_eq!(said.after("elf", "@flush: "), said.after("elf", "@kept: "), "what was flushed is there");
    said.assert("panic", &["FAILED: guest0 failed: kernel panic: sysrq triggered crash", "console: ", "exit code 1"]);
}
