//! Every workload, hosted, over ordinary memory.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::vec::Vec;

use wire::balloon::{F_DEFLATE_ON_OOM, F_REPORTING, F_STATS_VQ};
use wire::machine::Workload;
use wire::virtio::F_VERSION_1;

use crate::guest::{BareGuest, EXIT_CORRUPT, EXIT_OK, EXIT_UNUSABLE};
use crate::testing::TestMachine;

const FEATURES: [u32; 4] = [F_VERSION_1, F_STATS_VQ, F_DEFLATE_ON_OOM, F_REPORTING];
const PAGES: u32 = 2048;
/// Longest wait for a thread to be given a CPU.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(machine: TestMachine) -> (Vec<u32>, BareGuest<TestMachine>) {
    let vcpus = machine.boot.vcpus;
    let guest = BareGuest::new(machine);
    let codes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..vcpus)
            .map(|vcpu| {
                scope.spawn({
                    let guest = &guest;
                    move || guest.run(vcpu)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (codes, guest)
}

#[test]
fn every_workload_verifies_what_it_writes() {
    for (name, workload) in Workload::NAMES {
        let (codes, guest) = run(TestMachine::new(PAGES, workload).stop_at_ms(22_000));
        let report = &guest.machine().reports[0];
        assert_eq!((codes, report.pages_corrupt.load(Relaxed)), ([EXIT_OK].into(), 0), "{name}");
        assert!(report.operations.load(Relaxed) > 0, "{name}");
        if workload != Workload::Idle {
            assert!(report.pages_verified.load(Relaxed) > 1000, "{name}");
            assert!(report.pages_verified_at_end.load(Relaxed) > 0, "{name}");
        }
    }
}

#[test]
fn workloads_live_with_a_balloon_that_comes_and_goes() {
    for (name, workload) in Workload::NAMES {
        let machine = TestMachine::new(PAGES, workload).balloon(&FEATURES, PAGES / 2, 400).stop_at_ms(22_000);
        let machine = machine.at_look(|machine, now_ms| {
            let requested = [PAGES / 2, PAGES / 8, PAGES][(now_ms / 1000 % 3) as usize];
            if machine.device().state().requested != requested {
                machine.device().request(requested);
            }
        });
        let (codes, guest) = run(machine);
        let report = &guest.machine().reports[0];
        assert_eq!((codes, report.pages_corrupt.load(Relaxed)), ([EXIT_OK].into(), 0), "{name}");
        let device = guest.machine().device().state();
        assert!(PAGES - device.ballooned.len() as u32 >= 400, "{name}");
        assert!(!device.reported.is_empty(), "{name}");
    }
}

#[test]
fn two_vcpus_share_a_guest() {
    for (name, workload) in Workload::NAMES {
        let machine = TestMachine::new(PAGES, workload).vcpus(2).balloon(&FEATURES, PAGES / 4, 0);
        // The clock goes by looks, so a thread that has not begun yet could find it all over.
        let deadline = Instant::now() + PATIENCE;
        let machine = machine.at_look(move |machine, now_ms| {
            let all_work = machine.reports.iter().all(|report| report.operations.load(Relaxed) > 0);
            if now_ms >= 22_000 && all_work || Instant::now() > deadline {
                machine.control.stop.store(1, Relaxed);
            }
        });
        let (codes, guest) = run(machine);
        assert_eq!(codes, [EXIT_OK, EXIT_OK], "{name}");
        assert!(guest.machine().reports.iter().all(|report| report.operations.load(Relaxed) > 0), "{name}");
    }
}

#[test]
fn the_balloon_is_as_large_as_asked_before_the_workload_takes_memory() {
    let machine = TestMachine::new(PAGES, Workload::Hog).balloon(&FEATURES, PAGES / 2, 0).stop_at_ms(3000);
    let (_, guest) = run(machine);
    assert_eq!(guest.machine().device().state().actual, PAGES / 2);
    assert!(guest.machine().reports[0].allocation_failures.load(Relaxed) > 0);
}

#[test]
fn a_flipped_byte_is_counted_said_and_fails_the_guest() {
    for (name, workload) in Workload::NAMES.into_iter().filter(|&(_, workload)| workload != Workload::Idle) {
        let done = AtomicBool::new(false);
        // Every page outside the books changes, so whichever the workload holds are wrong from then on.
        let machine = TestMachine::new(PAGES, workload).stop_at_ms(4000).at_look(move |machine, now_ms| {
            if now_ms >= 3500 && !done.swap(true, Relaxed) {
                (6..PAGES).for_each(|gfn| {
                    let page = machine.ram.ram().page(gfn);
                    page.set_u16(999, page.u16(999) ^ 0x40);
                });
            }
        });
        let (codes, guest) = run(machine);
        let report = &guest.machine().reports[0];
        assert_eq!(codes, [EXIT_CORRUPT], "{name}");
        assert!(report.pages_corrupt.load(Relaxed) > 0, "{name}");
        assert!(report.first_corrupt_gpa.load(Relaxed) > 0, "{name}");
        assert!(guest.machine().console.lock().unwrap().contains("is not what was written"), "{name}");
    }
}

#[test]
fn common_pages_are_equal_at_equal_addresses_in_different_guests() {
    let machines =
        [0, 1].map(|guest| run(TestMachine::new(PAGES, Workload::Identical).guest(guest).stop_at_ms(1500)).1);
    let [a, b] = machines.each_ref().map(|guest| guest.machine().ram.ram());
    let content = |ram: crate::memory::Ram, gfn: u32| (0..512).map(|word| ram.page(gfn).u64(word)).collect::<Vec<_>>();
    let same_place = (1..PAGES).filter(|&gfn| a.page(gfn).u64(3) == b.page(gfn).u64(3)).count() as u32;
    let all_a: std::collections::BTreeSet<_> = (6..PAGES * 6 / 10).map(|gfn| content(a, gfn)).collect();
    let anywhere = (6..PAGES * 6 / 10).filter(|&gfn| all_a.contains(&content(b, gfn))).count() as u32;
    let built = PAGES * 6 / 10;
    assert!(same_place >= built * 45 / 100, "{same_place} of {built}");
    assert!((built * 70 / 100..built * 80 / 100).contains(&anywhere), "{anywhere} of {built}");
}

#[test]
fn an_image_is_read_and_never_written() {
    for scratch_words in [0, PAGES as usize] {
        let machine = TestMachine::new(PAGES, Workload::Image).scratch_words(scratch_words).stop_at_ms(2000);
        let (codes, guest) = run(machine);
        let (ram, report) = (guest.machine().ram.ram(), &guest.machine().reports[0]);
        assert_eq!(codes, [EXIT_OK]);
        assert!(report.pages_verified.load(Relaxed) > 1000);
        let mut words = [0; 512];
        for gfn in 0..PAGES {
            ram.copy_page_out(gfn, &mut words);
            assert!(words.iter().all(|&word| word == 0x0123_4567_89ab_cdef), "page {gfn}");
        }
    }
}

#[test]
fn an_image_that_changes_is_found_out() {
    let done = AtomicBool::new(false);
    let machine = TestMachine::new(64, Workload::Image).scratch_words(64).stop_at_ms(2000);
    let machine = machine.at_look(move |machine, now_ms| {
        if now_ms >= 1000 && !done.swap(true, Relaxed) {
            machine.ram.ram().page(9).set_u64(7, 0);
        }
    });
    let (codes, guest) = run(machine);
    assert_eq!(codes, [EXIT_CORRUPT]);
    assert_eq!(guest.machine().reports[0].first_corrupt_gpa.load(Relaxed), 9 * 4096);
}

#[test]
fn nonsense_at_boot_is_refused() {
    let mut machine = TestMachine::new(64, Workload::Idle);
    machine.boot.magic = 0;
    assert_eq!(run(machine).0, [EXIT_UNUSABLE]);
    let (codes, guest) = run(TestMachine::new(2, Workload::Idle));
    assert_eq!(codes, [EXIT_UNUSABLE]);
    assert!(guest.machine().console.lock().unwrap().contains("too few"));
}
