//! What becomes of a guest, by what its VMM says and how its process ends.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use control::{Reclaim, Starved};
use tokio::sync::mpsc;

use super::*;

/// A running guest, and time that has passed since, by the host's clock.
fn running() -> (Guest, mpsc::Receiver<ToVmm>, impl Fn(u64)) {
    let (guest, mut inbox) = guest_with_outbox(16);
    guest.on_ready();
    guest.run();
    assert_eq!(inbox.try_recv(), Ok(ToVmm::Run));
    let (clock, start) = (Arc::clone(&guest.clock), Instant::now());
    let ticked = std::cell::Cell::new(0);
    let until = move |seconds: u64| {
        while ticked.get() < seconds * 10 {
            ticked.set(ticked.get() + 1);
            clock.tick(start + Duration::from_millis(100 * ticked.get()));
        }
    };
    (guest, inbox, until)
}

fn grant(allocation_bytes: u64) -> Grant {
    Grant { allocation_bytes, ..Grant::default() }
}

fn orders(allocation_bytes: u64) -> Orders {
    Orders {
        grant: grant(allocation_bytes),
        starved: Starved::Ends,
        sample_period_ms: 0,
        reclaim: Reclaim::WhenShort,
        balloon: None,
        hurry: false,
        hold_ms: None,
    }
}

fn heard(inbox: &mut mpsc::Receiver<ToVmm>) -> Vec<ToVmm> {
    std::iter::from_fn(|| inbox.try_recv().ok()).collect()
}

fn killed(guest: &Guest) -> Option<String> {
    guest.state().kill_reason.clone()
}

#[test]
fn a_silent_vmm_is_named_and_left_alone_as_long_as_nobody_needs_what_it_has() {
    let (guest, mut inbox, until) = running();
    until(4);
    assert!(guest.listens() && guest.view().state() == "running");
    until(6);
    assert!(!guest.listens() && guest.view().state() == "unresponsive" && !guest.restart());
    until(1000);
    guest.kill_if_stuck(Need::Nobody);
    guest.kill_if_stuck(Need::OthersWait);
    assert_eq!(killed(&guest), None, "it has no more than it was given");
    // Of what it is to go by the last counts.
    (0..2000).for_each(|bytes| guest.order(orders(bytes)));
    (0..2000).for_each(|_| guest.attend());
    assert!(inbox.try_recv().is_err());
    guest.on_status(GuestStatus::default());
    let told = heard(&mut inbox);
    assert_eq!((told.len(), &told[0]), (4, &grant(1999).message()), "{told:?}");
    guest.on_status(GuestStatus::default());
    assert!(heard(&mut inbox).is_empty() && guest.listens() && killed(&guest).is_none());
}

#[test]
fn a_silent_vmm_above_its_allocation_is_killed_when_others_wait() {
    let (guest, _inbox, until) = running();
    let mut status = GuestStatus::default();
    status.pager.committed_bytes = 4096;
    guest.on_status(status);
    until(29);
    guest.kill_if_stuck(Need::OthersWait);
    until(40);
    guest.kill_if_stuck(Need::Nobody);
    assert_eq!(killed(&guest), None);
    guest.kill_if_stuck(Need::OthersWait);
    assert!(killed(&guest).unwrap().contains("others wait for"));
}

#[test]
fn a_silent_vmm_does_not_keep_a_run_from_ending() {
    let (guest, _inbox, until) = running();
    until(100);
    guest.state().view.pid = 0;
    guest.stop();
    guest.kill_if_stuck(Need::Nobody);
    until(129);
    guest.kill_if_stuck(Need::Nobody);
    assert_eq!(killed(&guest), None, "it may go on now, and verify");
    until(131);
    guest.kill_if_stuck(Need::Nobody);
    assert_eq!(killed(&guest).unwrap(), "said nothing for 30 s");
}

fn guest() -> (Guest, mpsc::Receiver<ToVmm>) {
    guest_with_outbox(2)
}

fn guest_with_outbox(messages: usize) -> (Guest, mpsc::Receiver<ToVmm>) {
    let (outbox, inbox) = mpsc::channel(messages);
    let (plan, link) = (PlannedGuest::idle("guest0".into(), 16 << 20), Link::new(VmmId::first(0), 1, outbox));
    (Guest::new(plan, link, Grant::default(), Arc::new(Clock::new(Instant::now()))), inbox)
}

fn end_of(guest: &Guest, exit: i32) -> String {
    guest.on_reaped(Ok(ExitStatus::from_raw(exit)));
    match guest.view().phase {
        Phase::Ended(end) => end.to_string(),
        phase => panic!("{phase} after the process was reaped"),
    }
}

#[test]
fn only_a_finished_guest_with_a_clean_exit_is_ok() {
    let (guest, _inbox) = guest();
    guest.on_finished(Ok(()), GuestStatus::default());
    assert_eq!(end_of(&guest, 0), "ok");
}

#[test]
fn an_exit_without_a_result_is_a_loss() {
    assert_eq!(end_of(&guest().0, 0), "lost: its process ended without a result");
}

#[test]
fn a_killed_process_is_named_with_its_signal() {
    assert_eq!(end_of(&guest().0, 9), "lost: killed by signal 9 (SIGKILL)");
}

#[test]
fn a_panic_is_named_with_its_message() {
    let (guest, _inbox) = guest();
    for line in ["thread 'vcpu0' panicked at vmm/src/kvm.rs:1:1:", "out of luck", "note: run with RUST_BACKTRACE=1"] {
        guest.on_words(line);
    }
    assert_eq!(end_of(&guest, 101 << 8), "lost: its process exited with status 101 (out of luck)");
}

