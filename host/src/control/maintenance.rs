//! Upkeep that costs a guest's neighbours CPU when the host is short of memory, which is when they have least
//! of it to spare: one guest after another, and not all over again for each time that a host whose memory is
//! all in use passes the mark.

use std::time::{Duration, Instant};

/// Turns per second and CPU: one costs some 50 to 100 ms of CPU in all.
const TURNS_PER_SECOND: f64 = 1.0;
/// A host that was not short for so long has a new shortage.
const PLENTY: Duration = Duration::from_secs(20);

/// Guests whose turn it is: as many at once as there are CPUs, then [`TURNS_PER_SECOND`].
#[derive(Debug)]
pub struct Turns {
    cpus: f64,
    left: f64,
    at: Option<Instant>,
}

impl Turns {
    /// On a machine with so many CPUs.
    pub fn new(cpus: usize) -> Turns {
        let cpus = cpus as f64;
        Turns { cpus, left: cpus, at: None }
    }

    /// Takes as many turns as there are by now, of those that are wanted.
    pub fn take(&mut self, now: Instant, wanted: usize) -> usize {
        let elapsed = self.at.replace(now).map_or(0.0, |at| (now - at).as_secs_f64());
        self.left = (self.left + elapsed * self.cpus * TURNS_PER_SECOND).min(self.cpus);
        let taken = wanted.min(self.left as usize);
        self.left -= taken as f64;
        taken
    }
}

/// When the host was short last.
#[derive(Debug, Default)]
pub struct Shortage {
    last: Option<Instant>,
}

impl Shortage {
    /// Whether a shortage has begun that is not the last one still.
    pub fn begins(&mut self, is_short: bool, now: Instant) -> bool {
        let last = if is_short { self.last.replace(now) } else { self.last };
        is_short && last.is_none_or(|last| now - last >= PLENTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_with_time_and_are_not_saved_up() {
        let (mut turns, start) = (Turns::new(4), Instant::now());
        let mut take = |ms, wanted| turns.take(start + Duration::from_millis(ms), wanted);
        assert_eq!([take(0, 9), take(100, 9), take(250, 9), take(1250, 1), take(1260, 9)], [4, 0, 1, 1, 3]);
        assert_eq!([take(60_000, 9), take(60_100, 9)], [4, 0]);
    }

    #[test]
    fn a_shortage_is_the_same_until_there_was_plenty() {
        let (mut shortage, start) = (Shortage::default(), Instant::now());
        let is_short = |second: &u64| !matches!(second, 0..10 | 15..30 | 40..60);
        let begins = |second: &u64| shortage.begins(is_short(second), start + Duration::from_secs(*second));
        assert_eq!((0..80).filter(begins).collect::<Vec<_>>(), [10, 60]);
    }
}
