//! The sample of pages that tells how much of its memory a guest uses: which pages, for how long, and how
//! often they are looked at.
//!
//! Pages chosen at random are probed ([`Pages::probe`]) and looked at again later; what the guest has touched
//! by then, it uses.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

use control::status::SamplingStatus;
use wire::{Gfn, PAGE_BYTES, PageBytes};

use crate::{
    mapping::Mapping,
    pages::{Error, Pages, probe::Probe},
};

/// Pages a period: what sampling costs a guest is bounded by as many faults. The standard deviation of a
/// period's figure is at most 5 points.
const SAMPLE_PAGES: u32 = 100;
/// How often a period's sample is looked at: a page that was touched and evicted again between two looks is
/// missed.
const LOOKS: u32 = 8;
/// A period is up to this part of itself longer or shorter than asked for: were those of all guests to begin
/// together, they would all wait at once.
const STRETCH: f64 = 0.25;
/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// A page of the sample.
#[derive(Clone, Copy, Debug)]
struct Sampled {
    gfn: Gfn,
    probe: Probe,
    touched: bool,
}

/// The sample of the period under way, and what the last one came to.
#[derive(Debug)]
pub struct Sampler {
    sample: Vec<Sampled>,
    begun: Option<Instant>,
    /// Length of the period under way, as a part of what was asked for.
    stretch: f64,
    looked: Instant,
    random: u64,
    status: SamplingStatus,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler {
            sample: Vec::new(),
            begun: None,
            stretch: 1.0,
            looked: Instant::now(),
            // Not to be foreseen by a guest that wants to look busy, nor the same in all.
            random: RandomState::new().build_hasher().finish() | 1,
            status: SamplingStatus::default(),
        }
    }
}

impl Sampler {
    /// Does what is due: begins and ends periods of this length, and looks in between. Returns when something
    /// is due next.
    pub fn turn<M: Mapping>(&mut self, pages: &Pages<M>, period: Option<Duration>) -> Result<Duration, Error> {
        let Some(period) = period else {
            (self.sample, self.begun) = (Vec::new(), None);
            return Ok(Duration::MAX);
        };
        let now = Instant::now();
        let between = (period / LOOKS).max(LOOK_MIN);
        let ends = self.begun.map(|begun| begun + period.mul_f64(self.stretch));
        let is_over = ends.is_none_or(|ends| now >= ends);
        if now.duration_since(self.looked) < between && !is_over {
            return Ok(between - now.duration_since(self.looked));
        }
        self.look(pages, is_over)?;
        if is_over {
            self.end_period();
            self.begin_period(pages)?;
            self.begun = Some(now);
            self.stretch = self.next_stretch();
        }
        self.looked = now;
        Ok(between)
    }

    /// What was found so far.
    pub fn status(&self) -> SamplingStatus {
        self.status
    }

    /// Looks which pages have been touched. What the kernel brought back stays until that has been noted, so
    /// it is enough to do so once, at the end.
    fn look<M: Mapping>(&mut self, pages: &Pages<M>, is_over: bool) -> Result<(), Error> {
        for sampled in self.sample.iter_mut().filter(|sampled| !sampled.touched) {
            if is_over {
                pages.note_returned_in(sampled.gfn.run())?;
            }
            sampled.touched = pages.touched_since(sampled.gfn, sampled.probe)?;
        }
        let count = |wanted: fn(&Sampled) -> bool| self.sample.iter().filter(|sampled| wanted(sampled)).count() as u32;
        self.status.current.pages = self.sample.len() as u32;
        self.status.current.touched = count(|sampled| sampled.touched);
        self.status.current.touched_shared = count(|sampled| sampled.touched && sampled.probe == Probe::Mapped);
        Ok(())
    }

    fn end_period(&mut self) {
        if !self.sample.is_empty() {
            self.status.periods_total += 1;
            self.status.last = std::mem::take(&mut self.status.current);
        }
    }

    fn begin_period<M: Mapping>(&mut self, pages: &Pages<M>) -> Result<(), Error> {
        let mut buffer: PageBytes = [0; PAGE_BYTES];
        self.sample.clear();
        for _ in 0..SAMPLE_PAGES.min(pages.count()) {
            let gfn = Gfn(self.below(pages.count()));
            self.sample.push(Sampled { gfn, probe: pages.probe(gfn, &mut buffer)?, touched: false });
        }
        Ok(())
    }

    fn next_stretch(&mut self) -> f64 {
        const STEPS: u32 = 1024;
        1.0 - STRETCH + 2.0 * STRETCH * f64::from(self.below(STEPS)) / f64::from(STEPS)
    }

    /// A number below `end`: xorshift (Marsaglia 2003).
    fn below(&mut self, end: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(end)) >> 32) as u32
    }
}
