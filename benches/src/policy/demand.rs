//! P5: how soon memory follows demand, under our rule and those that others have published, on the same
//! guests with the same levers.

use crate::{
    kit::{error::Error, report::Report, target::Target},
    policy::{
        rules::Rule,
        run::{MIB, Run, TURN, allocation},
        setup::Setup,
    },
};

const END: f64 = 59.0;
/// What the growing guest needs: all but a tenth of what it uses.
const NEEDED_BYTES: f64 = 0.9 * 0.9 * 256.0 * MIB;

/// Seconds until the growing guest has what it needs, and how long it stalls until the end.
type Followed = [f64; 2];

/// Measures ours, then theirs; of which each is `None` that could not be measured.
pub fn measure(setup: &Setup, report: &Report) -> [Option<Followed>; 3] {
    Rule::ALL.map(|rule| report.measured(&format!("policy: P5 {}", rule.name()), follow(setup, rule)))
}

fn follow(setup: &Setup, rule: Rule) -> Result<Followed, Error> {
    let guests = vec!["workload=tide,active=10%-90%", "workload=tide,active=90%-10%"];
    let run = Run { guests, rule, ..setup.run(360) };
    let course = run.watch()?;
    let seconds = course.settles(0, TURN, END, NEEDED_BYTES, allocation);
    let stall = |guest, from, to| course.rate(guest, from, to, |figures| figures.stall_seconds) * (to - from);
    println!(
        "policy: P5 {}: the growing guest has what it needs {} after the turn, stalled {:.2} s and did {:.0} \
         operations \
         until the end; before the turn the other one stalled {:.2} s in 20",
        rule.name(),
        if seconds.is_nan() { "not at all".to_owned() } else { format!("{seconds:.1} s") },
        stall(0, TURN, END),
        course.rate(0, TURN, END, |figures| figures.operations) * (END - TURN),
        stall(1, TURN - 20.0, TURN - 0.5),
    );
    // One that never got it would have waited longer.
    Ok([if seconds.is_nan() { END - TURN } else { seconds }, stall(0, TURN, END)])
}

/// What became of the targets.
pub fn judge([ours, theirs @ ..]: [Option<Followed>; 3]) -> Vec<Target> {
    let figures = |followed: Option<Followed>| followed.unwrap_or([f64::NAN; 2]);
    let [our_seconds, our_stall] = figures(ours);
    let targets = Rule::ALL[1..].iter().zip(theirs).flat_map(|(rule, theirs)| {
        let rule = rule.name();
        let [seconds, stall] = figures(theirs);
        [
            Target::at_most(format!("P5-seconds-over-{rule}-rule"), our_seconds / seconds, 1.0),
            Target::at_most(format!("P5-stall-over-{rule}-rule"), our_stall / stall, 1.0),
        ]
    });
    targets.collect()
}
