//! Guests start and end all day; the host process is the same afterwards. Here it is the test's own.

use std::fs;
use std::time::Duration;

use control::VcpuKind;
use host::{RunConfig, VmmCommand};
use wire::machine::Workload;

use crate::support::Turn;

/// Real VMM processes a round; four rounds.
const GUESTS: u32 = 12;
const ROUNDS: u32 = 4;
/// What the host may keep of memory after the first round: less than one page table of what the guests had.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

fn round(seed: u64) {
    let vmm = VmmCommand { program: env!("CARGO_BIN_EXE_ballast").into(), arguments: vec!["vmm".into()] };
    let outcome = host::run(RunConfig {
        guests: Some(GUESTS),
        memory_bytes: Some(32 << 20),
        workload: Workload::Identical,
        duration: Duration::from_secs(2),
        vcpu: VcpuKind::Kvm,
        seed,
        domains: ["web=4", "db=4", "none"].map(|range| range.parse().unwrap()).to_vec(),
        ..RunConfig::plain(512 << 20, vmm)
    });
    let outcome = outcome.unwrap();
    assert!(outcome.failures().is_empty(), "{:?}", outcome.failures());
    assert!(outcome.domains.iter().any(|domain| domain.gain_bytes.across_guests > 0));
}

/// Frame stores and bitmaps that this process has open.
fn stores() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().contains("memfd:ballast")).count()
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB"));
    kib.unwrap().trim().parse::<u64>().unwrap() << 10
}

#[test]
fn guests_that_came_and_went_leave_the_host_as_it_was() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    round(0);
    let before = resident_bytes();
    (1..ROUNDS.into()).for_each(round);
    assert_eq!(stores(), 0);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more after {} starts", GUESTS * ROUNDS);
}
