//! Devices that take no more: no wrong byte, nobody is killed, and guests go on with the pool.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use super::kit::{exists, start_short, turn};
use crate::support::{MIB, Run, wait_until};

/// Waits until every guest has got something done.
fn wait_for_progress(run: &Run) {
    let operations = |guest| run.metric_where("ballast_guest_operations_total", |labels| labels.contains(guest));
    for guest in ["\"guest0\"", "\"guest1\""] {
        let before = operations(guest);
        run.wait_until("an operation", || operations(guest) > before);
    }
}

/// Ends a run whose guests have to have kept all they had.
fn end(run: Run) {
    run.signal(Signal::SIGINT);
    run.finish().assert_kept_its_promise();
}

fn stored(run: &Run) -> f64 {
    run.metric_where("ballast_host_kernel_tier_bytes", |labels| labels.contains("used"))
}

fn compressed(run: &Run) -> f64 {
    run.metric_where("ballast_guest_memory_bytes", |labels| labels.contains("compressed"))
}

#[test]
fn guests_go_on_when_the_device_may_take_no_more_memory() {
    let Some(_turn) = turn() else { return };
    let (run, device) = start_short("--duration 1h");
    run.wait_until("pages in the device", || stored(&run) > 8.0 * MIB);
    fs::write(device.replace("/dev/", "/sys/block/") + "/mem_limit", "1M").unwrap();
    run.wait_until("pages in the pool", || compressed(&run) > MIB);
    wait_for_progress(&run);
    end(run);
}

#[test]
fn guests_go_on_when_the_device_is_taken_out_of_use() {
    let Some(_turn) = turn() else { return };
    let (run, device) = start_short("--duration 1h");
    run.wait_until("pages in the device", || stored(&run) > 4.0 * MIB);
    // Refused as long as what is there finds no room in memory.
    run.wait_until("swapoff", || Command::new("/usr/sbin/swapoff").arg(&device).status().unwrap().success());
    run.wait_until("pages in the pool", || compressed(&run) > MIB);
    wait_for_progress(&run);
    end(run);
    wait_until("the device is gone", || !exists(&device));
}
