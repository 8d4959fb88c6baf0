//! The ledger: turns what guests reported into what `policy` wants to know, and its decisions into grants.
//!
//! The frame store is an account like the guests': each tick sets aside a *headroom* that it may grow by
//! until the next. It doubles while the store uses at least half of it, or had to refuse frames for want of
//! it, and halves while it does not, so that a busy start is not held back and a settled run keeps no memory
//! idle for it. A refused frame is worth more than what it would take: at least two pages wait for it.

use std::time::Duration;

use control::{KERNEL_PAGE_PRICE_UNMEASURED, Levers};
use policy::active;
use policy::explanation::record::Record;
use policy::state::{HostState, Outside, Thresholds, possible_bytes, usable_budget};
use policy::verdict::Verdict;
use policy::{Config, Host, allocate};
use wire::PAGE_BYTES;

use crate::config::{Rule, RunConfig};
use crate::control::prices::GuestLevers;
use crate::control::rates::Rates;
use crate::control::situation::Situation;
use crate::fleet::guest::View;
use crate::fleet::orders::Grant;
use crate::plan::PlannedGuest;
use crate::request::admission::{grant, host, least_headroom, levers_config, policy_config};

/// Longest time that counts as one tick: a clock that jumped (a machine that slept) says nothing of guests.
const ELAPSED_MAX: Duration = Duration::from_secs(10);
/// Most headroom, as a share of the budget: 24 MiB of 768, or 240 MiB published a second.
const HEADROOM_DIVISOR: u64 = 32;

/// What is carried from one tick to the next.
#[derive(Debug)]
pub struct Ledger {
    levers: Levers,
    policy: Config,
    budget_bytes: u64,
    /// What there was when all that is in force last fitted.
    ceiling_bytes: u64,
    vcpus: u32,
    /// By guest: with the levers that it has.
    configs: Vec<Config>,
    rates: Vec<Rates>,
    frames_bytes: u64,
    headroom_bytes: u64,
    frames_refused: bool,
    kernel_page_price: u16,
    slack_bytes: u64,
    state: HostState,
    sample_period_ms: u64,
    outside: Outside,
    rule: Option<Rule>,
    clock_ms: u64,
}

/// What one tick decides.
#[derive(Debug)]
pub struct Settlement {
    /// By guest; nothing where there is none any more.
    pub guests: Vec<Option<GuestSettlement>>,
    /// What the frame stores together may grow to until the next tick, bytes.
    pub store_bytes_max: u64,
    /// How it is with the host.
    pub situation: Situation,
    /// How often guests are to be sampled, ms; 0 for never.
    pub sample_period_ms: u64,
    /// Whether any guest waits for memory.
    pub short: bool,
}

/// What one tick decides about one guest.
#[derive(Clone, Copy, Debug)]
pub struct GuestSettlement {
    /// The memory it gets.
    pub grant: Grant,
    /// What it gets and what becomes of it, and why.
    pub verdict: Verdict,
    /// What each lever costs on it.
    pub levers: GuestLevers,
    /// What breaks of its shared pages are expected to take, bytes.
    pub cow_expected_bytes: u64,
}

impl Ledger {
    /// The ledger of a run that has not begun.
    pub fn new(config: &RunConfig, guests: &[PlannedGuest]) -> Ledger {
        Ledger {
            levers: config.levers,
            policy: policy_config(config),
            budget_bytes: config.budget_bytes,
            ceiling_bytes: config.budget_bytes,
            vcpus: config.vcpus,
            configs: guests.iter().map(|guest| levers_config(policy_config(config), guest.levers)).collect(),
            rates: vec![Rates::default(); guests.len()],
            frames_bytes: 0,
            headroom_bytes: least_headroom(config.levers),
            frames_refused: false,
            kernel_page_price: KERNEL_PAGE_PRICE_UNMEASURED,
            slack_bytes: 0,
            state: HostState::default(),
            sample_period_ms: config.sample_period.map_or(0, |period| period.as_millis() as u64),
            outside: Outside::default(),
            rule: config.rule,
            clock_ms: 0,
        }
    }

    /// What policy is told of the run.
    pub fn policy(&self) -> &Config {
        &self.policy
    }

    /// What the world outside says from now on.
    pub fn hear(&mut self, outside: Outside) {
        self.outside = outside;
    }

    /// Whether frame stores had to refuse frames lately.
    pub fn set_frames_refused(&mut self, refused: bool) {
        self.frames_refused = refused;
    }

    /// What guests are charged for pages in the kernel's swap from now on, and what their groups may have
    /// above their allocations.
    pub fn set_kernel_tier(&mut self, page_price: u16, slack_bytes: u64) {
        self.kernel_page_price = page_price;
        self.slack_bytes = slack_bytes;
    }

    /// What there is to be divided from now on.
    pub fn set_budget_bytes(&mut self, budget_bytes: u64) {
        self.budget_bytes = budget_bytes;
    }

