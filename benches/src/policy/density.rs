//! P7: how many guests under a constant offered load fit into a budget: without overcommit, with KSM and zram
//! in a memory cgroup, and with Ballast, without a kernel tier and with one.
//!
//! ```text
//!   no overcommit, N = budget / RAM ──► p99, from which the bound for all
//!   each side, N = 1.5, 2, 3, 5, ... times as many until one does not hold, then halving what is between:
//!     all fill ──► (KSM merges) ──► settle ──► measure ──► holds, at the first or the second try?
//! ```
//!
//! Guests are `serve`: what is offered does not depend on what they get done, and latency counts from when a
//! request was due. A step *holds* if nearly all that was offered is done within the bound. Peak N is the
//! most that holds, to half of what fits without any overcommit; each side has at least that.

use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use guest_driver::workload::pattern::serve::INTERVAL_MS;
use pager::PAGE_BYTES;
use wire::machine::{CONTENTS_OWN, Workload};

use crate::{
    kit::{
        error::Error,
        scrape::{free_address, get, sum_of},
        settings::{Step, Undo},
        target::Target,
    },
    pager::paging::{
        crowd::{self, Crowd},
        spec::{Cpu, Kind, Span, Spec},
        waits::Waits,
    },
    policy::{
        rules::Rule,
        run::{Host, MIB, NO_SWAP, Run},
        setup::Setup,
    },
};

const MEMORY_MIB: u32 = 256;
/// KSM's guests are not held to the budget before all of them have been filled for so long. Pages that are
/// swapped before ksmd has seen them twice would not be merged; hosts whose guests come one by one do not
/// have that trouble.
const MERGE: Duration = Duration::from_secs(25);
/// Between that and the measurement: what is used once in 40 s has been wanted back then. Ballast's guests,
/// which are held from the beginning, have as much time from the last one's first request on.
const SETTLE: Duration = Duration::from_secs(45);
const MEASURED: Duration = Duration::from_secs(10);
/// Filling and starting may take so long.
const FILL_LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(500);
/// A guest's clock is set, and its counters are looked at, so often.
const LOOK_US: u64 = 20_000;
/// What is done of what is offered, at least. A guest's timetable is right within about 1 %: so well does it
/// know the time when it makes it.
const DONE_MIN: f64 = 0.98;
/// Times the p99 without overcommit that is still as good.
const P99_TIMES: f64 = 10.0;
/// A fifth of the time between two requests: less than that is nothing to wait for.
const P99_FLOOR_MS: f64 = INTERVAL_MS as f64 / 5.0;
/// Without overcommit it must be less than this, or there is nothing to compare.
const P99_ALONE_MAX_MS: f64 = P99_FLOOR_MS;
/// Guests a step, over those that fit without overcommit.
const STEP_RATIO: f64 = 0.5;
const TARGET_RATIO: f64 = 1.1;

/// What all guests are offered while measuring, requests.
fn offered(guests: u32) -> f64 {
    f64::from(guests) * MEASURED.as_millis() as f64 / INTERVAL_MS as f64
}

fn holds(guests: u32, waits: &Waits, bound_ms: f64) -> bool {
    waits.count() >= DONE_MIN * offered(guests) && waits.p99_ms() <= bound_ms
}

/// How many more guests fit than with KSM and zram.
pub fn measure(setup: &Setup) -> Result<f64, Error> {
    let (program, budget_mib) = (&setup.program, setup.density_budget_mib);
    let fitting = budget_mib / MEMORY_MIB;
    let alone = crowd::ample(&specs(fitting, SETTLE))?;
    let p99_ms = alone.waits.p99_ms();
    if !holds(fitting, &alone.waits, P99_ALONE_MAX_MS) {
        let done = alone.waits.count();
        let reason =
            format!("without overcommit {done:.0} requests of {:.0} are done, p99 {p99_ms:.1} ms", offered(fitting));
        return Err(Error::Guest(format!("{reason}: the machine is too busy")));
    }
    let bound_ms = (P99_TIMES * p99_ms).max(P99_FLOOR_MS);
    say("no overcommit", fitting, bound_ms, &alone);
    println!("policy: P7 p99 may be {bound_ms:.1} ms");
    let budget_bytes = u64::from(budget_mib) << 20;
    let kernel = peak("KSM + zram", fitting, bound_ms, |guests| {
        crowd::in_budget(&specs(guests, MERGE + SETTLE), budget_bytes, MERGE)
    })?;
    let ours = |side, tier| peak(side, fitting, bound_ms, |guests| ballast(program, guests, budget_mib, tier));
    let pool = ours("Ballast", "off")?;
    let tier = ours("Ballast with the kernel tier", "auto")?;
    println!(
        "policy: P7 peak guests: {fitting} without overcommit, {kernel} with KSM and zram, {pool} with Ballast, \
         {tier} with its kernel tier"
    );
    Ok(f64::from(tier) / f64::from(kernel))
}

