//! Admission: what a run promises its guests before any of them runs, whether that fits, and what they start
//! with.

use std::collections::BTreeMap;

use control::{Dedup, KERNEL_PAGE_PRICE_UNMEASURED, Levers};
use policy::{Config, Host};

use crate::bytes::ByteCount;
use crate::config::RunConfig;
use crate::error::Error;
use crate::fleet::orders::Grant;
use crate::plan::PlannedGuest;
use crate::request::guest_promises::Promises;
use crate::request::overhead::overhead_bytes;

/// Share of the budget that stays unpromised: the table's account and the kernel's may differ by up to 2 %;
/// an estimate, to be replaced by what the whole-system test finds.
const MARGIN_DIVISOR: u64 = 64;
/// Least headroom of a frame store, bytes: sixteen full messages of published pages.
const HEADROOM_BYTES_MIN: u64 = 4 << 20;

/// Refuses guests whose guaranteed memory would not fit the budget.
pub fn admit(config: &RunConfig, guests: &[PlannedGuest]) -> Result<(), Error> {
    let policy = policy_config(config);
    let guests = planned(&policy, guests);
    let mut host = Host { frames_headroom_bytes: least_headroom(config.levers), ..host(config.budget_bytes) };
    let Err(mut refusal) = policy::admit(&policy, &host, &[], &guests) else { return Ok(()) };
    if let policy::Refusal::OverBudget { needed_bytes, .. } = refusal {
        // A larger budget has a larger margin; the refusal is to name one that really does.
        let without_margin = needed_bytes - u128::from(host.host_overhead_bytes);
        host.host_overhead_bytes = without_margin.div_ceil(u128::from(MARGIN_DIVISOR - 1)) as u64;
        refusal = policy::admit(&policy, &host, &[], &guests).err().unwrap_or(refusal);
    }
    Err(Error::BudgetTooSmall { budget_bytes: config.budget_bytes, refusal: refusal.to_string() })
}

/// Whether what is promised to guests that run already fits another budget, beside the frames they share:
/// those cannot be evicted. If not, why, and what would do.
pub fn refit(config: &RunConfig, guests: &[PlannedGuest], frames_bytes: u64, budget_bytes: u64) -> Result<(), String> {
    let policy = policy_config(config);
    let reserved_bytes: u64 = planned(&policy, guests).iter().map(|guest| guest.minimum_bytes(&policy)).sum();
    let needed_bytes = reserved_bytes + frames_bytes + least_headroom(config.levers);
    if needed_bytes + budget_bytes / MARGIN_DIVISOR <= budget_bytes {
        return Ok(());
    }
    let would_do = with_margin(needed_bytes.into()).div_ceil(1 << 20);
    Err(format!(
        "a budget of {} is too small: {} are reserved for the {} guests that run, and {} of frames are shared; give at least {would_do} MiB, or \
         end guests first",
        ByteCount(budget_bytes),
        ByteCount::rounded(reserved_bytes),
        guests.len(),
        ByteCount::rounded(frames_bytes)
    ))
}