    /// Divides the budget anew, `elapsed` after the last time.
    pub fn settle(&mut self, views: &[View], frames_bytes: u64, elapsed: Duration) -> Settlement {
        let elapsed = elapsed.min(ELAPSED_MAX);
        self.adapt_headroom(frames_bytes);
        let shared_pages: u64 = views.iter().map(|view| view.status.pager.pages.shared).sum();
        let shared_bytes = shared_pages * PAGE_BYTES as u64;
        // What a shared page costs, as a part of a page.
        let fraction = (frames_bytes as f64 / shared_bytes.max(1) as f64).min(1.0);
        for (rates, view) in self.rates.iter_mut().zip(views) {
            rates.update(&view.status, elapsed, self.vcpus, fraction);
        }
        let config = self.policy;
        let mut situation = self.situation(views, frames_bytes);
        let budget_bytes = situation.usable_bytes;
        let host = Host {
            frames_bytes,
            frames_headroom_bytes: self.headroom_bytes,
            ceiling_bytes: situation.ceiling_bytes,
            host_overhead_bytes: self.upkeep_bytes(budget_bytes),
            ..host(budget_bytes)
        };
        situation.host = host;
        let living = || views.iter().enumerate().filter(|(_, view)| !view.has_ended());
        let guests: Vec<_> =
            living().map(|(number, view)| self.rates[number].guest(&self.configs[number], view, fraction)).collect();
        let before_ms = self.clock_ms;
        self.clock_ms += elapsed.as_millis() as u64;
        let mut decisions = match self.rule {
            None => allocate(&config, &host, &guests),
            Some(rule) => rule(&config, &host, &guests, before_ms..self.clock_ms),
        };

        let in_force =
            guests.iter().zip(&decisions).map(|(guest, new)| guest.usage.committed_bytes.max(new.allocation_bytes));
        let in_force_bytes = in_force.sum::<u64>() + host.host_overhead_bytes;
        situation.in_force_bytes = in_force_bytes + frames_bytes;
        let free_bytes = budget_bytes.saturating_sub(in_force_bytes);
        let store_bytes_max =
            free_bytes.min(frames_bytes + self.headroom_bytes).min(policy::store_bytes_max(&config, &host, &guests));

        let mut settled = vec![None; views.len()];
        for (((number, view), guest), decision) in living().zip(&guests).zip(&mut decisions) {
            let rates = &mut self.rates[number];
            if config.pager {
                decision.balloon_bytes = rates.ask(view, decision.balloon_bytes);
            }
            let record = Record::new(&config, situation.state, guest, *decision, rates.standing());
            settled[number] = Some(GuestSettlement {
                grant: grant(decision, self.kernel_page_price),
                verdict: Verdict::of(record, situation.short_bytes()),
                levers: rates.levers(&guest.usage.means),
                cow_expected_bytes: rates.breaks_expected_bytes(view.status.pager.pages.shared),
            });
        }
        // A guest that is short wants to know who is idle, however much is free that it cannot have.
        let short = decisions.iter().any(|decision| decision.reason.is_short());
        let urgency = if short { situation.state.max(HostState::Soft) } else { situation.state };
        let sample_period_ms = active::period_ms(self.sample_period_ms, urgency);
        Settlement { guests: settled, store_bytes_max, situation, sample_period_ms, short }
    }

    /// How it is with the host now.
    fn situation(&mut self, views: &[View], frames_bytes: u64) -> Situation {
        let living = || views.iter().filter(|view| !view.has_ended());
        let sum = |bytes: fn(&View) -> u64| living().map(bytes).sum::<u64>() + frames_bytes;
        let used_bytes = sum(|view| view.status.pager.resident_bytes);
        let usable_bytes = usable_budget(self.budget_bytes, used_bytes, &self.outside);
        let free_bytes = usable_bytes.saturating_sub(used_bytes);
        self.state = Thresholds::of(usable_bytes).next(self.state, free_bytes);
        let upkeep_bytes = self.upkeep_bytes(usable_bytes);
        let in_force_bytes =
            sum(|view| view.grant.allocation_bytes.max(view.status.pager.committed_bytes)) + upkeep_bytes;
        self.ceiling_bytes = match in_force_bytes <= usable_bytes {
            true => usable_bytes,
            false => self.ceiling_bytes.min(possible_bytes(used_bytes, &self.outside)).max(usable_bytes),
        };
        Situation {
            state: self.state,
            budget_bytes: self.budget_bytes,
            usable_bytes,
            free_bytes,
            in_force_bytes,
            ceiling_bytes: self.ceiling_bytes,
            floor_bytes: sum(|view| view.status.pager.floor_bytes) + upkeep_bytes,
            host: Host::default(),
        }
    }

    /// What nobody is given of so much.
    fn upkeep_bytes(&self, usable_bytes: u64) -> u64 {
        host(usable_bytes).host_overhead_bytes + self.slack_bytes
    }

    fn adapt_headroom(&mut self, frames_bytes: u64) {
        let grown_bytes = frames_bytes.saturating_sub(self.frames_bytes);
        let is_used = self.frames_refused || grown_bytes >= self.headroom_bytes / 2;
        let wanted = if is_used { self.headroom_bytes * 2 } else { self.headroom_bytes / 2 };
        let least = least_headroom(self.levers);
        self.headroom_bytes = wanted.clamp(least, (self.budget_bytes / HEADROOM_DIVISOR).max(least));
        self.frames_bytes = frames_bytes;
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
