//! `image`: RAM came from a file and must equal it at the end, so nothing is written to it: no allocator, no
//! queue, no balloon.
//!
//! Pages are read in order and at random. A page's first checksum is kept outside RAM where there is room for
//! it, and every later reading compared with it; where there is none, the page is read twice.

use core::sync::atomic::Ordering::Relaxed;

use crate::machine::Machine;
use crate::memory::{PAGE_WORDS, Ram};
use crate::page::checksum_words;
use crate::rng::Rng;

/// Reads until the stop.
pub fn run<M: Machine>(machine: &M, ram: Ram, vcpu: u32) {
    let (report, boot) = (machine.report(vcpu), machine.boot());
    let mut rng = Rng::new(boot.seed ^ u64::from(boot.guest) << 32 ^ u64::from(vcpu));
    let mut next = vcpu;
    while machine.control().stop.load(Relaxed) == 0 {
        if ram.pages() == 0 {
            machine.park(100);
            continue;
        }
        for gfn in [next % ram.pages(), rng.below(ram.pages())] {
            let right = reads_as_before(machine, ram, gfn);
            if right == Some(true) {
                report.pages_verified.store(report.pages_verified.load(Relaxed) + 1, Relaxed);
            }
            if right == Some(false) {
                if report.pages_corrupt.load(Relaxed) == 0 {
                    report.first_corrupt_gpa.store(u64::from(gfn) * wire::PAGE_BYTES as u64, Relaxed);
                    machine.console("image: a page changed under a guest that does not write\n");
                }
                report.pages_corrupt.store(report.pages_corrupt.load(Relaxed) + 1, Relaxed);
            }
            report.operations.store(report.operations.load(Relaxed) + 1, Relaxed);
        }
        next = (next + boot.vcpus) % ram.pages();
    }
}

/// `None` for a page that is read for the first time.
fn reads_as_before<M: Machine>(machine: &M, ram: Ram, gfn: u32) -> Option<bool> {
    let read = || {
        let mut words = [0; PAGE_WORDS];
        ram.copy_page_out(gfn, &mut words);
        // 0 stands for "not read yet".
        (checksum_words(&words) >> 32) as u32 | 1
    };
    let now = read();
    let Some(kept) = machine.scratch().get(gfn as usize) else { return Some(read() == now) };
    // Two vCPUs may read a page for the first time at once: one of them keeps its checksum, both compare with
    // it.
    match kept.compare_exchange(0, now, Relaxed, Relaxed) {
        Ok(_) => None,
        Err(first) => Some(first == now),
    }
}
