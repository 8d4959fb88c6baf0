//! What is learned of a guest: from its VMM while that speaks, and from the process when it has ended.
//!
//! A VMM's word changes where its guest stands only in the order of [`Phase`]. How a guest ended is decided
//! once its process is reaped, from all that was learned before.

use std::process::ExitStatus;
use std::time::Instant;

use control::GuestStatus;

use super::{Afterwards, Guest, GuestState, Past};
use crate::fleet::freshness::Heard;
use crate::fleet::phase::{End, Phase, describe_exit};

impl Guest {
    /// The VMM built the guest.
    pub(crate) fn on_ready(&self) {
        self.advance(Phase::Starting, Phase::Ready);
    }

    /// The VMM reported.
    pub(crate) fn on_status(&self, status: GuestStatus) {
        let mut state = self.state();
        let was_silent = self.is_silent(&state);
        state.heard = self.clock.now();
        state.figures.status(&status, Instant::now());
        if status.workload.pages_verified_total != state.view.status.workload.pages_verified_total {
            state.verified = state.heard;
        }
        state.view.status = status;
        let hears = self.hears(&state);
        let GuestState { link, orders, .. } = &mut *state;
        link.catch_up(orders.as_ref(), hears);
        if was_silent {
            tracing::info!(guest = self.plan.name, "speaks again");
        }
    }

    /// The guest ended by itself.
    pub(crate) fn on_finished(&self, result: Result<(), String>, status: GuestStatus) {
        self.on_status(status);
        self.state().finished = Some(result);
    }

    /// The VMM wrote a line to its standard error: one of its log, at the level that begins it, or a panic's.
    pub(crate) fn on_words(&self, line: &str) {
        let (level, words) = line.trim_start().split_once(' ').unwrap_or_default();
        let name = &self.plan.name;
        match level {
            "ERROR" => tracing::error!(target: "vmm", "{name}: {words}"),
            "INFO" => return tracing::info!(target: "vmm", "{name}: {words}"),
            "DEBUG" | "TRACE" => return tracing::debug!(target: "vmm", "{name}: {words}"),
            "WARN" => tracing::warn!(target: "vmm", "{name}: {words}"),
            _ => tracing::warn!(target: "vmm", "{name}: {line}"),
        }
        if !line.starts_with("note: ") {
            self.state().last_words = Some(line.trim_start().to_owned());
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
        state.view.reclaiming = None;
        true
    }

    /// There is no VMM for a guest that was to be started anew.
    pub(crate) fn on_lost(&self, why: String) {
        self.state().view.phase = Phase::Ended(End::Lost(why));
    }
}
