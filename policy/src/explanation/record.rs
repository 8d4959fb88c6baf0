//! What was decided about a guest, from what, and by which rule: enough to say afterwards why it has the
//! memory it has.

use std::fmt::{self, Write};

use crate::allocate::{Decision, Reason};
use crate::guest::{Config, GuestInput};
use crate::levers::Lever;
use crate::means::{CHOICES, Mean};
use crate::restraint::backoff::Standing;
use crate::state::HostState;

/// One decision, with all it was made from. Amounts are bytes of host memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// How short the host was.
    pub state: HostState,
    /// The guest as it was measured, with what it was promised.
    pub guest: GuestInput,
    /// What came of it.
    pub decision: Decision,
    /// Where its balloon stood.
    pub standing: Standing,
    /// The tax in force.
    pub idle_tax_percent: u8,
}

/// What a decision does to an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// More.
    Grow,
    /// Less.
    Shrink,
    /// As before.
    Keep,
}

impl Action {
    /// All.
    pub const ALL: [Action; 3] = [Action::Grow, Action::Shrink, Action::Keep];

    /// Its name, for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Action::Grow => "grow",
            Action::Shrink => "shrink",
            Action::Keep => "keep",
        }
    }
}

impl Record {
    /// The record of a decision.
    pub fn new(
        config: &Config,
        state: HostState,
        guest: &GuestInput,
        decision: Decision,
        standing: Standing,
    ) -> Record {
        Record { state, guest: *guest, decision, standing, idle_tax_percent: config.idle_tax_percent }
    }

    /// What was done.
    pub fn action(&self) -> Action {
        match self.decision.allocation_bytes.cmp(&self.guest.usage.allocation_bytes) {
            std::cmp::Ordering::Greater => Action::Grow,
            std::cmp::Ordering::Less => Action::Shrink,
            std::cmp::Ordering::Equal => Action::Keep,
        }
    }

    /// Whether this says nothing that `before` did not.
    pub fn repeats(&self, before: &Record) -> bool {
        let said = |record: &Record| (record.state, record.decision, record.standing, record.action());
        said(self) == said(before)
    }
}

impl Reason {
    /// The rule that leads to it, in a sentence.
    pub fn rule(self) -> &'static str {
        match self {
            Reason::Settled => "nothing moves while nobody who uses up what it has waits for memory",
            Reason::Stalls => "a guest that waits for memory and uses up what it has grows by a step (1/64 of its RAM)",
            Reason::Surplus => "what nobody needs is shared out, up to the limits",
            Reason::Waits => {
                "growth waits until the memory is free: a shrinking guest counts in full until it has shrunk"
            }
            Reason::AtLimit => "no guest grows above its limit",
            Reason::Exhausted => {
                "all others are at their entitlement, or at their reservation, or use what they have more dearly"
            }
            Reason::Slack => "what a guest has not used is the first to go",
            Reason::Yields => "while others wait, a guest that does not yields a step, down to its entitlement at most",
            Reason::Outbid => "guests that wait divide what there is by entitlement, and beyond it by shares and need",
            Reason::Squeezed => "the budget is below what was given: all come down, to their entitlements at first",
            Reason::Lowered => "a lowered limit is followed at once, memory that is reclaimed is taken by steps",
        }
    }
}

