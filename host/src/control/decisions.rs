//! What policy decided lately, and why: kept for whoever asks, counted for metrics, said in the log.

use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use policy::explanation::record::{Action, Record};
use policy::state::Thresholds;
use policy::verdict::Verdict;
use policy::{Config, Reason};
use serde_json::{Value, json};

use crate::control::episode::{Episode, Episodes};
use crate::control::ledger::GuestSettlement;
use crate::control::prices::{GuestLevers, LeverFigures};
use crate::control::remedies;
use crate::control::situation::Situation;
use crate::sync::lock;

/// See the module's description.
#[derive(Debug)]
pub struct Decisions {
    /// Who decides, where it is our policy: what would change a decision is known of that only.
    config: Option<Config>,
    log: Mutex<DecisionLog>,
}

#[derive(Debug)]
struct DecisionLog {
    situation: Situation,
    counts: [[u64; Reason::ALL.len()]; Action::ALL.len()],
    guests: Vec<(String, Episodes)>,
    /// By guest: what was decided last.
    settled: Vec<Option<GuestSettlement>>,
}

impl DecisionLog {
    fn levers(&self, number: usize) -> Option<GuestLevers> {
        self.settled.get(number).copied().flatten().map(|settled| settled.levers)
    }
}

impl Decisions {
    /// Nothing decided yet about guests of these names.
    pub fn new(guests: impl IntoIterator<Item = String>, config: Option<Config>) -> Decisions {
        let guests = guests.into_iter().map(|name| (name, Episodes::default())).collect();
        Decisions {
            config,
            log: Mutex::new(DecisionLog {
                situation: Situation::default(),
                counts: Default::default(),
                guests,
                settled: Vec::new(),
            }),
        }
    }

    /// Takes note of one tick's decisions, by guest.
    pub fn note(&self, situation: Situation, settled: &[Option<GuestSettlement>]) {
        let mut log = self.log();
        log.settled = settled.to_vec();
        let now = SystemTime::now();
        let before = std::mem::replace(&mut log.situation, situation);
        if before.state != situation.state {
            let Situation { state, usable_bytes, free_bytes, .. } = situation;
            tracing::info!(from = %before.state, to = %state, free_bytes, usable_bytes, "host state");
        }
        let DecisionLog { counts, guests, .. } = &mut *log;
        for ((name, past), settled) in guests.iter_mut().zip(settled) {
            let Some(GuestSettlement { verdict: Verdict { record, .. }, .. }) = settled else { continue };
            if !past.note(now, record) {
                continue;
            }
            let (action, reason) = (record.action(), record.decision.reason);
            if let Some(count) = counts.get_mut(action as usize).and_then(|counts| counts.get_mut(reason as usize)) {
                *count += 1;
            }
            tracing::debug!(
                guest = name, action = action.name(), reason = reason.name(), state = %record.state,
                before_bytes = record.guest.usage.allocation_bytes, allocation_bytes = record.decision.allocation_bytes,
                balloon_bytes = record.decision.balloon_bytes, entitlement_bytes = record.decision.entitlement_bytes,
                active_bytes = record.guest.usage.active_bytes, stall_ratio = record.guest.usage.stall_ratio,
                "decision"
            );
        }
    }

    /// What each lever costs on a guest, by the guest's number; none of one that is gone.
    pub fn levers(&self, number: usize) -> Option<GuestLevers> {
        self.log().levers(number)
    }

    /// The last decision about a guest.
    pub fn last(&self, name: &str) -> Option<Record> {
        let log = self.log();
        let (_, past) = log.guests.iter().find(|(known, _)| known == name)?;
        past.last().map(|episode| episode.record)
    }

    /// The host as of the last tick.
    pub fn situation(&self) -> Situation {
        self.log().situation
    }

