//! VMMs that say nothing: when they are named for it, when they are killed, and what is kept for them.
//!
//! ```text
//!   a status every 100 ms ── none for 5 s ──► unresponsive: what can wait is kept ── a status ──► told
//!                                             │
//!                                             ├── owes the frame store an answer for 20 s ──► killed
//!                                             ├── 30 s, above its allocation, others wait ──► killed
//!                                             └── the run ends: SIGCONT, 30 s to verify ────► killed
//! ```

use std::time::Duration;

use control::ToVmm;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Guest, GuestState};
use crate::fleet::link::Hears;
use crate::fleet::phase::Phase;

/// Without a status for so long, 50 intervals, a VMM is named unresponsive, and told nothing that can wait
/// until it speaks again.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(5);
/// Longest time without a status, or at the end without a page verified, for a VMM of which others need
/// something: 300 status intervals, for machines with many guests a CPU.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Whether guests need memory that others have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Some wait for it.
    OthersWait,
    /// Nobody does.
    Nobody,
}

impl Guest {
    /// Tells its VMM that the host is there; one that says nothing would only have to read it all later.
    pub fn attend(&self) {
        let state = self.state();
        let speaks = !state.view.has_ended() && !self.is_silent(&state);
        drop(state);
        if speaks {
            self.send(ToVmm::Attend);
        }
    }

    /// While its guest is built a VMM need not say anything.
    pub(super) fn is_silent(&self, state: &GuestState) -> bool {
        matches!(state.view.phase, Phase::Running | Phase::Paused | Phase::Verifying | Phase::Stopping)
            && self.clock.now() - state.heard >= UNRESPONSIVE_AFTER
    }

    /// How much of its orders its VMM is told.
    pub(super) fn hears(&self, state: &GuestState) -> Hears {
        match state.view.phase {
            _ if self.is_silent(state) => Hears::Nothing,
            Phase::Running => Hears::All,
            _ => Hears::Grant,
        }
    }

    /// Kills the VMM of a guest that has said nothing for too long while others need what it has, or that was
    /// to verify its memory and has made no progress. One that others need nothing of is left alone: whoever
    /// stopped it may let it go on.
    pub fn kill_if_stuck(&self, need: Need) {
        let state = self.state();
        let now = self.clock.now();
        let (silence, idleness) = (now - state.heard, now - state.verified);
        let keeps_memory = need == Need::OthersWait && state.view.is_above_its_allocation();
        let why = match state.view.phase {
            Phase::Running | Phase::Paused if silence > SILENCE_MAX && keeps_memory => {
                "kept memory that others wait for and said nothing"
            }
            Phase::Verifying | Phase::Stopping if idleness > SILENCE_MAX && silence > SILENCE_MAX => "said nothing",
            Phase::Verifying if idleness > SILENCE_MAX => "was to verify its memory and came no further",
            Phase::Stopping if idleness > SILENCE_MAX => "did not switch itself off when its power button was pressed",
            Phase::Starting if state.view.past.restarts > 0 && silence > SILENCE_MAX => "was not built anew",
            _ => return,
        };
        drop(state);
        self.kill(format!("{why} for {} s", SILENCE_MAX.as_secs()));
    }

    /// Lets its process go on, if a signal has stopped it.
    pub(super) fn wake(&self) {
        tracing::warn!(guest = self.plan.name, "unresponsive at the end of the run: told to go on (SIGCONT)");
        // Not reaped while its guest has not ended, so the number is still its own; 0 would be our own group.
        let pid = self.pid() as i32;
        if pid > 0
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGCONT)
        {
            tracing::warn!(guest = self.plan.name, %error, "SIGCONT");
        }
    }
}
