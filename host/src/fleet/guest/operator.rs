//! What operators want of a guest while it runs, beside that it stops and goes on: other promises, and memory
//! reclaimed from it.

use std::time::Duration;

use control::ToVmm;

use super::Guest;
use crate::fleet::guest::reclaim::Reclaiming;
use crate::fleet::phase::Phase;
use crate::plan::PlannedGuest;
use crate::request::guest_promises::Promises;

impl Guest {
    /// Promises it something else from the next tick on.
    pub fn promise(&self, promises: Promises) {
        self.state().view.promises = promises;
    }

    /// Has memory reclaimed from it, unless that is so already; otherwise, why not.
    pub fn reclaim(&self, bytes: u64, hold: Duration) -> Result<(), String> {
        let reclaiming = Reclaiming::new(bytes, hold, self.clock.now());
        let mut state = self.state();
        let name = &self.plan.name;
        if !matches!(state.view.phase, Phase::Running | Phase::Paused) {
            return Err(format!("{name} is {}: nothing can be reclaimed from it", state.view.phase));
        }
        if let Some(other) = state.view.reclaiming.filter(Reclaiming::is_on) {
            let told = other.describe(name, self.clock.now());
            return Err(format!(
                "one at a time: {}; DELETE, or --hold 0, ends that",
                told["text"].as_str().unwrap_or("")
            ));
        }
        state.view.reclaiming = Some(reclaiming);
        drop(state);
        // What is equal or zero is the cheapest.
        self.send(ToVmm::Hurry);
        Ok(())
    }

    /// Gives back what is reclaimed from it; whether there was anything.
    pub fn end_reclaim(&self) -> bool {
        let reclaiming = &mut self.state().view.reclaiming;
        let on = reclaiming.as_mut().filter(|reclaiming| reclaiming.is_on());
        on.map(Reclaiming::end).is_some()
    }

    /// Goes on with what is reclaimed from it, by how it was seen at the last tick.
    pub fn tend_reclaim(&self, config: &policy::Config, seen: &policy::GuestInput) {
        let now = self.clock.now();
        let view = &mut self.state().view;
        if let Some(reclaiming) = view.reclaiming.as_mut().filter(|reclaiming| reclaiming.is_on()) {
            reclaiming.look(now, config, seen, &view.status);
            if !reclaiming.is_on() {
                tracing::info!(guest = view.name, "{}", reclaiming.describe(&view.name, now)["text"]);
            }
        }
    }

    /// Its plan, with the promises that are in force.
    pub fn current_plan(&self) -> PlannedGuest {
        PlannedGuest { promises: self.state().view.promises, ..self.plan.clone() }
    }
}