#[test]
fn what_a_vmm_says_of_its_guest_is_no_reason_for_its_end() {
    let (guest, _inbox) = guest();
    guest.on_words(" INFO console: @up guest=\"guest0\"");
    assert_eq!(end_of(&guest, 9), "lost: killed by signal 9 (SIGKILL)");
}

#[test]
fn what_went_wrong_in_a_vmm_is_named_as_the_reason_for_its_end() {
    let (guest, _inbox) = guest();
    guest.on_words(" WARN vmm: out of luck");
    guest.on_words("DEBUG vmm: and going on");
    assert_eq!(end_of(&guest, 101 << 8), "lost: its process exited with status 101 (WARN vmm: out of luck)");
}

#[test]
fn a_result_with_corrupt_pages_is_a_failure() {
    let (guest, _inbox) = guest();
    let mut status = GuestStatus::default();
    status.workload.pages_corrupt_total = 1;
    status.workload.first_corrupt_gpa = 0x5000;
    guest.on_finished(Ok(()), status);
    assert_eq!(end_of(&guest, 0), "failed: 1 corrupt pages, the first at guest-physical address 0x5000");
}

#[test]
fn a_result_is_not_believed_when_the_process_then_dies() {
    let (guest, _inbox) = guest();
    guest.on_finished(Ok(()), GuestStatus::default());
    assert_eq!(end_of(&guest, 11), "lost: killed by signal 11 (SIGSEGV)");
}

#[test]
fn a_guest_that_ends_well_is_started_anew_and_keeps_its_past() {
    let (guest, mut inbox) = guest();
    assert!(!guest.restart(), "it does not run yet");
    guest.on_ready();
    guest.run();
    assert!(guest.restart());
    assert_eq!([inbox.try_recv(), inbox.try_recv()], [Ok(ToVmm::Run), Ok(ToVmm::Stop)]);
    let mut status = GuestStatus::default();
    status.workload.pages_verified_total = 7;
    guest.on_finished(Ok(()), status.clone());
    assert!(guest.on_reaped(Ok(ExitStatus::from_raw(0))));
    assert!(guest.is_between_lives());
    // Between the lives the policy goes on.
    guest.order(orders(4096));
    let (outbox, mut inbox) = mpsc::channel(3);
    guest.start_anew(Link::new(VmmId::first(0).next(), 2, outbox), Grant::message);
    assert_eq!(inbox.try_recv(), Ok(grant(4096).message()));
    guest.on_ready();
    guest.run();
    guest.on_status(status);
    let view = guest.view();
    assert_eq!((view.pid, view.past.restarts, view.pages_verified()), (2, 1, 14));
    assert!(!guest.is_between_lives() && guest.vmm() == VmmId::first(0).next());
}

#[test]
fn what_a_vmm_is_asked_while_it_is_being_started_reaches_it_after_its_first_message() {
    let (guest, mut inbox) = guest();
    guest.expect(VmmId::first(0).next());
    guest.send_to(VmmId::first(0).next(), ToVmm::Hurry);
    guest.send_to(VmmId::first(7), ToVmm::Pause);
    guest.send_to(VmmId::first(0), ToVmm::Resume);
    assert_eq!(inbox.try_recv(), Ok(ToVmm::Resume), "the VMM that is there");
    let (outbox, mut inbox) = mpsc::channel(4);
    guest.start_anew(Link::new(VmmId::first(0).next(), 2, outbox), |_| ToVmm::Run);
    guest.send_to(VmmId::first(0).next(), ToVmm::Stop);
    guest.send_to(VmmId::first(0), ToVmm::Pause);
    assert_eq!(heard(&mut inbox), [ToVmm::Run, ToVmm::Hurry, ToVmm::Stop]);
}

#[test]
fn a_guest_that_does_not_end_well_is_not_started_anew() {
    let (guest, _inbox) = guest();
    guest.on_ready();
    guest.run();
    assert!(guest.restart());
    assert!(end_of(&guest, 9).starts_with("lost: "));
}

#[test]
fn a_guest_told_to_end_for_good_stays_ended() {
    let (guest, _inbox) = guest();
    guest.on_ready();
    guest.run();
    assert!(guest.restart());
    guest.end_restarts();
    guest.on_finished(Ok(()), GuestStatus::default());
    assert_eq!(end_of(&guest, 0), "ok");
}

#[test]
fn a_grant_is_sent_only_when_it_changes() {
    let (guest, mut inbox) = guest();
    guest.order(orders(4096));
    guest.order(orders(4096));
    assert_eq!(heard(&mut inbox), [grant(4096).message()]);
}

#[test]
fn a_vmm_that_does_not_read_is_killed() {
    let (guest, _inbox) = guest();
    for _ in 0..3 {
        guest.send(ToVmm::Pause);
    }
    assert_eq!(end_of(&guest, 9), "lost: no longer reads its control socket; killed");
}

#[test]
fn a_paused_guest_goes_on_when_it_is_resumed_and_before_it_is_stopped() {
    let (guest, mut inbox) = guest();
    let mut heard = || heard(&mut inbox);
    assert!(!guest.pause(), "it does not run yet");
    guest.on_ready();
    guest.run();
    assert_eq!(heard(), [ToVmm::Run]);
    assert!(guest.pause() && guest.pause() && !guest.is_running());
    assert_eq!(heard(), [ToVmm::Pause], "once is enough");
    assert!(!guest.restart(), "it could not verify what it holds");
    assert!(guest.resume() && guest.resume() && guest.is_running());
    assert_eq!(heard(), [ToVmm::Resume]);
    guest.pause();
    assert_eq!(heard(), [ToVmm::Pause]);
    guest.stop();
    assert!(!guest.pause() && !guest.resume(), "it verifies");
    assert_eq!(heard(), [ToVmm::Resume, ToVmm::Stop]);
}
