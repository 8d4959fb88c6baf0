//! P4: what guests get done in the time that they have a CPU or wait for memory, beside neighbours that want
//! everything and alone.

use crate::{
    kit::{error::Error, target::Target},
    policy::{
        run::{Course, Run},
        setup::Setup,
    },
};

/// Measures it.
pub fn measure(setup: &Setup) -> Result<f64, Error> {
    let with = |others: [&'static str; 2]| -> Result<Course, Error> {
        let benchmark = "workload=zipf,reservation=160MiB";
        let guests = vec![benchmark, benchmark, others[0], others[1]];
        let run = Run { seconds: 40, guests, ..setup.run(640) };
        run.watch()
    };
    const TURNS: usize = 2;
    let pace = |course: &Course| (course.pace(0, 15.0, 39.0) + course.pace(1, 15.0, 39.0)) / 2.0;
    let [mut quiet, mut loud] = [f64::NAN; 2];
    for _ in 0..TURNS {
        // The same load on the CPUs, from guests that use little memory. The better turn of each: what other
        // programs take besides is never negative.
        quiet = quiet.max(pace(&with(["workload=tide,active=1%,limit=48MiB"; 2])?));
        loud = loud.max(pace(&with(["workload=hog", "workload=churn"])?));
    }
    println!(
        "policy: P4 {loud:.0} operations per second of CPU or waiting beside loud neighbours, {quiet:.0} beside quiet \
         ones"
    );
    Ok(1.0 - loud / quiet)
}

/// What became of the targets.
pub fn judge(lost: Option<f64>) -> Vec<Target> {
    vec![Target::at_most("P4-throughput-lost-to-neighbours".into(), lost.unwrap_or(f64::NAN), 0.04)]
}
