//! Sharing domains: what is not shared across is found out from the kernel, by the physical frames behind the
//! VMMs' mappings.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{MIB, Run, Turn, skipped};

const PAGE: u64 = 4096;
/// Bits of an entry of `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
/// A page of a file: of the frame store, not the guest's own copy.
const OF_FILE: u64 = 1 << 61;
const PFN: u64 = (1 << 55) - 1;

/// Physical frames of the frame store that a VMM's guest RAM is mapped to; `None` where the kernel does not
/// tell.
fn store_frames(pid: Pid) -> Option<HashSet<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let mut frames = HashSet::new();
    for line in maps.lines().filter(|line| line.contains("memfd:ballast-frames")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut entries = vec![0; ((to - from) / PAGE * 8) as usize];
        pagemap.read_exact_at(&mut entries, from / PAGE * 8).unwrap();
        let (entries, _) = entries.as_chunks();
        let shared = entries.iter().map(|&entry| u64::from_ne_bytes(entry)).filter(|entry| entry & OF_FILE != 0);
        frames.extend(shared.filter(|entry| entry & PRESENT != 0).map(|entry| entry & PFN));
    }
    // Without CAP_SYS_ADMIN every frame has number 0.
    (!frames.contains(&0)).then_some(frames)
}

/// A fifth of what guests must share before they are looked at, frames: far more than chance, and fewer than
/// are mapped at any moment.
const COMMON_FRAMES_MIN: usize = 200;

#[test]
fn identical_guests_share_within_their_domain_and_nothing_across() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run =
        Run::start("--guests 5 --memory 64MiB --budget 320MiB --workload identical --domain web=2,db=2 --duration 1h");
    run.wait_for(5, "running");
    let shared = |guest: &str| {
        run.metric_where("ballast_guest_memory_bytes", |labels| {
            labels.contains(guest) && labels.contains("state=\"shared\"")
        })
    };
    let four = ["\"guest0\"", "\"guest1\"", "\"guest2\"", "\"guest3\""];
    run.wait_until("four guests share", || four.iter().all(|guest| shared(guest) > 4.0 * MIB));
    let frames: Option<Vec<_>> = run.vmms().into_iter().map(store_frames).collect();
    let Some(frames) = frames else { return skipped("no CAP_SYS_ADMIN: the kernel hides frame numbers") };
    let common = |a: usize, b: usize| frames[a].intersection(&frames[b]).count();
    for (a, b) in [(0, 1), (2, 3)] {
        assert!(common(a, b) > COMMON_FRAMES_MIN, "guests {a} and {b} have {} frames in common", common(a, b));
    }
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3), (0, 4), (1, 4), (2, 4), (3, 4)] {
        assert_eq!(common(a, b), 0, "guests {a} and {b} are in different domains");
    }
}

#[test]
fn a_domain_and_its_frames_go_with_its_last_guest() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run =
        Run::start("--guests 4 --memory 64MiB --budget 320MiB --workload identical --domain web=2,db=2 --duration 12s");
    run.wait_for(4, "running");
    let frames = |domain: &str| run.metric_where("ballast_domain_frames_bytes", |labels| labels.contains(domain));
    run.wait_until("both domains have frames", || frames("web") > 4.0 * MIB && frames("db") > 4.0 * MIB);
    let gained = |kind: &str| {
        run.metric_where("ballast_domain_gain_bytes", |labels| labels.contains("db") && labels.contains(kind))
    };
    run.wait_until("its guests gain by each other", || gained("across_guests") > 2.0 * MIB);
    let vmms = run.vmms();
    kill(vmms[0], Signal::SIGKILL).unwrap();
    run.wait_for(1, "lost");
    let guests = |domain: &str| run.metric_where("ballast_domain_guests", |labels| labels.contains(domain));
    assert_eq!((guests("web"), guests("db")), (1.0, 2.0));
    kill(vmms[1], Signal::SIGKILL).unwrap();
    run.wait_until("the domain is gone", || !run.metrics().contains("domain=\"web\""));
    assert!(frames("db") > 4.0 * MIB);
    let run = run.finish();
    run.assert_lost_nothing();
    let ends: Vec<bool> = run.guests().iter().map(|guest| guest["exit"] == "ok").collect();
    assert_eq!(ends, [false, false, true, true], "{}", run.summary);
}

#[test]
fn reasons_and_gains_sum_to_what_they_split() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run =
        Run::start("--guests 4 --memory 64MiB --budget 160MiB --domain web=2,vault=1:zero-pages-only --duration 6s");
    let run = run.finish();
    run.assert_kept_its_promise();
    for guest in run.guests() {
        let reasons = guest["unmerged_pages"].as_object().unwrap();
        let of = |reason: &str| reasons[reason].as_u64().unwrap();
        assert!(reasons.values().map(|pages| pages.as_u64().unwrap()).sum::<u64>() > 0, "{guest}");
        assert_eq!(of("zero_pages_only") > 0, guest["domain"] == "vault", "{guest}");
    }
    let domains = run.report["dedup"]["domains"].as_array().unwrap();
    let names: Vec<_> = domains.iter().map(|domain| domain["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["own:guest3", "vault", "web"]);
    let figure = |domain: &serde_json::Value, pointer: &str| domain.pointer(pointer).unwrap().as_f64().unwrap();
    let vault = &domains[1];
    assert_eq!((figure(vault, "/frames_bytes"), figure(vault, "/cow_full_bytes")), (0.0, 0.0));
    // Frames that nobody holds are the only difference between the two accounts.
    let gained: f64 = domains
        .iter()
        .map(|domain| {
            figure(domain, "/gain_bytes/within_guest") + figure(domain, "/gain_bytes/across_guests")
                - figure(domain, "/idle_frames_bytes")
        })
        .sum();
    let shared = run.reclaimed_bytes("shared");
    assert!((gained.max(0.0) - shared).abs() <= 1.0 * MIB, "{gained} and {shared} bytes");
}
