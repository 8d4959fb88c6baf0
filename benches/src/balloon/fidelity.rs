//! What being ballooned costs: a guest of 256 MiB with 128 MiB in the balloon against one born with 128 MiB
//! and no balloon at all. Both run `zipf` over as many pages, in turns, and what counts is operations per
//! second of their vCPU's CPU time.
//!
//! Where a guest's pages come to lie makes some per cent of difference between two guests that are alike. So
//! there are many short-lived pairs, and the figure is the median of what each pair lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use wire::machine::Workload;

use crate::{
    balloon::guest::{Guest, GuestSpec},
    kit::{clocks, error::Error, report::median},
};

const SMALL_MIB: u64 = 128;
/// What `zipf` works on: 60 % of the smaller guest.
const ACTIVE_PERMILLE: u16 = 600;
/// Pairs of guests.
const PAIRS: usize = 32;
/// Turns of each guest of a pair.
const TURNS: usize = 6;
const TURN: Duration = Duration::from_millis(200);
/// How often a guest's clock is set.
const TICK: Duration = Duration::from_millis(10);
/// Operations before it is measured: the set is complete, and warm.
const WARM_UP_OPERATIONS: u64 = 100_000;
const LIMIT: Duration = Duration::from_secs(60);

/// Medians over all pairs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Fidelity {
    /// Operations per CPU-second of the ballooned guest.
    pub ballooned: f64,
    /// Of the guest born small.
    pub born_small: f64,
    /// What the balloon cost, as a part.
    pub loss_ratio: f64,
    /// The same of a quarter of the pairs or less, and of three quarters.
    pub loss_ratio_quartiles: [f64; 2],
}

/// Measures it.
pub fn measure() -> Result<Fidelity, Error> {
    let ballooned = GuestSpec {
        memory_mib: 2 * SMALL_MIB,
        balloon_mib: Some(SMALL_MIB),
        workload: Workload::Zipf,
        active_permille: Some(ACTIVE_PERMILLE / 2),
        filled: false,
        pager: false,
        prefetch: false,
    };
    let born_small =
        GuestSpec { memory_mib: SMALL_MIB, balloon_mib: None, active_permille: Some(ACTIVE_PERMILLE), ..ballooned };
    let (mut rates, mut losses) = ([Vec::new(), Vec::new()], Vec::new());
    for pair in 0..PAIRS {
        let guests = [Guest::start(ballooned)?, Guest::start(born_small)?];
        // Each goes first half the time.
        let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
        for guest in order.map(|number| &guests[number]) {
            guest.resume();
            run_until(guest, || guest.machine().workload_status().operations_total > WARM_UP_OPERATIONS)?;
            guest.pause()?;
        }
        let in_balloon = guests[0].machine().balloon_status().actual_bytes;
        if in_balloon != SMALL_MIB << 20 {
            return Err(Error::Guest(format!("a balloon of {in_balloon} bytes instead of {SMALL_MIB} MiB")));
        }
        let mut turns = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for number in order {
                turns[number].push(one_turn(&guests[number])?);
            }
        }
        let [ballooned, born_small] = turns.map(median);
        losses.push(1.0 - ballooned / born_small);
        rates[0].push(ballooned);
        rates[1].push(born_small);
    }
    losses.sort_by(f64::total_cmp);
    let loss_ratio_quartiles = [losses[PAIRS / 4], losses[PAIRS * 3 / 4]];
    let [ballooned, born_small] = rates.map(median);
    Ok(Fidelity { ballooned, born_small, loss_ratio: median(losses), loss_ratio_quartiles })
}

fn one_turn(guest: &Guest) -> Result<f64, Error> {
    let operations = || guest.machine().workload_status().operations_total;
    // The other guest's vCPU, of the same name, stands still.
    let cpu = || clocks::threads().map(|threads| threads.get("vcpu0").copied().unwrap_or_default());
    let (operations_before, cpu_before) = (operations(), cpu()?);
    guest.resume();
    let end = Instant::now() + TURN;
    run_until(guest, || Instant::now() >= end)?;
    guest.pause()?;
    guest.check()?;
    Ok((operations() - operations_before) as f64 / (cpu()? - cpu_before).as_secs_f64())
}

fn run_until(guest: &Guest, done: impl Fn() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        guest.machine().tick();
        guest.check()?;
        if Instant::now() > deadline {
            return Err(Error::Guest(format!("a guest was not through in {} s", LIMIT.as_secs())));
        }
        thread::sleep(TICK);
    }
    Ok(())
}
