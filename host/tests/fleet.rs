//! The control plane against a VMM that only speaks the protocol: this test program, started again as the
//! test [`fake_vmm`].
//!
//! What a fake guest does follows from its number, so that one run has an honest guest beside a broken one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::merge::{Answer, MergeAnswer, Pages};
use control::{CONTROL_FD, GuestConfig, GuestStatus, MergeRequest, ToHost, ToVmm, read_frame, write_frame};
use host::{Outcome, RunConfig, VmmCommand, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wire::{Frame, Gfn};

const MIB: u64 = 1 << 20;
/// Tells [`interrupted_host`] its address.
const METRICS: &str = "BALLAST_TEST_METRICS";

/// How the guest with number 1 behaves; all others are honest. By the run's seed, which reaches the VMM.
#[derive(Clone, Copy, PartialEq)]
#[repr(u64)]
enum Behaviour {
    Honest,
    Dies,
    FailsToVerify,
    FindsCorruption,
    SendsGarbage,
    BreaksMergeProtocol,
    SendsUnaskedPages,
    Floods,
    NeverAnswersRetire,
    NeverExits,
    NeverStops,
}

fn config(behaviour: Behaviour, guests: u32) -> RunConfig {
    let vmm = VmmCommand {
        program: std::env::current_exe().unwrap(),
        arguments: ["fake_vmm", "--exact", "--ignored", "--nocapture"].map(Into::into).to_vec(),
    };
    RunConfig {
        guests: Some(guests),
        memory_bytes: Some(64 * MIB),
        seed: behaviour as u64,
        ..RunConfig::plain(512 * MIB, vmm)
    }
}

/// The end of guest 1 in a run of three, after checking that its neighbours came to no harm.
fn end_of_the_broken_guest(behaviour: Behaviour) -> String {
    let outcome = run(config(behaviour, 3)).unwrap();
    let report = serde_json::to_value(outcome.report()).unwrap();
    assert_eq!((&report["guests"][0]["exit"], &report["guests"][2]["exit"]), (&"ok".into(), &"ok".into()));
    assert_eq!(outcome.failures().len(), 1, "{:?}", outcome.failures());
    assert_no_process_left(&outcome);
    report["guests"][1]["exit"].as_str().unwrap().to_owned()
}

fn assert_no_process_left(outcome: &Outcome) {
    for guest in &outcome.after {
        assert!(!PathBuf::from(format!("/proc/{}", guest.pid)).exists(), "{} is still there", guest.name);
    }
}

#[test]
fn honest_guests_end_verified_and_leave_no_process() {
    let outcome = run(config(Behaviour::Honest, 8)).unwrap();
    assert!(outcome.failures().is_empty(), "{:?}", outcome.failures());
    assert!(outcome.peak_used_bytes > 0 && outcome.peak_used_bytes < outcome.budget_bytes);
    assert_eq!(outcome.promised_bytes, 512 * MIB);
    assert_no_process_left(&outcome);
}

#[test]
fn a_vmm_that_dies_is_named_with_its_signal() {
    assert!(end_of_the_broken_guest(Behaviour::Dies).contains("SIGABRT"));
}

#[test]
fn a_guest_that_fails_to_verify_says_why() {
    assert_eq!(end_of_the_broken_guest(Behaviour::FailsToVerify), "failed: page 7 is wrong");
}

#[test]
fn corruption_fails_a_guest_that_calls_itself_well() {
    assert!(end_of_the_broken_guest(Behaviour::FindsCorruption).starts_with("failed: 3 corrupt pages"));
}

#[test]
fn a_vmm_that_sends_garbage_is_killed() {
    assert!(end_of_the_broken_guest(Behaviour::SendsGarbage).contains("malformed"));
}

#[test]
fn a_vmm_that_breaks_the_merge_protocol_is_killed() {
    assert_eq!(
        end_of_the_broken_guest(Behaviour::BreaksMergeProtocol),
        "lost: frame 0xffffffff is beyond the store; killed"
    );
}

#[test]
fn a_vmm_that_sends_content_nobody_asked_for_is_killed() {
    assert_eq!(
        end_of_the_broken_guest(Behaviour::SendsUnaskedPages),
        "lost: page 0x1 sent for frame 0x2, which was not asked for; killed"
    );
}

/// It keeps the protocol, so it may go on; the others come to no harm.
#[test]
fn a_flood_of_questions_costs_the_others_nothing() {
    let outcome = run(config(Behaviour::Floods, 3)).unwrap();
    let failures = outcome.failures();
    assert!(failures.iter().all(|failure| failure.starts_with("guest1 ")), "{failures:?}");
    assert_no_process_left(&outcome);
}

#[test]
fn a_vmm_that_never_answers_the_frame_store_is_killed() {
    // Its neighbours publish a frame that nobody adopts; it is to be released after two seconds.
    let outcome = run(RunConfig { duration: Duration::from_secs(26), ..config(Behaviour::NeverAnswersRetire, 3) });
    let outcome = outcome.unwrap();
    let ends: Vec<_> = outcome.failures();
    assert_eq!(ends, ["guest1 lost: did not answer the frame store for 20 s; killed"]);
    assert_eq!(outcome.domains[0].frames_bytes, 0, "and then the frame was released");
}

#[test]
fn a_vmm_that_does_not_exit_is_killed() {
    let end = end_of_the_broken_guest(Behaviour::NeverExits);
    assert!(end.contains("did not exit"), "{end}");
}

#[test]
fn a_second_signal_ends_guests_that_do_not_stop() {
    let address = free_address();
    let host = Command::new(std::env::current_exe().unwrap())
        .args(["interrupted_host", "--exact", "--ignored", "--nocapture"])
        .env(METRICS, address.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(host.id() as i32);
    wait_until("both guests run", || get(address, "/metrics").contains("guests{state=\"running\"} 2"));
    assert!(get(address, "/readyz").ends_with("ready\n") && get(address, "/healthz").ends_with("ok\n"));
    let vmms = children(pid);
    assert_eq!(vmms.len(), 2);
    kill(pid, Signal::SIGINT).unwrap();
    wait_until("the honest guest is done", || get(address, "/metrics").contains("guests{state=\"ok\"} 1"));
    kill(pid, Signal::SIGTERM).unwrap();
    let output = host.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("FAILED: guest1 lost: interrupted") && !said.contains("FAILED: guest0"), "{said}");
    assert!(vmms.iter().all(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()));
}

/// An address of this machine that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// The response to a request, empty when there is none.
fn get(address: SocketAddr, path: &str) -> String {
    let mut response = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut response);
    }
    response
}