/// The explanation, one fact a line.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { guest, decision, .. } = self;
        let usage = &guest.usage;
        let mut line = String::new();
        match self.action() {
            Action::Keep => write!(line, "keeps {}", mib(decision.allocation_bytes))?,
            _ => write!(line, "{} -> {}", mib(usage.allocation_bytes), mib(decision.allocation_bytes))?,
        }
        writeln!(f, "decision     {line}: {}", decision.reason)?;
        writeln!(f, "rule         {}", decision.reason.rule())?;
        writeln!(
            f,
            "promises     {} reserved, {} at most, {} shares",
            mib(guest.reservation_bytes),
            mib(guest.limit_bytes),
            guest.shares
        )?;
        if let Some(cap_bytes) = guest.cap_bytes {
            writeln!(f, "reclaim      {} at most for now", mib(cap_bytes))?;
        }
        let active = usage.active_bytes.map_or("not known yet".into(), |bytes| format!("{} in use", mib(bytes)));
        writeln!(
            f,
            "use          {active}, {} resident, {} of shared frames",
            mib(usage.resident_bytes),
            mib(usage.charged_bytes)
        )?;
        let idle = usage.active_bytes.map(|active| usage.resident_bytes.saturating_sub(active));
        if let Some(idle) = idle {
            let price = 100.0 / f64::from(100 - self.idle_tax_percent.min(99));
            writeln!(f, "idle tax     {} idle, charged {price:.1} times ({} %)", mib(idle), self.idle_tax_percent)?;
        }
        writeln!(f, "entitlement  {} by shares and use", mib(decision.entitlement_bytes))?;
        let stall = usage.stall_ratio * 100.0;
        writeln!(f, "waits        {stall:.1} % of its time, {:.0} refaults a second", usage.refaults_per_second)?;
        writeln!(
            f,
            "balloon      asked for {} (before: {}), {}",
            mib(decision.balloon_bytes),
            mib(usage.balloon_bytes),
            self.standing.name()
        )?;
        let mean = |(lever, mean): (&Lever, &Mean)| {
            let rate = mean.bytes_per_tick.map_or("speed not known".into(), |bytes| format!("{} a tick", mib(bytes)));
            format!("{lever} {:.1} µs a page ({} at most, {rate})", mean.per_page_us, mib(mean.available_bytes))
        };
        let means: Vec<_> =
            CHOICES.iter().zip(&usage.means.0).filter(|(_, mean)| mean.available_bytes > 0).map(mean).collect();
        if !means.is_empty() {
            writeln!(f, "levers       {}", means.join(", "))?;
        }
        let lost = usage.allocation_bytes.saturating_sub(decision.allocation_bytes);
        if lost > 0 {
            let by = usage.means.mix(lost);
            let part = |(lever, &bytes): (&Lever, &u64)| format!("{lever} {}", mib(bytes));
            let by: Vec<_> = CHOICES.iter().zip(&by).filter(|(_, bytes)| **bytes > 0).map(part).collect();
            writeln!(f, "plan         {}", by.join(", "))?;
        }
        if usage.spared {
            writeln!(f, "spared       it waited for what it gave last, so it keeps what it has for a while")?;
        }
        write!(f, "host         {}", self.state)
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::means::Means;
    use crate::{Host, allocate};

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_record_says_what_was_done_why_and_from_what() {
        let config = Config::default();
        let mut guests = [GuestInput::new(&config, 256 * MIB, 0); 2];
        for guest in &mut guests {
            guest.usage.allocation_bytes = 150 * MIB;
            guest.usage.resident_bytes = 150 * MIB;
            guest.usage.committed_bytes = 150 * MIB;
            guest.usage.active_bytes = Some(20 * MIB);
        }
        guests[0].usage.stall_ratio = 0.25;
        guests[0].usage.active_bytes = Some(200 * MIB);
        guests[0].usage.spared = true;
        let mean = |mib, per_page_us| Mean { available_bytes: mib * MIB, per_page_us, bytes_per_tick: Some(2 * MIB) };
        guests[1].usage.means = Means([mean(2, 3.0), mean(64, 9.0), Mean::default()]);
        let decisions = allocate(&config, &Host { budget_bytes: 300 * MIB, ..Host::default() }, &guests);
        let record = |at: usize| Record::new(&config, HostState::Hard, &guests[at], decisions[at], Standing::Moving);
        let text = record(1).to_string();
        for words in [
            "150.0 MiB -> 146.0 MiB",
            "others stall and it does not",
            "20.0 MiB in use",
            "130.0 MiB idle, charged 4.0 times",
            "compress 9.0 µs a page (64.0 MiB at most, 2.0 MiB a tick)",
            "plan         balloon 2.0 MiB, compress 2.0 MiB",
            "hard",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        assert!(record(0).to_string().contains("waited for what it gave last") && !text.contains("spared"));
        assert_eq!((record(0).action(), record(1).action()), (Action::Keep, Action::Shrink));
        assert!(record(0).repeats(&record(0)) && !record(0).repeats(&record(1)));
    }

    #[test]
    fn every_reason_has_a_rule_and_a_name_of_its_own() {
        let all = |text: fn(Reason) -> &'static str| {
            Reason::ALL.map(text).into_iter().collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!((all(Reason::rule).len(), all(Reason::name).len()), (Reason::ALL.len(), Reason::ALL.len()));
    }
}
