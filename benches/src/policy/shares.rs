//! P1: allocations at the end within 5 % of 1:2:3.

use crate::{
    kit::{error::Error, target::Target},
    policy::{
        run::{MIB, Run, allocation},
        setup::Setup,
    },
};

/// Measures it.
pub fn measure(setup: &Setup) -> Result<f64, Error> {
    let guests = vec![
        "shares=1000,workload=tide,active=90%",
        "shares=2000,workload=tide,active=90%",
        "shares=3000,workload=tide,active=90%",
    ];
    let run = Run { guests, ..setup.run(360) };
    let course = run.watch()?;
    let mean: Vec<f64> = (0..3).map(|guest| course.mean(guest, 45.0, 59.0, allocation)).collect();
    let sum: f64 = mean.iter().sum();
    println!("policy: P1 allocations {:.1}, {:.1}, {:.1} MiB", mean[0] / MIB, mean[1] / MIB, mean[2] / MIB);
    let off = |(guest, mean): (usize, &f64)| (mean / (sum * (guest + 1) as f64 / 6.0) - 1.0).abs();
    let worst = mean.iter().enumerate().map(off).fold(0.0, f64::max);
    Ok(if sum > 0.0 { worst } else { f64::NAN })
}

/// What became of the targets.
pub fn judge(off: Option<f64>) -> Vec<Target> {
    vec![Target::at_most("P1-allocations-off-their-shares".into(), off.unwrap_or(f64::NAN), 0.05)]
}
