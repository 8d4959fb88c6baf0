//! Guests whose memory neither shares nor compresses, on a disk; and what is left of it when processes die.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};

use crate::support::{Run, Turn, wait_until};

/// Four guests that fill 512 MiB with what does not compress, in half of it.
const HOGS: &str = "--guests 4 --memory 128MiB --budget 256MiB --workload hog --dedup off --balloon off";
const SWAPPED: &str = "ballast_guest_memory_bytes";

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Descriptors of a process that are open on files in a directory, or that were before they lost their names.
fn files_in(pid: &str, directory: &Path) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(directory))).count()
}

#[test]
fn guests_twice_as_large_as_the_budget_keep_every_byte_on_disk() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let arguments = format!("{HOGS} --swap {}", directory.path().display());
    let run = Run::finish_reclaiming(&arguments, 5, &["swapped"]);
    run.assert_kept_its_promise();
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn a_killed_vmm_and_a_killed_host_leave_no_swap_file() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let run = Run::start(&format!("{HOGS} --duration 1h --swap {}", directory.path().display()));
    run.wait_for(4, "running");
    run.wait_until("pages are swapped", || run.metric_where(SWAPPED, |labels| labels.contains("swapped")) > 0.0);
    let vmms = run.vmms();
    assert_eq!(entries(directory.path()), 0, "swap files have no names");
    assert!(vmms.iter().all(|pid| files_in(&pid.to_string(), directory.path()) == 1), "each VMM has its own");
    assert_eq!(files_in(&run.host().to_string(), directory.path()), 0, "the host keeps none open");
    kill(vmms[1], Signal::SIGKILL).unwrap();
    run.wait_for(1, "lost");
    run.signal(Signal::SIGKILL);
    wait_until("all VMMs are gone", || vmms.iter().all(|pid| files_in(&pid.to_string(), directory.path()) == 0));
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn a_page_that_cannot_be_read_back_stops_its_guest_alone_and_names_address_and_slot() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let run = Run::start(&format!("{HOGS} --duration 10s --swap {}", directory.path().display()));
    run.wait_for(4, "running");
    run.wait_until("every guest has swapped", || {
        (0..4).all(|guest| {
            let of_guest = |labels: &str| labels.contains("swapped") && labels.contains(&format!("guest{guest}\""));
            run.metric_where(SWAPPED, of_guest) > 0.0
        })
    });
    let swap = format!("/proc/{}/fd/{}", run.vmms()[2], control::SWAP_FD);
    fs::File::options().write(true).open(swap).unwrap().set_len(0).unwrap();
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1));
    run.assert_lost_nothing();
    let first = run.summary.lines().next().unwrap();
    assert!(first.starts_with("FAILED: guest2 failed: page 0x"), "{first}");
    assert!(["address 0x", "slot", "swap file"].iter().all(|word| first.contains(word)), "{first}");
    for (number, guest) in run.guests().iter().enumerate() {
        assert_eq!(guest["exit"] == "ok", number != 2, "{guest}");
    }
}
