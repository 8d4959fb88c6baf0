//! `simulate`: what policy does in simulated hosts, drawn, and how many of them it can simulate. No guest
//! runs, nothing is measured but time.

mod demand;
mod plot;
#[cfg(test)]
mod promises;
mod world;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use policy::{Config, GuestInput, Host};

use self::{
    demand::Demand,
    plot::Plot,
    world::{SimulatedGuest, World},
};
use crate::{kit::error::Error, policy::rules::Rule};

const MIB: u64 = 1 << 20;
const TICK: f64 = 0.1;
/// The large host.
const GUESTS: u32 = 10_000;
const LARGE_SECONDS: u32 = 60;
/// The fleet: hosts, guests on each, and how long each trace is.
const HOSTS: u64 = 1_000;
const GUESTS_A_HOST: u32 = 16;
const TRACE_SECONDS: u32 = 300;

/// Policy over simulated guests: plots, and how many guests a host and a fleet may have. Nothing real runs.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- simulate --plots docs/plots")]
pub struct Arguments {
    /// Where to draw the plots [default: figures only]
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// Simulates; says what came of it.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    large_host();
    fleet();
    let plots =
        [("idle-tax", idle_tax()), ("shares", shares()), ("demand-moves", demand_moves()), ("density", density())];
    let Some(folder) = &arguments.plots else { return Ok(()) };
    plots.iter().try_for_each(|(name, plot)| write(folder, name, plot))
}

fn write(folder: &Path, name: &str, plot: &Plot) -> Result<(), Error> {
    let path = folder.join(format!("{name}.svg"));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, plot.svg()));
    written.map_err(|source| Error::File { path, source })
}

fn guest(mib: u64, shares: u32, demand: Demand) -> SimulatedGuest {
    SimulatedGuest::new(GuestInput { shares, ..GuestInput::new(&Config::default(), mib * MIB, 0) }, demand)
}

fn world(budget_mib: u64, idle_tax_percent: u8, rule: Rule, guests: Vec<SimulatedGuest>) -> World {
    let host = Host { budget_bytes: budget_mib * MIB, ..Host::default() };
    World::new(Config { idle_tax_percent, ..Config::default() }, host, rule, guests, 42)
}

/// A guest's allocation over time, MiB.
fn allocation(mut world: World, guest: usize, seconds: f64) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    while world.second() < seconds {
        let decisions = world.tick(TICK);
        points.push((world.second(), decisions[guest].allocation_bytes as f64 / MIB as f64));
    }
    // Every fifth: a plot has fewer pixels.
    points.into_iter().step_by(5).collect()
}

/// Figure 7 of Waldspurger 2002: two guests, one idle, one busy; the tax is raised.
fn idle_tax() -> Plot {
    let guests = || {
        vec![
            guest(256, 1000, Demand::Step { before: 1.0, after: 0.02, second: 10.0 }),
            guest(256, 1000, Demand::Constant(0.95)),
        ]
    };
    let line = |tax, who, name: &str| {
        (format!("{name}, tax {tax} %"), allocation(world(360, tax, Rule::Ballast, guests()), who, 180.0))
    };
    Plot {
        title: "Idle memory tax: two guests of 256 MiB in 360 MiB, one idle from 10 s on".into(),
        x: "s".into(),
        y: "allocation, MiB".into(),
        lines: vec![line(0, 0, "idle"), line(0, 1, "busy"), line(75, 0, "idle"), line(75, 1, "busy")],
    }
}

fn shares() -> Plot {
    let guests = || (1..=3).map(|share| guest(256, share * 1000, Demand::Constant(0.95))).collect();
    let line = |who: usize| {
        (format!("{} shares", (who + 1) * 1000), allocation(world(360, 75, Rule::Ballast, guests()), who, 120.0))
    };
    Plot {
        title: "Shares 1:2:3: three busy guests of 256 MiB in 360 MiB".into(),
        x: "s".into(),
        y: "allocation, MiB".into(),
        lines: (0..3).map(line).collect(),
    }
}

