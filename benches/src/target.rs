//! A target, as one line that a person and a program can read.

/// Prints `target NAME MEASURED BOUND met|missed` for a figure that should be at least `bound`.
pub fn at_least(name: &str, measured: f64, bound: f64) {
    let verdict = if measured >= bound { "met" } else { "missed" };
    println!("target {name} {measured:.2} >={bound} {verdict}");
}

/// The same for a figure that should be at most `bound`.
pub fn at_most(name: &str, measured: f64, bound: f64) {
    let verdict = if measured <= bound { "met" } else { "missed" };
    println!("target {name} {measured:.3} <={bound} {verdict}");
}
