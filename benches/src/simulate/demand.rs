//! What a guest wants over time, as a share of its memory.

/// A trace: made up, or recorded.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// The same all the time.
    Constant(f64),
    /// One share until a second, another from then on.
    Step {
        /// Before.
        before: f64,
        /// From then on.
        after: f64,
        /// When.
        second: f64,
    },
    /// Up and down around a mean, as day and night do.
    Wave {
        /// In the middle.
        mean: f64,
        /// How far up and down.
        swing: f64,
        /// From one height to the next, s.
        period_seconds: f64,
        /// Where in the period it begins, 0 to 1.
        phase: f64,
    },
    /// Recorded shares, so many seconds apart; the last one holds on.
    Recorded {
        /// Shares in order.
        shares: Vec<f64>,
        /// Time between two.
        every_seconds: f64,
    },
}

impl Demand {
    /// The share at this time, 0 to 1 whatever the trace says.
    pub fn ratio(&self, second: f64) -> f64 {
        let ratio = match self {
            Demand::Constant(ratio) => *ratio,
            Demand::Step { before, after, second: turn } => {
                if second < *turn {
                    *before
                } else {
                    *after
                }
            }
            Demand::Wave { mean, swing, period_seconds, phase } => {
                mean + swing * (std::f64::consts::TAU * (second / period_seconds + phase)).sin()
            }
            Demand::Recorded { shares, every_seconds } => {
                let at = (second / every_seconds).max(0.0) as usize;
                shares.get(at).or(shares.last()).copied().unwrap_or(0.0)
            }
        };
        if ratio.is_finite() { ratio.clamp(0.0, 1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_shares_of_memory_whatever_they_say() {
        let step = Demand::Step { before: 0.1, after: 0.9, second: 10.0 };
        assert_eq!([step.ratio(9.9), step.ratio(10.0)], [0.1, 0.9]);
        let recorded = Demand::Recorded { shares: vec![0.2, 7.0, f64::NAN], every_seconds: 5.0 };
        assert_eq!([0.0, 5.0, 12.0, 1e9].map(|second| recorded.ratio(second)), [0.2, 1.0, 0.0, 0.0]);
        assert_eq!(Demand::Recorded { shares: vec![], every_seconds: 0.0 }.ratio(3.0), 0.0);
        let wave = Demand::Wave { mean: 0.5, swing: 0.4, period_seconds: 100.0, phase: 0.0 };
        assert!((wave.ratio(25.0) - 0.9).abs() < 1e-9 && (wave.ratio(75.0) - 0.1).abs() < 1e-9);
    }
}