fn children(pid: Pid) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.flat_map(|pids| pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A host process to send signals to.
#[test]
#[ignore = "is no test: another test starts it as its host"]
fn interrupted_host() {
    let metrics = std::env::var(METRICS).unwrap().parse().unwrap();
    let config = RunConfig { duration: Duration::from_secs(600), metrics, ..config(Behaviour::NeverStops, 2) };
    let outcome = run(config).unwrap();
    print!("{}", host::summary(&outcome));
}

/// The fake VMM.
#[test]
#[ignore = "is no test: the other tests start it as their VMM"]
fn fake_vmm() {
    // SAFETY: the host has made this descriptor a stream socket for this process alone; nothing else here
    // knows it.
    let mut socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(CONTROL_FD) });
    let mut body = Vec::new();
    let Some(ToVmm::Start(config)) = read_frame(&mut socket, &mut body).unwrap() else { panic!("no Start") };
    let behaviour = if config.guest == 1 { config.seed } else { Behaviour::Honest as u64 };
    let is = |wanted: Behaviour| behaviour == wanted as u64;
    write_frame(&mut socket, &ToHost::Ready).unwrap();
    let status = |config: &GuestConfig| {
        let mut status = GuestStatus { memory_bytes: config.memory_bytes, ..GuestStatus::default() };
        status.pager.committed_bytes = config.allocation_bytes;
        status.pager.allocation_bytes = config.allocation_bytes;
        status
    };
    let mut last = status(&config);
    while let Some(message) = read_frame::<ToVmm>(&mut socket, &mut body).unwrap() {
        match message {
            ToVmm::Run if is(Behaviour::Dies) => std::process::abort(),
            ToVmm::Run if is(Behaviour::SendsGarbage) => socket.write_all(&[4, 0, 0, 0, 255, 255, 255, 255]).unwrap(),
            ToVmm::Run if is(Behaviour::BreaksMergeProtocol) => {
                write_frame(&mut socket, &ToHost::Merge(MergeRequest::Adopted(vec![Frame(u32::MAX)]))).unwrap();
            }
            ToVmm::Run if is(Behaviour::SendsUnaskedPages) => {
                let pages = Pages { places: vec![(Gfn(1), Frame(2))], bytes: vec![1; 4096] };
                write_frame(&mut socket, &ToHost::Merge(MergeRequest::Pages(pages))).unwrap();
            }
            ToVmm::Run if is(Behaviour::Floods) => {
                let hashes = |first: u64| (0..1024).map(|at| (Gfn(at), first << 10 | u64::from(at))).collect();
                let begun = Instant::now();
                for first in (0..).take_while(|_| begun.elapsed() < Duration::from_secs(2)) {
                    // The host may have lost patience.
                    if write_frame(&mut socket, &ToHost::Merge(MergeRequest::Hashes(hashes(first)))).is_err() {
                        return;
                    }
                }
            }
            ToVmm::Run if config.seed == Behaviour::NeverAnswersRetire as u64 => {
                write_frame(&mut socket, &ToHost::Status(Box::new(last.clone()))).unwrap();
                if !is(Behaviour::NeverAnswersRetire) {
                    let hash = dedup::content_hash(config.hash_secret, &[7; 4096]);
                    write_frame(&mut socket, &ToHost::Merge(MergeRequest::Hashes(vec![(Gfn(3), hash)]))).unwrap();
                }
            }
            ToVmm::Merge(MergeAnswer::Answers(answers)) => {
                for (gfn, answer) in answers {
                    if let Answer::Publish(frame) = answer {
                        let pages = Pages { places: vec![(gfn, frame)], bytes: vec![7; 4096] };
                        write_frame(&mut socket, &ToHost::Merge(MergeRequest::Pages(pages))).unwrap();
                    }
                }
            }
            ToVmm::Merge(MergeAnswer::Retire(frames)) if !is(Behaviour::NeverAnswersRetire) => {
                let answers = frames.into_iter().map(|frame| (frame, false)).collect();
                write_frame(&mut socket, &ToHost::Merge(MergeRequest::Retired(answers))).unwrap();
            }
            ToVmm::Run => write_frame(&mut socket, &ToHost::Status(Box::new(last.clone()))).unwrap(),
            ToVmm::Stop if is(Behaviour::NeverStops) => {}
            ToVmm::Stop => break,
            _ => {}
        }
    }
    if is(Behaviour::FindsCorruption) {
        last.workload.pages_corrupt_total = 3;
    }
    let result = if is(Behaviour::FailsToVerify) { Err("page 7 is wrong".into()) } else { Ok(()) };
    write_frame(&mut socket, &ToHost::Finished { result, status: Box::new(last) }).unwrap();
    drop(socket);
    if is(Behaviour::NeverExits) {
        std::thread::sleep(Duration::from_secs(600));
    }
}
