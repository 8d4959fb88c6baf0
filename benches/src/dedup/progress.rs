//! How savings grew with the time and CPU that were spent.

use std::time::Duration;

use serde::Serialize;

/// What something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// CPU time of all who took part.
    pub cpu_seconds: f64,
    /// Time on the wall.
    pub wall_seconds: f64,
}

/// Samples of a side at work: pages saved, and what it had cost by then. Only gains are kept.
#[derive(Clone, Debug, Default)]
pub struct Progress(Vec<(u64, Cost)>);

impl Progress {
    /// A sample; says whether it is a gain.
    pub fn note(&mut self, saved: u64, cpu: Duration, wall: Duration) -> bool {
        let gain = saved > self.saved();
        if gain {
            self.0.push((saved, Cost { cpu_seconds: cpu.as_secs_f64(), wall_seconds: wall.as_secs_f64() }));
        }
        gain
    }

    /// Most pages saved.
    pub fn saved(&self) -> u64 {
        self.0.last().map_or(0, |(saved, _)| *saved)
    }

    /// What it took to save so many pages, between two samples in proportion; nothing, if it never came so
    /// far.
    pub fn cost_of(&self, pages: f64) -> Option<Cost> {
        let at = self.0.iter().position(|&(saved, _)| saved as f64 >= pages)?;
        let (saved, cost) = self.0[at];
        let (before, spent) = at.checked_sub(1).map_or((0, Cost::default()), |before| self.0[before]);
        let part = ((pages - before as f64) / (saved - before) as f64).clamp(0.0, 1.0);
        let between = |from: f64, to: f64| from + (to - from) * part;
        Some(Cost {
            cpu_seconds: between(spent.cpu_seconds, cost.cpu_seconds),
            wall_seconds: between(spent.wall_seconds, cost.wall_seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_lie_between_samples_in_proportion() {
        let mut progress = Progress::default();
        assert!(progress.note(100, Duration::from_secs(1), Duration::from_secs(2)));
        assert!(!progress.note(90, Duration::from_secs(2), Duration::from_secs(3)), "a loss is no gain");
        assert!(progress.note(200, Duration::from_secs(3), Duration::from_secs(4)));
        assert_eq!(progress.cost_of(150.0), Some(Cost { cpu_seconds: 2.0, wall_seconds: 3.0 }));
        assert_eq!(progress.cost_of(50.0), Some(Cost { cpu_seconds: 0.5, wall_seconds: 1.0 }));
        assert_eq!(progress.cost_of(201.0), None);
    }
}
