//! P3: nearly nothing is swapped once the start is over: neither kept on the disk, nor written to it to be
//! read back.

use crate::{
    kit::{error::Error, target::Target},
    policy::{
        run::{MIB, Run},
        setup::Setup,
    },
};

/// Measures it.
pub fn measure(setup: &Setup) -> Result<[f64; 2], Error> {
    let run = Run { guests: vec!["workload=mixed"; 5], arguments: Vec::new(), ..setup.run(800) };
    let course = run.watch()?;
    let written = |guest| course.rate(guest, 20.0, 59.0, |figures| figures.swapped_out_pages) * 39.0 * 4096.0 / MIB;
    let held = course.most(20.0, 59.0, |figures| figures.swapped_bytes) / MIB;
    Ok([held, (0..5).map(written).sum()])
}

/// What became of the targets.
pub fn judge(mib: Option<[f64; 2]>) -> Vec<Target> {
    let [held, written] = mib.unwrap_or([f64::NAN; 2]);
    vec![
        Target::at_most("P3-most-mib-in-swap-after-start-up".into(), held, 20.0),
        Target::at_most("P3-mib-written-to-swap-after-start-up".into(), written, 20.0),
    ]
}
