//! P2: with the tax, the busy guest does 30 % more; and when the idle one wakes, it is served.

use crate::{
    kit::{error::Error, target::Target},
    policy::{
        run::{Course, MIB, Run, TURN, allocation},
        setup::Setup,
    },
};

/// Measures it.
pub fn measure(setup: &Setup) -> Result<f64, Error> {
    let with = |tax: &'static str| -> Result<Course, Error> {
        let guests = vec!["workload=tide,active=0%-90%", "workload=zipf,active=94%"];
        let mut run = Run { guests, ..setup.run(360) };
        run.arguments.extend(["--idle-tax", tax]);
        run.watch()
    };
    let (untaxed, taxed) = (with("0%")?, with("75%")?);
    let pace = |course: &Course| course.pace(1, TURN - 8.0, TURN - 0.5);
    let busy = |course: &Course| course.mean(1, TURN - 5.0, TURN - 0.5, allocation);
    let equilibrium = taxed.settles(1, 0.0, TURN - 0.5, busy(&taxed) * 0.95, allocation);
    println!(
        "policy: P2 busy guest: {:.0} operations per second of CPU or waiting in {:.0} MiB untaxed, {:.0} in {:.0} \
         MiB taxed; equilibrium {equilibrium:.1} s after \
         the start",
        pace(&untaxed),
        busy(&untaxed) / MIB,
        pace(&taxed),
        busy(&taxed) / MIB,
    );
    for (course, tax) in [(&untaxed, 0), (&taxed, 75)] {
        let pace = |from, to| course.pace(0, from, to);
        let end = course.mean(0, 55.0, 59.0, allocation);
        println!(
            "policy: P2 tax {tax} %: the guest that wakes does {:.0} operations per second of CPU or waiting in its \
             first 2 s, {:.0} in the last 10; it has what it is \
             going to have, {:.0} MiB, after {:.1} s",
            pace(TURN, TURN + 2.5),
            pace(49.0, 59.0),
            end / MIB,
            course.settles(0, TURN, 59.0, 0.95 * end, allocation),
        );
    }
    Ok(pace(&taxed) / pace(&untaxed))
}

/// What became of the targets.
pub fn judge(ratio: Option<f64>) -> Vec<Target> {
    vec![Target::at_least("P2-busy-throughput-taxed-over-untaxed".into(), ratio.unwrap_or(f64::NAN), 1.3)]
}
