//! Which pages the guest uses, found out without its help: pages chosen at random are made absent, and looked at again later.
//!
//! ```text
//!   Private, compresses        --> Compressed (or Zero)        an access brings it back: touched if it is Private then
//!   Private, does not          --> protected, *probed*         a write takes the mark away; reads go unnoticed
//!   Shared                     --> the same, mapped no more    an access maps it again
//!   Zero, open / Shared, open  --> closed first
//!   evicted, zero, ballooned       as it is                    touched if it is backed then
//! ```
//!
//! There are no accessed bits to read from user space, so reclaim is the probe here, too (see [`crate::evict`]): the sample costs the guest at most one
//! fault a page and nothing in memory; what it does not touch was rightly taken. Waldspurger's sampling (OSDI 2002, section 5.3)
//! invalidates mappings and keeps the pages; there is no such thing for a private mapping of a file: `UFFDIO_MOVE` wants anonymous areas,
//! `mprotect` splits them, and the kernel's idle-page tracking is not built everywhere.
//!
//! Pages of the swap file are never written for a sample: reading them back would cost too much.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    time::{Duration, Instant},
};

use control::status::SamplingStatus;
use wire::{Gfn, PAGE_BYTES, PageBytes};

use crate::{
    entry::State,
    mapping::{Mapped, Mapping},
    transition::{Error, Pages},
};

/// Pages a period: what sampling costs a guest is bounded by as many faults. The standard deviation of a period's figure is at most 5 points.
const SAMPLE_PAGES: u32 = 100;
/// How often a period's sample is looked at: a page that was touched and evicted again between two looks is missed.
const LOOKS: u32 = 8;
/// A period is up to this part of itself longer or shorter than asked for: were those of all guests to begin together, they would all wait at once.
const STRETCH: f64 = 0.25;
/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// How an access to a page will show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The page will be backed again.
    Backed,
    /// The page will be mapped again.
    Mapped,
    /// The page will lose its mark, if the access writes.
    Marked,
}

impl<M: Mapping> Pages<M> {
    /// Makes the next access to a page show. A page that somebody else is moving is left as it is.
    pub fn probe(&self, gfn: Gfn, buffer: &mut PageBytes) -> Result<Probe, Error> {
        let failed = |source| Error::Kernel { action: "sampling", gfn, source };
        if self.table.peek(gfn).open() {
            self.close_run(gfn.run())?;
        }
        match self.table.peek(gfn).state() {
            State::Private => self.probe_private(gfn, buffer).map_err(failed),
            State::Shared => {
                let Some(entry) = self.lock_if(gfn, |entry| entry.state() == State::Shared && !entry.open()) else {
                    return Ok(Probe::Mapped);
                };
                let discarded = self.mapping.discard(gfn.run());
                self.unlock(gfn, entry, entry);
                discarded.map(|()| Probe::Mapped).map_err(failed)
            }
            State::Zero | State::Ballooned | State::Compressed | State::Swapped | State::Clean => Ok(Probe::Backed),
        }
    }

    fn probe_private(&self, gfn: Gfn, buffer: &mut PageBytes) -> io::Result<Probe> {
        let Some((_, entry)) = self.lock_one_private(gfn) else { return Ok(Probe::Backed) };
        if let Err(error) = self.mapping.protect(gfn.run()) {
            self.unlock(gfn, entry, entry);
            return Err(error);
        }
        self.mapping.read(gfn, buffer);
        let Some(stored) = self.store(gfn, buffer) else {
            self.unlock(gfn, entry, entry.into_probed());
            return Ok(Probe::Marked);
        };
        // The content is in the pool now: nothing may fail that would leave it there and the page as well.
        let discarded = self.mapping.discard(gfn.run());
        self.unlock(gfn, entry, if stored.state() == State::Compressed { stored.into_probed() } else { stored });
        discarded.map(|()| Probe::Backed)
    }

    /// Whether the guest has used a page since it was probed.
    pub fn touched_since(&self, gfn: Gfn, probe: Probe) -> Result<bool, Error> {
        let entry = self.table.peek(gfn);
        match probe {
            Probe::Backed => Ok(matches!(entry.state(), State::Private | State::Shared)),
            Probe::Marked => Ok(entry.state() == State::Private && !entry.probed()),
            Probe::Mapped => {
                let Some(entry) = self.lock_if(gfn, |entry| entry.state() == State::Shared) else {
                    return Ok(self.table.peek(gfn).state() == State::Private);
                };
                let mapped = self.mapping.mapped(gfn);
                self.unlock(gfn, entry, entry);
                let mapped = mapped.map_err(|source| Error::Kernel { action: "looking at", gfn, source })?;
                Ok(mapped != Mapped::Absent)
            }
        }
    }
}

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
    /// Does what is due: begins and ends periods of this length, and looks in between. Returns when something is due next.
    pub fn turn<M: Mapping>(&mut self, pages: &Pages<M>, period: Option<Duration>) -> Result<Duration, Error> {
        let Some(period) = period else {
            (self.sample, self.begun) = (Vec::new(), None);
            return Ok(Duration::MAX);
        };
        let now = Instant::now();
        let between = (period / LOOKS).max(LOOK_MIN);
        let ends = self.begun.map(|begun| begun + period.mul_f64(self.stretch));
        if self.begun.is_some() && now.duration_since(self.looked) < between && ends.is_some_and(|ends| now < ends) {
            return Ok(between - now.duration_since(self.looked));
        }
        self.look(pages)?;
        if ends.is_none_or(|ends| now >= ends) {
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

    fn look<M: Mapping>(&mut self, pages: &Pages<M>) -> Result<(), Error> {
        for sampled in self.sample.iter_mut().filter(|sampled| !sampled.touched) {
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