    /// Decisions that changed something, by what they did and why.
    pub fn counts(&self) -> Vec<([&'static str; 2], u64)> {
        let log = self.log();
        let by_reason = |&action: &Action| Reason::ALL.map(|reason| (action, reason));
        let count = |(action, reason): (Action, Reason)| {
            ([action.name(), reason.name()], log.counts[action as usize][reason as usize])
        };
        Action::ALL.iter().flat_map(by_reason).map(count).filter(|&(_, count)| count > 0).collect()
    }

    /// The host's state and every guest's last decision.
    pub fn overview(&self) -> Value {
        let log = self.log();
        let last = |(number, (name, past)): (usize, &(String, Episodes))| {
            let mut described = describe(name, past.last()?);
            described["levers"] = levers_json(log.levers(number).as_ref());
            Some(described)
        };
        json!({
            "host": situation_json(&log.situation),
            "guests": log.guests.iter().enumerate().filter_map(last).collect::<Vec<_>>(),
        })
    }

    /// A guest's decisions, the newest first, each distinct one once, and what would change the newest; none
    /// of a guest there is not.
    pub fn of_guest(&self, name: &str) -> Option<Value> {
        let log = self.log();
        let number = log.guests.iter().position(|(known, _)| known == name)?;
        let (name, past) = &log.guests[number];
        let decisions: Vec<_> = past.newest_first().map(|episode| describe(name, episode)).collect();
        let levers = levers_json(log.levers(number).as_ref());
        let mut told = json!({
            "guest": name,
            "host": situation_json(&log.situation),
            "levers": levers,
            "decisions": decisions,
        });
        let situation = log.situation;
        let inputs: Vec<_> =
            log.settled.iter().map(|settled| settled.map(|settled| settled.verdict.record.guest)).collect();
        let names: Vec<_> = log.guests.iter().map(|(name, _)| name.clone()).collect();
        // Deciding again takes its time, which the control loop is not to wait for.
        drop(log);
        let remedies = self.config.map(|config| remedies::of(&config, &situation, &inputs, &names, number));
        told["would_change_it"] = remedies.unwrap_or_default();
        Some(told)
    }

    fn log(&self) -> MutexGuard<'_, DecisionLog> {
        lock(&self.log)
    }
}

fn situation_json(situation: &Situation) -> Value {
    let at = Thresholds::of(situation.usable_bytes);
    json!({
        "state": situation.state.name(),
        "budget_bytes": situation.budget_bytes,
        "usable_bytes": situation.usable_bytes,
        "free_bytes": situation.free_bytes,
        "in_force_bytes": situation.in_force_bytes,
        "short_bytes": situation.short_bytes(),
        "thresholds_bytes": { "high": at.high_bytes, "soft": at.soft_bytes, "hard": at.hard_bytes, "low": at.low_bytes },
    })
}

/// What is measured now, not what a decision was made from: that is among its inputs.
fn levers_json(levers: Option<&GuestLevers>) -> Value {
    let one = |figures: &LeverFigures| {
        let price = &figures.price;
        json!({
            "lever": figures.lever.name(),
            "price_us": price.per_page_us(),
            "win_us": price.win_us(),
            "back_soon_ratio": price.returns(),
            "stall_us": price.stall_us(),
            "pages_per_second": price.pages_per_second(),
            "available_bytes": figures.available_bytes,
        })
    };
    levers.map_or(Value::Null, |levers| levers.iter().map(one).collect())
}

