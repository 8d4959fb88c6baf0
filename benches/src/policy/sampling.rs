//! P6: the estimate that policy goes by, against what the guests are known to use.

use std::path::Path;

use policy::active::{Estimator, Sample};

use crate::{
    kit::{error::Error, target::Target},
    policy::{
        run::{NO_SWAP, Run},
        setup::Setup,
    },
};

/// Measures it.
pub fn measure(setup: &Setup) -> Result<f64, Error> {
    const TRUTHS: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];
    let guests = vec![
        "workload=tide,active=10%",
        "workload=tide,active=30%",
        "workload=tide,active=50%",
        "workload=tide,active=70%",
        "workload=tide,active=90%",
    ];
    let arguments = vec!["--dedup", "off", "--sample-period", "3s"];
    let run = Run { memory_mib: 96, swap: Some(Path::new(NO_SWAP)), guests, arguments, ..setup.run(640) };
    let course = run.watch()?;
    let mut errors = Vec::new();
    for (guest, truth) in TRUTHS.iter().enumerate() {
        let (mut estimator, mut periods) = (Estimator::default(), f64::NAN);
        // Filling touches everything; what counts begins afterwards.
        for look in course.between(10.0, 59.0) {
            let figures = look.guests[guest];
            if figures.periods != periods && !periods.is_nan() {
                let touched = (figures.active_ratio * 100.0).round() as u32;
                estimator.end_period(Sample { sampled: 100, touched });
                errors.extend(estimator.ratio().map(|ratio| (ratio - truth).abs() * 100.0));
            }
            periods = figures.periods;
        }
    }
    errors.sort_by(f64::total_cmp);
    let p90 = errors.get(errors.len() * 9 / 10).copied().unwrap_or(f64::NAN);
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    println!("policy: P6 {} estimates, {mean:.1} points off on average", errors.len());
    Ok(p90)
}

/// What became of the targets.
pub fn judge(p90: Option<f64>) -> Vec<Target> {
    vec![Target::at_most("P6-sampling-error-points-p90".into(), p90.unwrap_or(f64::NAN), 10.0)]
}
