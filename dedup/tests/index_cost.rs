//! What the host keeps of a content that was told once is at most eight bytes: memory that the kernel counts,
//! for any number of them.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

use std::fs;

use control::merge::{BATCH_MAX, MergeRequest};
use dedup::{Domain, VmmId};
use wire::Gfn;

const PAGES: u32 = 65_536;
const BYTES_A_CONTENT_MAX: f64 = 8.0;

fn anonymous_bytes() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix("kB"));
    kib.unwrap().trim().parse::<u64>().unwrap() << 10
}

/// A domain of some guests, and nothing told.
fn domain(guests: u32) -> Domain {
    let domain = Domain::new(PAGES, 1).unwrap();
    (0..guests).for_each(|guest| domain.vmm_joined(VmmId::first(guest), PAGES).unwrap());
    domain
}

/// Every guest tells a content for each of its pages that no other page has.
fn tell_all(domain: &Domain, guests: u32) {
    let mut hash = 0u64;
    for guest in 0..guests {
        for first in (0..PAGES).step_by(BATCH_MAX) {
            let hashes = (first..first + BATCH_MAX as u32).map(|gfn| {
                hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
                (Gfn(gfn), hash)
            });
            domain.handle(VmmId::first(guest), MergeRequest::Hashes(hashes.collect())).unwrap();
        }
    }
}

#[test]
fn a_content_told_once_costs_at_most_eight_bytes() {
    // What the first message costs is no content's.
    let warm_up = domain(1);
    tell_all(&warm_up, 1);
    for guests in [1, 2, 3, 5, 8, 13] {
        let domain = domain(guests);
        let before = anonymous_bytes();
        tell_all(&domain, guests);
        let grown = anonymous_bytes() - before;
        let candidates = domain.figures().candidates;
        let told = u64::from(guests) * u64::from(PAGES);
        assert!(candidates > told - told / 1000, "{candidates} of {told}: few are taken for each other");
        let bytes = grown as f64 / candidates as f64;
        println!("{candidates} contents: {bytes:.2} bytes each");
        assert!(bytes <= BYTES_A_CONTENT_MAX, "{bytes:.2} bytes for each of {candidates}");
        // Its memory is not given to the next one.
        std::mem::forget(domain);
    }
}