fn describe(name: &str, episode: &Episode) -> Value {
    let record = &episode.record;
    let Record { guest, decision, .. } = record;
    let usage = &guest.usage;
    let unix_ms =
        |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let [least, most] = episode.allocation_bytes;
    json!({
        "guest": name,
        "at_unix_ms": unix_ms(episode.to),
        "from_unix_ms": unix_ms(episode.from),
        "to_unix_ms": unix_ms(episode.to),
        "count": episode.count,
        "allocation_range_bytes": { "least": least, "most": most },
        "decision": decision.reason.to_string(),
        "action": record.action().name(),
        "reason": decision.reason.name(),
        "rule": decision.reason.rule(),
        "inputs": {
            "host_state": record.state.name(),
            "shares": guest.shares,
            "reservation_bytes": guest.reservation_bytes,
            "limit_bytes": guest.limit_bytes,
            "cap_bytes": guest.cap_bytes,
            "idle_tax_percent": record.idle_tax_percent,
            "active_bytes": usage.active_bytes,
            "resident_bytes": usage.resident_bytes,
            "committed_bytes": usage.committed_bytes,
            "charged_bytes": usage.charged_bytes,
            "stall_ratio": usage.stall_ratio,
            "refaults_per_second": usage.refaults_per_second,
            "spared": usage.spared,
            "balloon": record.standing.name(),
            "balloon_bytes_before": usage.balloon_bytes,
            "allocation_bytes_before": usage.allocation_bytes,
        },
        "result": {
            "allocation_bytes": decision.allocation_bytes,
            "balloon_bytes": decision.balloon_bytes,
            "entitlement_bytes": decision.entitlement_bytes,
        },
        "text": record.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::prices::Prices;
    use crate::fleet::orders::Grant;
    use policy::means::Means;
    use policy::restraint::backoff::Standing;
    use policy::state::HostState;
    use policy::{GuestInput, Host, allocate};

    const MIB: u64 = 1 << 20;

    fn settled(stall_ratio: f64) -> Option<GuestSettlement> {
        let config = Config::default();
        let mut guest = GuestInput::new(&config, 256 * MIB, 0);
        guest.usage.allocation_bytes = 100 * MIB;
        guest.usage.resident_bytes = 100 * MIB;
        guest.usage.stall_ratio = stall_ratio;
        let decision = allocate(&config, &Host { budget_bytes: 100 * MIB, ..Host::default() }, &[guest])[0];
        let record = Record::new(&config, HostState::Hard, &guest, decision, Standing::Settled);
        let (verdict, levers) = (Verdict::of(record, 0), Prices::default().figures(&Means::default()));
        Some(GuestSettlement { grant: Grant::default(), verdict, levers, cow_expected_bytes: 0 })
    }

    #[test]
    fn what_is_new_is_kept_counted_and_told_and_what_is_not_is_not() {
        let decisions = Decisions::new(["web".to_owned()], None);
        for stall_ratio in [0.0, 0.0, 0.3, 0.3, 0.0] {
            decisions.note(Situation { state: HostState::Hard, ..Situation::default() }, &[settled(stall_ratio)]);
        }
        let told = decisions.of_guest("web").unwrap();
        let reasons: Vec<_> =
            told["decisions"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["settled", "exhausted"], "each once, the newest first");
        let counts: Vec<_> = told["decisions"].as_array().unwrap().iter().map(|one| one["count"].as_u64()).collect();
        assert_eq!(counts, [Some(3), Some(2)]);
        assert_eq!(decisions.counts(), [(["keep", "settled"], 2), (["keep", "exhausted"], 1)]);
        assert_eq!(told["host"]["state"], "hard");
        assert!(decisions.of_guest("db").is_none());
    }

    #[test]
    fn what_would_change_a_decision_is_told_with_it() {
        let decisions = Decisions::new(["web".to_owned()], Some(Config::default()));
        let host = Host { budget_bytes: 100 * MIB, ..Host::default() };
        let (budget_bytes, usable_bytes) = (host.budget_bytes, host.budget_bytes);
        let situation = Situation { budget_bytes, usable_bytes, host, ..Situation::default() };
        decisions.note(situation, &[settled(0.3)]);
        let told = decisions.of_guest("web").unwrap();
        assert_eq!(told["would_change_it"][0]["what"], "budget", "{told}");
        decisions.note(situation, &[settled(0.0)]);
        assert_eq!(decisions.of_guest("web").unwrap()["would_change_it"], json!([]));
    }
}
