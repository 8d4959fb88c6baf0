//! One guest as the host knows it: where its VMM process stands, what it said last, and the way to tell it
//! something ([`Link`]).
//!
//! Whatever happens to it happens through here, so that its [`Phase`] has one owner.

mod news;
mod operator;
pub(crate) mod reclaim;
mod silence;
mod view;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use control::{GuestStatus, ToVmm};
use dedup::VmmId;
use tokio::sync::Notify;

pub use silence::Need;
pub use view::{Past, STATES, View};

use crate::clock::Clock;
use crate::fleet::freshness::{Freshness, Heard};
use crate::fleet::link::{Hears, Link, Unread};
use crate::fleet::orders::{Grant, Orders};
use crate::fleet::phase::Phase;
use crate::plan::PlannedGuest;
use crate::sync::lock;

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
    clock: Arc<Clock>,
    state: Mutex<GuestState>,
}

#[derive(Debug)]
struct GuestState {
    view: View,
    link: Link,
    /// What this life of the guest was ordered last.
    orders: Option<Orders>,
    /// The VMM that is being started for the guest's next life, and what it is to hear after its first
    /// message.
    expected: Option<(VmmId, Vec<ToVmm>)>,
    afterwards: Afterwards,
    /// When it last said something, by the clock that stops with the host; the like below.
    heard: Instant,
    figures: Heard,
    /// When it last verified a page, or was told to verify all.
    verified: Instant,
    finished: Option<Result<(), String>>,
    kill_reason: Option<String>,
    last_words: Option<String>,
}

impl Guest {
    /// A guest whose VMM was just started and told of this grant.
    pub fn new(plan: PlannedGuest, link: Link, grant: Grant, clock: Arc<Clock>) -> Guest {
        let status = GuestStatus { memory_bytes: plan.memory_bytes, ..GuestStatus::default() };
        let (name, domain) = (plan.name.clone(), plan.domain.clone());
        let (pid, phase, past) = (link.pid, Phase::Starting, Past::default());
        let view = View {
            name,
            domain,
            pid,
            phase,
            status,
            grant,
            cow_expected_bytes: 0,
            past,
            promises: plan.promises,
            reclaiming: None,
            freshness: Freshness::default(),
            unresponsive: false,
        };
        let now = clock.now();
        let state = GuestState {
            view,
            link,
            orders: None,
            expected: None,
            afterwards: Afterwards::End,
            heard: now,
            figures: Heard::nothing_yet(),
            verified: now,
            finished: None,
            kill_reason: None,
            last_words: None,
        };
        Guest { plan, killed: Notify::new(), clock, state: Mutex::new(state) }
    }

    /// A VMM with this number is about to be started for the guest: what is meant for it is kept until it is
    /// there. To be called before others can learn of the number.
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
        } else if state.link.id == vmm {
            let must_wait = state.link.is_behind() || self.is_silent(&state);
            let taken = if must_wait { state.link.keep(message) } else { state.link.send(message) };
            drop(state);
            self.check_read(taken);
        }
    }

    /// A new VMM was started for a guest that is to be started anew. What `start` makes of the guest's grant
    /// is the first message it gets: nobody else can say anything to it before, and no grant can change in
    /// between.
    pub(crate) fn start_anew(&self, mut link: Link, start: impl FnOnce(Grant) -> ToVmm) {
        let mut state = self.state();
        let grant = state.view.grant;
        link.begin(start(grant), grant);
        for message in state.expected.take().filter(|(id, _)| *id == link.id).into_iter().flat_map(|(_, held)| held) {
            // As its first message.
            let _ = link.send(message);
        }
        state.view.pid = link.pid;
        state.link = link;
        state.orders = None;
        state.heard = self.clock.now();
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
        self.state().link.id
    }

    /// The guest as it is now.
    pub fn view(&self) -> View {
        let state = self.state();
        View {
            freshness: state.figures.freshness(Instant::now()),
            unresponsive: self.is_silent(&state),
            ..state.view.clone()
        }
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

    /// Whether its vCPUs run and its VMM speaks, so that it is worth telling what can wait.
    pub fn listens(&self) -> bool {
        self.hears(&self.state()) == Hears::All
    }

    /// Whether it is being started anew at this moment.
    pub fn is_between_lives(&self) -> bool {
        let view = &self.state().view;
        view.past.restarts > 0 && matches!(view.phase, Phase::Starting | Phase::Ready)
    }

    /// Sends a message; a VMM that has stopped reading is killed.
    pub fn send(&self, message: ToVmm) {
        let sent = self.state().link.send(message);
        self.check_read(sent);
    }

    fn check_read(&self, sent: Result<(), Unread>) {
        if let Err(Unread) = sent {
            self.kill("no longer reads its control socket");
        }
    }

    /// Starts the vCPUs.
    pub fn run(&self) {
        if self.advance(Phase::Ready, Phase::Running) {
            // From here on, and not while other guests are still being built, silence is suspicious.
            self.state().heard = self.clock.now();
            self.send(ToVmm::Run);
        }
    }

    /// Holds the vCPUs of a running guest; whether it is paused now. Its VMM says when the last of them has
    /// left the guest.
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

    /// Has the guest verify everything and end; one that never ran is killed. A VMM that was stopped by a
    /// signal goes on for that.
    pub fn stop(&self) {
        if self.view().unresponsive {
            self.wake();
        }
        // It cannot verify anything while it is paused.
        self.resume();
        if self.advance(Phase::Running, self.stopping()) {
            self.state().verified = self.clock.now();
            self.send(ToVmm::Stop);
        } else if matches!(self.state().view.phase, Phase::Starting | Phase::Ready) {
            self.kill("stopped before it ran");
        }
    }

    /// Has a running guest verify everything and end, to be started anew; whether it was running.
    pub fn restart(&self) -> bool {
        let mut state = self.state();
        let running = state.view.phase == Phase::Running && !self.is_silent(&state);
        if running {
            state.view.phase = self.stopping();
            state.afterwards = Afterwards::Restart;
            state.verified = self.clock.now();
            drop(state);
            self.send(ToVmm::Stop);
        }
        running
    }

    /// From now on the guest is not started anew, even if it has been told to end for that.
    pub fn end_restarts(&self) {
        self.state().afterwards = Afterwards::End;
    }

    /// Gives the guest what memory it gets, and tells its VMM as much of its orders as that hears now.
    pub fn order(&self, orders: Orders) {
        let mut state = self.state();
        state.view.grant = orders.grant;
        state.orders = Some(orders);
        let hears = self.hears(&state);
        let told = state.link.order(&orders, hears);
        drop(state);
        self.check_read(told);
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

    /// Completes when somebody wants the VMM killed.
    pub(crate) async fn kill_wanted(&self) {
        self.killed.notified().await;
    }

    /// What it does when it is told to stop.
    fn stopping(&self) -> Phase {
        if self.plan.linux.is_some() { Phase::Stopping } else { Phase::Verifying }
    }

    fn advance(&self, from: Phase, to: Phase) -> bool {
        let mut state = self.state();
        let due = state.view.phase == from;
        if due {
            state.view.phase = to;
        }
        due
    }

    /// Every critical section leaves the state whole, so a panic elsewhere is no reason to give up on a
    /// guest.
    fn state(&self) -> MutexGuard<'_, GuestState> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests;
