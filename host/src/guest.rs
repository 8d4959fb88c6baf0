//! One guest as the host knows it: where its VMM process stands, what it said last, and the way to tell it something.
//!
//! Whatever happens to it happens through here, so that its [`Phase`] has one owner. Messages to the VMM go through a bounded outbox:
//! nothing in the host ever waits for a VMM to read.

use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::{GuestStatus, ToVmm};
use dedup::VmmId;
use tokio::sync::{Notify, mpsc};

use crate::freshness::{Freshness, Heard};
use crate::phase::{End, Phase, describe_exit};
use crate::preflight::PlannedGuest;

/// Messages that may wait for one VMM: a hundred seconds of allocations and more merge answers than a scanner has questions under
/// way. A VMM that leaves so many unread is broken.
pub const OUTBOX_MAX: usize = 1024;
/// Longest time without a status, or at the end without a page verified, before a VMM counts as hung: 300 status intervals, for machines with many guests a CPU.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a guest was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Host memory it may keep, bytes.
    pub allocation_bytes: u64,
    /// Memory it is asked to give up, bytes.
    pub balloon_bytes: u64,
}

/// A guest at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Unique in the run.
    pub name: String,
    /// Its sharing domain.
    pub domain: String,
    /// Process id of its VMM.
    pub pid: u32,
    /// Where it stands.
    pub phase: Phase,
    /// What it said last; all zero before its first status.
    pub status: GuestStatus,
    /// What it was given last.
    pub grant: Grant,
    /// What breaks of its shared pages are expected to take; see [`crate::cow`].
    pub cow_expected_bytes: u64,
    /// What it did in earlier lives.
    pub past: Past,
    /// How old `status` is.
    pub freshness: Freshness,
}

/// What a guest did before it was last started anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Times it was started anew.
    pub restarts: u64,
    /// Operations of its workload.
    pub operations: u64,
    /// Pages it read whole and found right.
    pub pages_verified: u64,
}

impl View {
    /// Operations of its workload, in all its lives.
    pub fn operations(&self) -> u64 {
        self.past.operations + self.status.workload.operations_total
    }

    /// Pages it read whole and found right, in all its lives.
    pub fn pages_verified(&self) -> u64 {
        self.past.pages_verified + self.status.workload.pages_verified_total
    }

    /// Whether its process is reaped, so that it costs nothing any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }
}

/// A VMM process, and the way to it.
#[derive(Debug)]
pub struct Vmm {
    /// Its number, which no other VMM of the run has had.
    pub id: VmmId,
    /// Its process id.
    pub pid: u32,
    /// Where messages to it go.
    pub outbox: mpsc::Sender<ToVmm>,
}

/// What is to be done when a guest ends as it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    /// Nothing.
    End,
    /// It is started anew.
    Restart,
}

/// A guest and the way to its VMM.
#[derive(Debug)]
pub struct Guest {
    /// Name, size, image.
    pub plan: PlannedGuest,
    killed: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    view: View,
    vmm: Vmm,
    /// The VMM that is being started for the guest's next life, and what it is to hear after its first message.
    expected: Option<(VmmId, Vec<ToVmm>)>,
    afterwards: Afterwards,
    heard: Instant,
    figures: Heard,
    /// When it last verified a page, or was told to verify all.
    verified: Instant,
    finished: Option<Result<(), String>>,
    kill_reason: Option<String>,
    last_words: Option<String>,
}

impl Guest {
    /// A guest whose VMM was just started with this grant.
    pub fn new(plan: PlannedGuest, vmm: Vmm, grant: Grant) -> Guest {
        let status = GuestStatus { memory_bytes: plan.memory_bytes, ..GuestStatus::default() };
        let (name, domain) = (plan.name.clone(), plan.domain.clone());
        let (pid, phase, past) = (vmm.pid, Phase::Starting, Past::default());
        let view = View {
            name,
            domain,
            pid,
            phase,
            status,
            grant,
            cow_expected_bytes: 0,
            past,
            freshness: Freshness::default(),
        };
        let now = Instant::now();
        let state = State {
            view,
            vmm,
            expected: None,
            afterwards: Afterwards::End,
            heard: now,
            figures: Heard::nothing_yet(),
            verified: now,
            finished: None,
            kill_reason: None,
            last_words: None,
        };
        Guest { plan, killed: Notify::new(), state: Mutex::new(state) }
    }

    /// A VMM with this number is about to be started for the guest: what is meant for it is kept until it is there. To be called before others can
    /// learn of the number.
    pub(crate) fn expect(&self, vmm: VmmId) {
        self.state().expected = Some((vmm, Vec::new()));
    }