/// What became of the targets.
pub fn judge(ratio: Option<f64>) -> Vec<Target> {
    vec![Target::at_least("P7-peak-guests-over-ksm-zram".into(), ratio.unwrap_or(f64::NAN), TARGET_RATIO)]
}

/// The most guests that hold, if with each number all smaller ones do. An error if the side cannot be
/// measured at all; guests that are killed or do not start are a step that does not hold.
fn peak(side: &str, fitting: u32, bound_ms: f64, run: impl Fn(u32) -> Result<Crowd, Error>) -> Result<u32, Error> {
    let does_hold = |guests: u32| match run(guests) {
        Ok(crowd) => {
            say(side, guests, bound_ms, &crowd);
            Ok(holds(guests, &crowd.waits, bound_ms))
        }
        Err(error @ (Error::Guest(_) | Error::GuestEnded(_))) => {
            println!("policy: P7 {side}: {guests} guests do not run: {error}");
            Ok(false)
        }
        Err(error) => Err(error),
    };
    let guests = |step: u32| (f64::from(fitting) * (1.0 + STEP_RATIO * f64::from(step))) as u32;
    // Steps: what holds, and what does not, if that is known yet.
    let (mut holding, mut failing) = (0, None);
    loop {
        let next = failing.map_or((2 * holding).max(1), |failing| u32::midpoint(holding, failing));
        if next == holding {
            return Ok(guests(holding));
        }
        if does_hold(guests(next))? || does_hold(guests(next))? {
            holding = next;
        } else {
            failing = Some(next);
        }
    }
}

fn say(side: &str, guests: u32, bound_ms: f64, crowd: &Crowd) {
    println!(
        "policy: P7 {side}: {guests} guests, {:.0} requests offered, {:.0} done in {} s, p99 {:.3} ms{}: {}",
        offered(guests),
        crowd.waits.count(),
        MEASURED.as_secs(),
        crowd.waits.p99_ms(),
        crowd.used_bytes.map_or(String::new(), |bytes| format!(", at most {:.0} MiB used", bytes / MIB)),
        if holds(guests, &crowd.waits, bound_ms) { "holds" } else { "does not hold" },
    );
}

/// Guests on plain memory, measured so long after they have filled it.
fn specs(guests: u32, settle: Duration) -> Vec<Spec> {
    let span = |time: Duration| Span { operations: u64::from(u32::MAX), limit_ms: time.as_millis() as u64 };
    let spec = |number| Spec {
        kind: Kind::Plain,
        cpu: Cpu::Kvm,
        number,
        mergeable: false,
        look_us: LOOK_US,
        workload: Workload::Serve as u32,
        contents: CONTENTS_OWN,
        working_set_pages: MEMORY_MIB * (MIB as u32 / PAGE_BYTES as u32) / 2,
        allocation_bytes: 0,
        evict_to_bytes: None,
        kernel_tier: None,
        swap: None,
        cgroup: None,
        resident_pages: 0,
        warm_up: span(settle),
        measured: span(MEASURED),
    };
    (0..guests).map(spec).collect()
}

/// Guests of `ballast run`, which is ended once they are measured; until then it must not have exceeded its
/// budget, nor a guest found a page wrong.
fn ballast(program: &Path, guests: u32, budget_mib: u32, tier: &str) -> Result<Crowd, Error> {
    let seconds = 2 * (FILL_LIMIT + MERGE + SETTLE + MEASURED).as_secs() as u32;
    let guests = vec!["workload=serve"; guests as usize];
    let address = free_address()?;
    let run = Run {
        program,
        memory_mib: MEMORY_MIB,
        budget_mib,
        seconds,
        guests,
        swap: Some(Path::new(NO_SWAP)),
        arguments: vec!["--kernel-tier", tier],
        rule: Rule::Ballast,
    };
    let mut host = run.start(address)?;
    let undo = Undo::register(vec![Step::Terminate(host.pid())]);
    let crowd = watch(&mut host, address, run.guests.len());
    drop(undo);
    // After a signal guests have 5 s to verify all they hold, and are killed if that is not enough, as it is
    // not for forty that have most of it compressed. All that they read while they served was verified, and
    // none had ended.
    let ended = host.ended();
    if crowd.is_err() {
        ended?;
    }
    crowd
}

