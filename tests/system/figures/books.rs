//! Our books against the kernel's, on running guests.
//!
//! What a VMM calls its overhead is measured by the kernel's account of the whole process, so that the sum
//! alone could hide an error of the page-state table. Therefore guest RAM is compared by itself as well: it
//! is the one mapping of the frame store's memfd, and its anonymous pages (`smaps`) are the guest's private
//! ones, here or swapped out.

use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::support::{MIB, Run, Turn, sum_of};
use crate::tier::kit;

/// What the tables may be wrong by.
const TOLERANCE: f64 = 0.02;
/// Readings; guests run on between the kernel's figures and ours, so that single ones differ by what moved
/// meanwhile.
const READINGS: usize = 15;
/// More than a VMM of a guest of 128 MiB has of threads' stacks, heap and tables.
const OVERHEAD_MAX: f64 = 8.0 * MIB;

/// Relative errors of one reading.
struct Errors {
    /// Of resident bytes against everything anonymous.
    sum: f64,
    /// Of private pages against the anonymous pages of guest RAM.
    ram: f64,
}

#[test]
fn the_tables_agree_with_the_kernel_within_two_per_cent() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 4 --memory 128MiB --budget 320MiB --workload zipf --duration 1h");
    run.wait_for(4, "running");
    run.wait_until("guests hold memory", || run.metric("ballast_guest_resident_bytes") > 200.0 * MIB);
    compare(run, None);
}

#[test]
fn they_do_with_pages_in_the_kernel_tier_too() {
    let Some(_turn) = kit::turn() else { return };
    let (run, device) = kit::start_short("--duration 1h");
    let stored = || run.metric_where("ballast_host_kernel_tier_bytes", |labels| labels.contains("used"));
    run.wait_until("pages in the device", || stored() > 16.0 * MIB);
    compare(run, Some(&device));
}

/// Compares the books of a run, whose kernel tier may be on this device, and ends it.
fn compare(run: Run, device: Option<&str>) {
    let (sums, rams): (Vec<_>, Vec<_>) =
        (0..READINGS).map(|_| read(&run, device)).map(|Errors { sum, ram }| (sum, ram)).unzip();
    run.signal(Signal::SIGINT);
    run.finish().assert_kept_its_promise();
    assert!(median(&sums) < TOLERANCE, "all memory is off by {sums:?}");
    assert!(median(&rams) < TOLERANCE, "guest RAM is off by {rams:?}");
}

/// Our figures are taken just before and just after the kernel's; their mean is what the kernel's are
/// compared with.
fn read(run: &Run, device: Option<&str>) -> Errors {
    let before = run.metrics();
    let price = device.map_or(0.0, page_price);
    let kernel: Vec<_> = run.vmms().into_iter().map(|pid| (all_bytes(pid, price), ram_bytes(pid))).collect();
    wait_for_news(run, &before);
    let after = run.metrics();
    let ours = |family: &str, label: &str| {
        let sum = |metrics: &str| sum_of(metrics, family, |labels| labels.contains(label));
        (sum(&before) + sum(&after)) / 2.0
    };
    let overhead = ours("ballast_guest_overhead_bytes", "guest");
    assert!(overhead < OVERHEAD_MAX * kernel.len() as f64, "an overhead of {overhead} bytes hides something");
    let error = |ours: f64, kernels: f64| (ours - kernels).abs() / kernels;
    Errors {
        sum: error(ours("ballast_guest_resident_bytes", "guest"), kernel.iter().map(|(all, _)| all).sum()),
        ram: error(ours("ballast_guest_memory_bytes", "state=\"private\""), kernel.iter().map(|(_, ram)| ram).sum()),
    }
}

/// Waits for the guests' next words.
fn wait_for_news(run: &Run, old: &str) {
    let verified = |metrics: &str| sum_of(metrics, "ballast_guest_pages_verified_total", |_| true);
    run.wait_until("a status", || verified(&run.metrics()) != verified(old));
}

fn median(errors: &[f64]) -> f64 {
    let mut errors = errors.to_vec();
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

/// All anonymous memory of a process: what is here, and what the rest takes in the device.
fn all_bytes(pid: Pid, price: f64) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    sum_of_lines(rollup.lines(), "Pss_Anon:") + sum_of_lines(rollup.lines(), "SwapPss:") * price
}

/// What a page in the zram device takes, as a part of a page.
fn page_price(device: &str) -> f64 {
    let statistics = fs::read_to_string(device.replace("/dev/", "/sys/block/") + "/mm_stat").unwrap();
    let columns: Vec<f64> = statistics.split_whitespace().map(|column| column.parse().unwrap()).collect();
    columns[2] / columns[0]
}

/// Anonymous memory of the frame store's mapping, here or swapped out: guest RAM.
fn ram_bytes(pid: Pid) -> f64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut in_ram = false;
    let of_ram = maps.lines().filter(|line| {
        if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            in_ram = line.contains("memfd:ballast-frames");
        }
        in_ram
    });
    let of_ram: Vec<_> = of_ram.collect();
    ["Anonymous:", "SwapPss:"].iter().map(|name| sum_of_lines(of_ram.iter().copied(), name)).sum()
}

fn sum_of_lines<'a>(lines: impl Iterator<Item = &'a str>, name: &str) -> f64 {
    let kib = lines.filter_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok());
    kib.sum::<f64>() * 1024.0
}