fn demand_moves() -> Plot {
    let step = |before, after| Demand::Step { before, after, second: 60.0 };
    let line = |rule: Rule| {
        let guests = vec![guest(1024, 1000, step(0.1, 0.9)), guest(1024, 1000, step(0.9, 0.1))];
        let mut stall = world(1440, 75, rule, guests.clone());
        while stall.second() < 300.0 {
            stall.tick(TICK);
        }
        println!(
            "demand moves, {}: the growing guest stalled {:.1} s of 300",
            rule.name(),
            stall.guests[0].stall_seconds
        );
        (rule.name().to_owned(), allocation(world(1440, 75, rule, guests), 0, 300.0))
    };
    Plot {
        title: "Demand moves at 60 s: allocation of the guest that grows from 10 to 90 % of 1 GiB".into(),
        x: "s".into(),
        y: "allocation, MiB".into(),
        lines: Rule::ALL.map(line).to_vec(),
    }
}

/// Work done by ever more guests in the same memory.
fn density() -> Plot {
    let work = |rule: Rule, count: u32| {
        let wave = |number: u32| Demand::Wave {
            mean: 0.3,
            swing: 0.25,
            period_seconds: 240.0,
            phase: f64::from(number) / f64::from(count),
        };
        let guests = (0..count).map(|number| guest(256, 1000, wave(number))).collect();
        let mut world = world(4096, 75, rule, guests);
        while world.second() < 240.0 {
            world.tick(TICK);
        }
        world.work_seconds() / world.second()
    };
    let line = |rule: Rule| {
        let points = (8..=64).step_by(4).map(|count| (f64::from(count), work(rule, count))).collect();
        (rule.name().to_owned(), points)
    };
    Plot {
        title: "Density: guests of 256 MiB with waves of demand in 4 GiB".into(),
        x: "guests".into(),
        y: "work, guests that miss nothing".into(),
        lines: Rule::ALL.map(line).to_vec(),
    }
}

/// Ten thousand guests on one host.
fn large_host() {
    let wave = |number: u32| Demand::Wave {
        mean: 0.4,
        swing: 0.3,
        period_seconds: 60.0,
        phase: f64::from(number) / f64::from(GUESTS),
    };
    let guests = (0..GUESTS).map(|number| guest(256, 1000, wave(number))).collect();
    let (begun, mut world) = (Instant::now(), world(u64::from(GUESTS) * 128, 75, Rule::Ballast, guests));
    (0..LARGE_SECONDS).for_each(|_| _ = world.tick(1.0));
    println!("{GUESTS} guests for {LARGE_SECONDS} s of their time in {:.1} s", begun.elapsed().as_secs_f64());
}

/// A thousand hosts, each with a trace of its own, on all CPUs.
fn fleet() {
    let host = |number: u64| {
        let shares =
            |guest: u32| (0..30).map(|at| f64::from((number as u32 * 31 + guest * 17 + at * 7) % 90) / 100.0).collect();
        let trace = |at| Demand::Recorded { shares: shares(at), every_seconds: 10.0 };
        let guests = (0..GUESTS_A_HOST).map(|at| guest(256, 1000, trace(at))).collect();
        let mut world = world(u64::from(GUESTS_A_HOST) * 160, 75, Rule::Ballast, guests);
        (0..TRACE_SECONDS).for_each(|_| _ = world.tick(1.0));
        world.work_seconds() / (f64::from(GUESTS_A_HOST) * world.second())
    };
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
    let work: f64 = std::thread::scope(|scope| {
        let part = |thread| scope.spawn(move || (thread..HOSTS).step_by(threads as usize).map(host).sum::<f64>());
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts.into_iter().map(|part| part.join().unwrap_or(f64::NAN)).sum()
    });
    println!(
        "{HOSTS} hosts of {GUESTS_A_HOST} guests for {TRACE_SECONDS} s of their time in {:.1} s; guests worked {:.0} % of the time",
        begun.elapsed().as_secs_f64(),
        100.0 * work / HOSTS as f64
    );
}