fn watch(host: &mut Host, address: SocketAddr, guests: usize) -> Result<Crowd, Error> {
    let begun = Instant::now();
    while serving(&get(address).unwrap_or_default()) < guests {
        if !host.is_running()? {
            host.ended()?;
            return Err(Error::Guest("ballast ended early".to_owned()));
        }
        if begun.elapsed() > FILL_LIMIT {
            return Err(Error::Guest(format!("they have not filled their memory in {} s", FILL_LIMIT.as_secs())));
        }
        thread::sleep(LOOK);
    }
    let metrics = || get(address).map_err(Error::system("reading ballast's metrics"));
    thread::sleep(SETTLE);
    let before = Waits::of_metrics(&metrics()?);
    thread::sleep(MEASURED);
    let after = metrics()?;
    let sum = |family: &str| sum_of(&after, family, "");
    let (peak_bytes, budget_bytes) = (sum("ballast_host_used_peak_bytes"), sum("ballast_host_budget_bytes"));
    if peak_bytes > budget_bytes {
        return Err(Error::Guest(format!("{:.1} MiB used of {:.1}", peak_bytes / MIB, budget_bytes / MIB)));
    }
    if sum("ballast_guest_pages_corrupt_total") > 0.0 {
        return Err(Error::Guest("a guest found a page wrong".to_owned()));
    }
    let running = sum_of(&after, "ballast_host_guests", "state=\"running\"");
    if running < guests as f64 {
        return Err(Error::Guest(format!("{running} of {guests} guests are left")));
    }
    Ok(Crowd { waits: Waits::of_metrics(&after).since(&before), used_bytes: Some(peak_bytes) })
}

/// Guests that have served a request.
fn serving(metrics: &str) -> usize {
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("ballast_guest_timed_seconds_count{"));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).filter(|&count| count > 0.0).count()
}

#[cfg(test)]
mod tests {
    use control::status::{LATENCY_BUCKETS, latency_bucket};

    use super::*;

    /// Of two guests for all the time, 20 requests a second: `lost` of them not done, the others after so
    /// long.
    fn crowd(lost: u64, ms: u64) -> Crowd {
        let mut waits = Waits::default();
        waits.add(&buckets(400 - lost, ms));
        Crowd { waits, used_bytes: None }
    }

    #[test]
    fn a_step_holds_if_what_is_offered_is_done_in_time() {
        assert_eq!(offered(2), 400.0);
        assert!(holds(2, &crowd(8, 16).waits, 20.0));
        assert!(!holds(2, &crowd(9, 16).waits, 20.0), "too little is done");
        assert!(!holds(2, &crowd(0, 60).waits, 20.0), "too late");
        assert!(!holds(2, &Waits::default(), 20.0), "nothing is done");
    }

    #[test]
    fn the_peak_is_the_most_that_holds_at_the_first_or_the_second_try() {
        let tries = std::cell::RefCell::new(Vec::new());
        let run = |guests: u32| {
            tries.borrow_mut().push(guests);
            // Four guests fail at first, nine always.
            let fails = guests >= 9 || (guests == 4 && tries.borrow().len() == 2);
            let mut waits = Waits::default();
            (0..guests.div_ceil(2)).for_each(|_| waits.add(&buckets(400, 1)));
            if fails { Err(Error::Guest("killed".into())) } else { Ok(Crowd { waits, used_bytes: None }) }
        };
        assert_eq!(peak("test", 2, 20.0, run).unwrap(), 8);
        assert_eq!(*tries.borrow(), [3, 4, 4, 6, 10, 10, 8, 9, 9]);
        assert!(peak("test", 2, 20.0, |_| Err(Error::NoKsm)).is_err(), "a side that is not there has no peak");
    }

    fn buckets(count: u64, ms: u64) -> Vec<u64> {
        let mut buckets = vec![0; LATENCY_BUCKETS];
        buckets[latency_bucket(ms * 1_000_000)] = count;
        buckets
    }
}
