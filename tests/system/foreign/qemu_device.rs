//! Our balloon driver against QEMU's device: the bare guest on QEMU's `microvm`, driven over QMP. QEMU's
//! software CPU will do, so these run wherever QEMU is installed.

use peers::qemu::{Accelerator, Machine, Qemu};
use peers::wait_for;
use serde_json::Value;

use crate::support::{Turn, skipped};

const MIB: u64 = 1 << 20;
const MEMORY_MIB: u64 = 64;
/// What QEMU's own memory may change by, meanwhile.
const SLACK_BYTES: u64 = 4 * MIB;
/// Times the balloon goes up and down beside a guest that works.
const REPEATS: u64 = 20;

/// A guest whose memory is all resident; `None`, loudly, where QEMU is not installed.
fn guest(device: &str, command_line: &str) -> Option<Qemu> {
    let accelerator = Accelerator::Software;
    let machine = Machine { memory_mib: MEMORY_MIB, populated: true, accelerator, device, command_line };
    Qemu::start(vmm::BARE_GUEST, &machine).map_err(|why| skipped(&why)).ok()
}

/// Ends the guest, which must have found every page as it left it.
#[track_caller]
fn assert_all_was_right(mut qemu: Qemu) {
    let exit_code = qemu.stop();
    assert_eq!((exit_code, qemu.report().pages_corrupt), (0, 0), "{}", qemu.said());
}

#[test]
fn our_driver_gives_memory_to_qemu_and_takes_it_back() {
    let _turn = Turn::take();
    let Some(mut qemu) = guest("", "workload=idle") else { return };
    qemu.resume();
    let resident = qemu.resident_bytes();
    assert!(resident > MEMORY_MIB * MIB, "{resident} bytes at the start");

    qemu.settle(40 * MIB);

    let now = qemu.resident_bytes();
    assert!(now + 40 * MIB < resident + SLACK_BYTES, "{now} of {resident} bytes still there");
    qemu.settle(8 * MIB);
    qemu.settle(0);
    assert_all_was_right(qemu);
}

#[test]
fn a_working_guest_loses_nothing_while_qemu_moves_its_balloon() {
    let _turn = Turn::take();
    let Some(mut qemu) = guest("free-page-reporting=on", "workload=churn seed=7") else { return };
    qemu.resume();
    for repeat in 0..REPEATS {
        qemu.settle(if repeat % 2 == 0 { 24 * MIB } else { 4 * MIB });
        qemu.work(100);
    }
    assert_all_was_right(qemu);
}

#[test]
fn our_driver_answers_qemu_for_statistics() {
    let _turn = Turn::take();
    let Some(mut qemu) = guest("", "workload=idle") else { return };
    qemu.resume();
    qemu.settle(16 * MIB);
    qemu.poll_statistics(1);
    let statistic = |statistics: &Value, name: &str| statistics["stats"][name].as_u64();
    // The first answer was made at the driver's start, before there was a balloon.
    let now = wait_for("an answer of now", || {
        let statistics = qemu.statistics();
        let free = statistic(&statistics, "stat-free-memory")?;
        (free < (MEMORY_MIB - 16) * MIB).then_some(statistics)
    });
    assert_eq!(statistic(&now, "stat-total-memory"), Some(MEMORY_MIB * MIB), "{now}");
    assert!(statistic(&now, "stat-free-memory") > Some((MEMORY_MIB - 32) * MIB), "{now}");
    assert_eq!(statistic(&now, "stat-disk-caches"), Some(0), "{now}");
    // What our guest does not have, it does not report: QEMU shows the largest number.
    assert!(statistic(&now, "stat-swap-in").is_none_or(|value| value == u64::MAX), "{now}");

    let last = now["last-update"].as_u64();
    wait_for("another answer", || (qemu.statistics()["last-update"].as_u64() > last).then_some(()));
    assert_all_was_right(qemu);
}

#[test]
fn our_driver_reports_free_pages_and_qemu_gives_them_to_the_host() {
    let _turn = Turn::take();
    let Some(mut qemu) = guest("free-page-reporting=on", "workload=idle") else { return };
    let resident = qemu.resident_bytes();
    qemu.resume();
    wait_for("most of the guest's memory to go", || {
        (qemu.resident_bytes() + (MEMORY_MIB - 16) * MIB < resident).then_some(())
    });
    assert_eq!(qemu.balloon_bytes(), 0);
    assert_all_was_right(qemu);
}

#[test]
fn our_driver_deflates_when_memory_runs_out_only_if_qemu_agreed() {
    let _turn = Turn::take();
    for (device, may) in [("deflate-on-oom=on", true), ("deflate-on-oom=off", false)] {
        let Some(mut qemu) = guest(device, "workload=zipf") else { return };
        // More than the guest has: it gives all that is free, before its workload starts.
        qemu.request((MEMORY_MIB - 1) * MIB);
        qemu.resume();
        let given = wait_for("an allocation that fails", || {
            (qemu.report().allocation_failures > 0).then(|| qemu.balloon_bytes())
        });
        if may {
            qemu.work(1);
        } else {
            assert_eq!((qemu.balloon_bytes(), qemu.report().operations), (given, 0));
        }
        assert_all_was_right(qemu);
    }
}
