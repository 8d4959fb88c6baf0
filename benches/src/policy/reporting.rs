//! P9: what a guest that allocates and frees loses to having its free pages taken, where there is plenty:
//! never taken, when that pays, and always.

use crate::{
    kit::{error::Error, target::Target},
    policy::{plan::Plan, rules::Rule, run::Run},
};

/// Measures it.
pub fn measure(plan: &Plan) -> Result<f64, Error> {
    const TURNS: usize = 4;
    const MODES: [&str; 3] = ["off", "adaptive", "eager"];
    let mut best = [f64::NAN; MODES.len()];
    for _ in 0..TURNS {
        for (best, mode) in best.iter_mut().zip(MODES) {
            let run = Run {
                program: &plan.program,
                memory_mib: 256,
                budget_mib: 512,
                seconds: 30,
                guests: vec!["workload=churn"],
                arguments: vec!["--dedup", "off", "--swap", "off", "--free-page-reporting", mode],
                rule: Rule::Ballast,
            };
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