    /// A message for the VMM with this number; what was meant for an earlier life is nothing for this one.
    pub(crate) fn send_to(&self, vmm: VmmId, message: ToVmm) {
        let mut state = self.state();
        if let Some((expected, held)) = &mut state.expected
            && *expected == vmm
        {
            held.push(message);
        } else if state.vmm.id == vmm {
            let sent = state.vmm.outbox.try_send(message);
            drop(state);
            self.check_sent(sent);
        }
    }

    /// A new VMM was started for a guest that is to be started anew. What `start` makes of the guest's grant is the first message it
    /// gets: nobody else can say anything to it before, and no grant can change in between.
    pub(crate) fn start_anew(&self, vmm: Vmm, start: impl FnOnce(Grant) -> ToVmm) {
        let mut state = self.state();
        // A new outbox has room; if its VMM is gone already, the guest's task finds out.
        let _ = vmm.outbox.try_send(start(state.view.grant));
        for message in state.expected.take().filter(|(id, _)| *id == vmm.id).into_iter().flat_map(|(_, held)| held) {
            let _ = vmm.outbox.try_send(message);
        }
        state.view.pid = vmm.pid;
        state.vmm = vmm;
        state.heard = Instant::now();
        state.figures = Heard::nothing_yet();
        state.last_words = None;
    }

    /// Its next VMM could not be started yet, and says nothing for that reason.
    pub(crate) fn await_start(&self) {
        self.state().heard = Instant::now();
    }

    /// Process id of its VMM.
    pub fn pid(&self) -> u32 {
        self.state().view.pid
    }

    /// Number of its VMM.
    pub fn vmm(&self) -> VmmId {
        self.state().vmm.id
    }

    /// The guest as it is now.
    pub fn view(&self) -> View {
        let state = self.state();
        View { freshness: state.figures.freshness(Instant::now()), ..state.view.clone() }
    }

    /// Whether its process is reaped.
    pub fn has_ended(&self) -> bool {
        self.state().view.has_ended()
    }

    /// Whether it has said that it is built, or never will.
    pub fn has_started(&self) -> bool {
        self.state().view.phase != Phase::Starting
    }

    /// Whether its vCPUs run.
    pub fn is_running(&self) -> bool {
        self.state().view.phase == Phase::Running
    }

    /// Whether it is being started anew at this moment.
    pub fn is_between_lives(&self) -> bool {
        let view = &self.state().view;
        view.past.restarts > 0 && matches!(view.phase, Phase::Starting | Phase::Ready)
    }

    /// Sends a message; a VMM that has stopped reading is killed.
    pub fn send(&self, message: ToVmm) {
        let sent = self.state().vmm.outbox.try_send(message);
        self.check_sent(sent);
    }

    fn check_sent(&self, sent: Result<(), mpsc::error::TrySendError<ToVmm>>) {
        if let Err(mpsc::error::TrySendError::Full(_)) = sent {
            self.kill("no longer reads its control socket");
        }
    }

    /// Starts the vCPUs.
    pub fn run(&self) {
        if self.advance(Phase::Ready, Phase::Running) {
            // From here on, and not while other guests are still being built, silence is suspicious.
            self.state().heard = Instant::now();
            self.send(ToVmm::Run);
        }
    }

    /// Holds the vCPUs of a running guest; whether it is paused now. Its VMM says when the last of them has left the guest.
    pub fn pause(&self) -> bool {
        if self.advance(Phase::Running, Phase::Paused) {
            self.send(ToVmm::Pause);
        }
        self.state().view.phase == Phase::Paused
    }

    /// Lets the vCPUs of a paused guest go on; whether it runs now.
    pub fn resume(&self) -> bool {
        if self.advance(Phase::Paused, Phase::Running) {
            self.send(ToVmm::Resume);
        }
        self.is_running()
    }

    /// Has the guest verify everything and end; one that never ran is killed.
    pub fn stop(&self) {
        // It cannot verify anything while it is paused.
        self.resume();
        if self.advance(Phase::Running, Phase::Stopping) {
            self.state().verified = Instant::now();
            self.send(ToVmm::Stop);
        } else if matches!(self.state().view.phase, Phase::Starting | Phase::Ready) {
            self.kill("stopped before it ran");
        }
    }

    /// Has a running guest verify everything and end, to be started anew; whether it was running.
    pub fn restart(&self) -> bool {
        let mut state = self.state();
        let running = state.view.phase == Phase::Running;
        if running {
            state.view.phase = Phase::Stopping;
            state.afterwards = Afterwards::Restart;
            state.verified = Instant::now();
            drop(state);
            self.send(ToVmm::Stop);
        }
        running
    }

    /// From now on the guest is not started anew, even if it has been told to end for that.
    pub fn end_restarts(&self) {
        self.state().afterwards = Afterwards::End;
    }