/// Whether guest `at`, of those that live, can be promised something else while they run, within this budget
/// and beside the frames they share: by the same rule as at the start. If not, why, and what would do.
pub fn repromise(
    config: &RunConfig,
    guests: &[PlannedGuest],
    at: usize,
    promises: Promises,
    frames_bytes: u64,
    budget_bytes: u64,
) -> Result<(), String> {
    let guest = &guests[at];
    promises.check(guest.memory_bytes).map_err(|allowed| format!("{} can have {allowed}", guest.name))?;
    let policy = policy_config(config);
    let mut others = planned(&policy, guests);
    let before = others.remove(at);
    let after = planned(&policy, &[PlannedGuest { promises, ..guest.clone() }]);
    let host = Host { frames_bytes, frames_headroom_bytes: least_headroom(config.levers), ..host(budget_bytes) };
    let refusal = match policy::admit(&policy, &host, &others, &after) {
        // What it had reserved already it may keep.
        _ if after[0].minimum_bytes(&policy) <= before.minimum_bytes(&policy) => return Ok(()),
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    let policy::Refusal::OverBudget { needed_bytes, largest_bytes, running, reserved_bytes, set_aside_bytes, .. } =
        refusal
    else {
        return Err(refusal.to_string());
    };
    let left_bytes = u128::from(budget_bytes).saturating_sub(reserved_bytes + set_aside_bytes) as u64;
    let would_do = with_margin(needed_bytes - u128::from(host.host_overhead_bytes)).div_ceil(1 << 20);
    Err(format!(
        "{} reserved for {} do not fit the budget of {}: {} are reserved for the {running} others, {} set aside for frames and upkeep; \
         reserve at most {} MiB, or raise the budget to at least {would_do} MiB",
        ByteCount::rounded(largest_bytes as u64),
        guest.name,
        ByteCount(budget_bytes),
        ByteCount::rounded(reserved_bytes as u64),
        ByteCount::rounded(set_aside_bytes as u64),
        left_bytes >> 20
    ))
}

/// The least budget that leaves so much beside its margin, bytes.
pub(crate) fn with_margin(bytes: u128) -> u128 {
    bytes.div_ceil(u128::from(MARGIN_DIVISOR) - 1) * u128::from(MARGIN_DIVISOR)
}

/// Kernels are published before guests load them, if they fit beside all that is promised; else each guest
/// loads a copy, and scanners find them.
pub fn settle_preloads(config: &RunConfig, guests: &mut [PlannedGuest]) {
    if refit(config, guests, preload_bytes(guests), config.budget_bytes).is_err() {
        guests.iter_mut().filter_map(|guest| guest.linux.as_mut()).for_each(|linux| linux.preload_bytes = 0);
    }
}

/// What is published of kernels: one in each domain.
fn preload_bytes(guests: &[PlannedGuest]) -> u64 {
    let shares = guests.iter().filter(|guest| guest.levers.dedup == Dedup::On);
    let kernels = shares.filter_map(|guest| Some((&guest.domain, guest.linux.as_ref()?.preload_bytes)));
    kernels.collect::<BTreeMap<_, _>>().values().sum()
}

/// What admitted guests start with.
pub fn initial(config: &RunConfig, guests: &[PlannedGuest]) -> Vec<Grant> {
    let host = Host {
        frames_bytes: preload_bytes(guests),
        frames_headroom_bytes: least_headroom(config.levers),
        ..host(config.budget_bytes)
    };
    let policy = policy_config(config);
    let decisions = policy::initial(&policy, &host, &planned(&policy, guests));
    decisions.iter().map(|decision| grant(decision, KERNEL_PAGE_PRICE_UNMEASURED)).collect()
}

/// What policy is told of the run.
pub(crate) fn policy_config(config: &RunConfig) -> Config {
    Config { idle_tax_percent: config.idle_tax_percent, ..levers_config(Config::default(), config.levers) }
}

/// The same with the levers of one guest.
pub(crate) fn levers_config(config: Config, levers: Levers) -> Config {
    let Levers { dedup, balloon, pager } = levers;
    Config { dedup: dedup != Dedup::Off, balloon, pager, ..config }
}

/// The host before any guest runs.
pub(crate) fn host(budget_bytes: u64) -> Host {
    Host { budget_bytes, host_overhead_bytes: budget_bytes / MARGIN_DIVISOR, ..Host::default() }
}

/// Least headroom of all frame stores together, bytes.
pub(crate) fn least_headroom(levers: Levers) -> u64 {
    if levers.dedup == Dedup::On { HEADROOM_BYTES_MIN } else { 0 }
}

/// A planned guest with these promises: what they come to in bytes, with what is by its size.
pub(crate) fn promised_to(config: &RunConfig, guest: &PlannedGuest, promises: &Promises) -> policy::GuestInput {
    let config = levers_config(policy_config(config), guest.levers);
    promised(&config, promises, guest.memory_bytes, overhead_bytes(guest.memory_bytes))
}

fn planned(config: &Config, guests: &[PlannedGuest]) -> Vec<policy::GuestInput> {
    let promised = |guest: &PlannedGuest| {
        let config = levers_config(*config, guest.levers);
        promised(&config, &guest.promises, guest.memory_bytes, overhead_bytes(guest.memory_bytes))
    };
    guests.iter().map(promised).collect()
}

/// A guest with the promises made to it. What was not chosen is by its size, and within what was.
pub(crate) fn promised(
    config: &Config,
    promises: &Promises,
    memory_bytes: u64,
    overhead_bytes: u64,
) -> policy::GuestInput {
    let guest = policy::GuestInput::new(config, memory_bytes, overhead_bytes);
    let limit_bytes = promises.limit_bytes.unwrap_or(guest.limit_bytes).min(guest.limit_bytes);
    // A guest's overhead is measured while it runs; a promise is kept as far as the guest can cost that much.
    let reservation_bytes = promises.reservation_bytes.unwrap_or(guest.reservation_bytes).min(limit_bytes);
    policy::GuestInput { shares: promises.shares, reservation_bytes, limit_bytes, ..guest }
}

/// A decision, as the guest's VMM is told of it, with what it is charged for pages in the kernel's swap.
pub(crate) fn grant(decision: &policy::Decision, kernel_page_price: u16) -> Grant {
    let &policy::Decision { allocation_bytes, balloon_bytes, .. } = decision;
    Grant { allocation_bytes, balloon_bytes, kernel_page_price }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const ALL: Levers = Levers { dedup: Dedup::On, balloon: true, pager: true };
    const NONE: Levers = Levers { dedup: Dedup::Off, balloon: false, pager: false };

    #[test]
    fn a_budget_below_what_is_promised_is_refused_with_one_that_would_do() {
        let config = RunConfig::idle(768 * MIB, ALL);
        for frames_bytes in [0, 100 * MIB] {
            let refusal = refit(&config, &PlannedGuest::eight(), frames_bytes, 64 * MIB).unwrap_err();
            let (_, named) = refusal.split_once("at least ").unwrap();
            let named: u64 = named.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(refit(&config, &PlannedGuest::eight(), frames_bytes, named * MIB), Ok(()), "{refusal}");
            assert!(refit(&config, &PlannedGuest::eight(), frames_bytes, (named - 1) * MIB).is_err(), "{refusal}");
        }
    }

    #[test]
    fn a_promise_to_a_running_guest_is_checked_as_at_the_start() {
        let (config, guests) = (RunConfig::idle(768 * MIB, ALL), PlannedGuest::eight());
        let reserved = |mib: u64| Promises { reservation_bytes: Some(mib * MIB), ..Promises::default() };
        let fits = |promises, budget: u64| repromise(&config, &guests, 3, promises, 40 * MIB, budget * MIB);
        assert_eq!(fits(reserved(200), 768), Ok(()));
        let refusal = fits(reserved(200), 500).unwrap_err();
        let number =
            |after: &str| -> u64 { refusal.split_once(after).unwrap().1.split(' ').next().unwrap().parse().unwrap() };
        let (reservation, budget) = (number("reserve at most "), number("raise the budget to at least "));
        assert_eq!(fits(reserved(reservation), 500), Ok(()), "{refusal}");
        assert!(fits(reserved(reservation + 1), 500).is_err(), "{refusal}");
        assert_eq!(fits(reserved(200), budget), Ok(()), "{refusal}");
        assert!(fits(reserved(200), budget - 1).is_err(), "{refusal}");
        assert!(fits(reserved(1000), 768).unwrap_err().contains("guest3 can have reservations from 21.2 MiB"));
        // Nothing is asked for: however short the host is, that is no reason to refuse.
        assert_eq!(fits(Promises { shares: 7, ..Promises::default() }, 64), Ok(()));
    }

    #[test]
    fn a_refusal_names_a_budget_that_is_then_accepted() {
        for levers in [ALL, NONE] {
            let refusal = admit(&RunConfig::idle(64 * MIB, levers), &PlannedGuest::eight()).unwrap_err().to_string();
            let (_, named) = refusal.split_once("at least ").unwrap();
            let named: u64 = named.split(' ').next().unwrap().parse().unwrap();
            assert!(admit(&RunConfig::idle(named * MIB, levers), &PlannedGuest::eight()).is_ok(), "{refusal}");
            assert!(admit(&RunConfig::idle((named - 1) * MIB, levers), &PlannedGuest::eight()).is_err(), "{refusal}");
        }
    }
}
