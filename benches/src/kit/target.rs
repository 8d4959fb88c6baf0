//! A target, as one line that a person and a program can read: `target NAME MEASURED BOUND met|missed`.

use serde::Serialize;

/// One target and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    name: String,
    measured: f64,
    bound: String,
    met: bool,
}

impl Target {
    /// A figure that should be at least `bound`.
    pub fn at_least(name: String, measured: f64, bound: f64) -> Target {
        Target { met: measured >= bound, name, measured, bound: format!(">={bound}") }
    }

    /// A figure that should be at most `bound`.
    pub fn at_most(name: String, measured: f64, bound: f64) -> Target {
        Target { met: measured <= bound, name, measured, bound: format!("<={bound}") }
    }

    /// Whether it was met.
    pub fn is_met(&self) -> bool {
        self.met
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Target { name, measured, bound, met } = self;
        write!(f, "target {name} {measured:.4} {bound} {}", if *met { "met" } else { "missed" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_one_line_of_five_words() {
        let line = Target::at_least("S1-x".into(), 9.99, 10.0).to_string();
        assert_eq!(line, "target S1-x 9.9900 >=10 missed");
        assert!(Target::at_most("y".into(), 0.005, 0.005).is_met());
        assert!(!Target::at_most("y".into(), f64::NAN, 0.005).is_met(), "what was not measured is not met");
    }
}
