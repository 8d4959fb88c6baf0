//! P8: what everything that Ballast does in the background takes from a guest that has all it needs. The
//! guest (`clock`) does nothing but read its clock; what is between two readings that are too far apart was
//! taken from it.
//!
//! Its vCPU has a CPU of its own as far as we can see to that: all other threads of host and VMM are kept off
//! it. So what is measured is what background work does to a guest beside it (locks, flushed translations,
//! interrupts, faults), not that it needs a CPU, which shows in the figures of CPU time. Other programs are
//! not kept off, which is why runs with and without background work take turns, and the best of each counts;
//! on a busy machine nothing of this means anything.

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    kit::{error::Error, target::Target},
    policy::{
        run::{Course, Run, threads},
        setup::Setup,
    },
};

/// Turns, each without background work and with it.
const TURNS: usize = 4;
/// Looks before this time find the guest still filling its memory.
const FROM: f64 = 6.0;
const SECONDS: u32 = 20;

/// Everything off, and everything on, sampling at its default pace and as fast as under pressure.
const OFF: [&str; 8] = ["--dedup", "off", "--balloon", "off", "--pager", "off", "--sample-period", "0s"];
const ON: [&str; 4] = ["--sample-period", "6s", "--proactive-reclaim", "0%"];

/// What the guest lost with and without background work.
pub fn measure(setup: &Setup) -> Result<f64, Error> {
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        off.push(run(setup, &OFF)?);
        on.push(run(setup, &ON)?);
    }
    let lost = |course: &Course| course.rate(0, FROM, f64::from(SECONDS), |figures| figures.timed_seconds);
    let longest = |course: &Course| course.most(FROM, f64::from(SECONDS), |figures| figures.timed_seconds_max);
    // The best turn of each: what other programs take besides is never negative.
    let least = |courses: &[Course], of: &dyn Fn(&Course) -> f64| courses.iter().map(of).fold(f64::NAN, f64::min);
    println!(
        "policy: P8 lost {:.3} % of its time without background work, {:.3} % with it; the longest gap, other \
         programs included, {:.2} ms without, {:.2} ms with",
        100.0 * least(&off, &lost),
        100.0 * least(&on, &lost),
        1e3 * least(&off, &longest),
        1e3 * least(&on, &longest),
    );
    Ok(least(&on, &lost) - least(&off, &lost))
}

/// What became of the targets.
pub fn judge(more: Option<f64>) -> Vec<Target> {
    vec![Target::at_most("P8-share-of-time-lost-to-background-work".into(), more.unwrap_or(f64::NAN), 0.005)]
}

fn run(setup: &Setup, arguments: &[&'static str]) -> Result<Course, Error> {
    let (guests, arguments) = (vec!["workload=clock"], arguments.to_vec());
    let run = Run { seconds: SECONDS, swap: None, guests, arguments, ..setup.run(512) };
    run.watch_with(|processes| processes.iter().for_each(|&process| keep_apart(process)))
}

/// vCPUs on the first CPU, everything else on the others. A thread that is gone meanwhile needs no place.
fn keep_apart(process: u32) {
    for (thread, name) in threads(process) {
        let mut cpus = CpuSet::new();
        let others = 1..std::thread::available_parallelism().map_or(2, usize::from);
        let wanted = if name.starts_with("vcpu") { 0..1 } else { others };
        if wanted.into_iter().all(|cpu| cpus.set(cpu).is_ok()) {
            let _ = sched_setaffinity(Pid::from_raw(thread), &cpus);
        }
    }
}