    /// Gives the guest an allocation and a balloon, if that changes anything.
    pub fn grant(&self, grant: Grant) {
        let before = std::mem::replace(&mut self.state().view.grant, grant);
        if before != grant {
            let Grant { allocation_bytes, balloon_bytes } = grant;
            self.send(ToVmm::Allocate { allocation_bytes, balloon_bytes });
        }
    }

    /// What breaks of its shared pages are expected to take, bytes.
    pub fn expect_breaks(&self, cow_expected_bytes: u64) {
        self.state().view.cow_expected_bytes = cow_expected_bytes;
    }

    /// Ends the VMM at once. The first reason is the one remembered.
    pub fn kill(&self, reason: impl Into<String>) {
        self.state().kill_reason.get_or_insert(reason.into());
        self.killed.notify_one();
    }

    /// Kills the VMM of a guest that has said nothing, or that was to verify its memory and has made no progress, for too long.
    pub fn kill_if_stuck(&self) {
        let state = self.state();
        let (silence, idleness) = (state.heard.elapsed(), state.verified.elapsed());
        let why = match state.view.phase {
            Phase::Running | Phase::Paused | Phase::Stopping if silence > SILENCE_MAX => "said nothing",
            Phase::Stopping if idleness > SILENCE_MAX => "was to verify its memory and came no further",
            Phase::Starting if state.view.past.restarts > 0 && silence > SILENCE_MAX => "was not built anew",
            _ => return,
        };
        drop(state);
        self.kill(format!("{why} for {} s", SILENCE_MAX.as_secs()));
    }

    /// Completes when somebody wants the VMM killed.
    pub(crate) async fn kill_wanted(&self) {
        self.killed.notified().await;
    }

    /// The VMM built the guest.
    pub(crate) fn on_ready(&self) {
        self.advance(Phase::Starting, Phase::Ready);
    }

    /// The VMM reported.
    pub(crate) fn on_status(&self, status: GuestStatus) {
        let mut state = self.state();
        let now = Instant::now();
        state.heard = now;
        state.figures.status(&status, now);
        if status.workload.pages_verified_total != state.view.status.workload.pages_verified_total {
            state.verified = now;
        }
        state.view.status = status;
    }

    /// The guest ended by itself.
    pub(crate) fn on_finished(&self, result: Result<(), String>, status: GuestStatus) {
        self.on_status(status);
        self.state().finished = Some(result);
    }

    /// The VMM wrote a line to its standard error.
    pub(crate) fn on_words(&self, line: &str) {
        tracing::warn!(target: "vmm", "{}: {line}", self.plan.name);
        if !line.starts_with("note: ") {
            self.state().last_words = Some(line.to_owned());
        }
    }

    /// The process is reaped; what it was is now decided. Says whether the guest is to be started anew.
    pub(crate) fn on_reaped(&self, exit: std::io::Result<ExitStatus>) -> bool {
        let mut state = self.state();
        let corrupt = state.view.status.workload.pages_corrupt_total;
        let clean = exit.as_ref().is_ok_and(ExitStatus::success);
        let end = match (state.finished.take(), state.kill_reason.take()) {
            (Some(Err(why)), _) => End::Failed(why),
            (Some(Ok(())), _) if corrupt > 0 => {
                let gpa = state.view.status.workload.first_corrupt_gpa;
                End::Failed(format!("{corrupt} corrupt pages, the first at guest-physical address {gpa:#x}"))
            }
            (Some(Ok(())), _) if clean => End::Verified,
            (_, Some(reason)) => End::Lost(format!("{reason}; killed")),
            (_, None) => End::Lost(match (describe_exit(exit), &state.last_words) {
                (how, Some(words)) => format!("{how} ({words})"),
                (how, None) => how,
            }),
        };
        tracing::debug!(guest = self.plan.name, %end, "reaped");
        let afterwards = std::mem::replace(&mut state.afterwards, Afterwards::End);
        if (afterwards, &end) != (Afterwards::Restart, &End::Verified) {
            state.view.phase = Phase::Ended(end);
            return false;
        }
        let (operations, pages_verified) = (state.view.operations(), state.view.pages_verified());
        state.view.past = Past { restarts: state.view.past.restarts + 1, operations, pages_verified };
        state.view.status = GuestStatus { memory_bytes: self.plan.memory_bytes, ..GuestStatus::default() };
        state.figures = Heard::nothing_yet();
        state.view.phase = Phase::Starting;
        true
    }

    /// There is no VMM for a guest that was to be started anew.
    pub(crate) fn on_lost(&self, why: String) {
        self.state().view.phase = Phase::Ended(End::Lost(why));
    }

    fn advance(&self, from: Phase, to: Phase) -> bool {
        let mut state = self.state();
        let due = state.view.phase == from;
        if due {
            state.view.phase = to;
        }
        due
    }

    /// Every critical section leaves the state whole, so a panic elsewhere is no reason to give up on a guest.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
