//! P9: what a guest that allocates and frees loses to having its free pages taken, where there is plenty:
//! never taken, when that pays, and always.

use std::path::Path;

use crate::{
    kit::{error::Error, target::Target},
    policy::{
        run::{NO_SWAP, Run},
        setup::Setup,
    },
};

/// Measures it.
pub fn measure(setup: &Setup) -> Result<f64, Error> {
    const TURNS: usize = 4;
    const MODES: [&str; 3] = ["off", "adaptive", "eager"];
    let mut best = [f64::NAN; MODES.len()];
    for _ in 0..TURNS {
        for (best, mode) in best.iter_mut().zip(MODES) {
            let arguments = vec!["--dedup", "off", "--free-page-reporting", mode];
            let guests = vec!["workload=churn"];
            let run = Run { seconds: 30, swap: Some(Path::new(NO_SWAP)), guests, arguments, ..setup.run(512) };
            // The best turn: what other programs take besides is never negative.
            *best = best.max(run.watch()?.pace(0, 5.0, 29.0));
        }
    }
    let lost = best.map(|pace| 1.0 - pace / best[0]);
    println!(
        "policy: P9 the loop does {:.0} operations per second of CPU or waiting while nothing is taken; {:.1} % less \
         where that adapts, {:.1} % where all is taken at once",
        best[0],
        100.0 * lost[1],
        100.0 * lost[2],
    );
    Ok(lost[1])
}

/// What became of the targets.
pub fn judge(lost: Option<f64>) -> Vec<Target> {
    vec![Target::at_most("P9-loop-lost-to-adaptive-reporting".into(), lost.unwrap_or(f64::NAN), 0.05)]
}
