//! Guests that keep changing their memory, and check it: one thread a guest, so many writes a second, each to
//! one page.
//!
//! ```text
//!   a page of the three quarters that guests have in common:
//!       common content  <---- written ---->  content that nobody else has    half are common at any time
//!   a page of a guest's own quarter:  each time a content that nobody else has
//! ```
//!
//! So what could be saved hardly changes while everything changes, and is known at each moment. Before a page
//! is written, what it should hold is compared with what it holds.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    dedup::contents::{Contents, common_pages, own_number},
    kit::{error::Error, latency::Latencies, ram::GuestRam, random::Random},
};

/// Part of its pages that a guest changes in a second.
pub const CHANGED_PER_SECOND: f64 = 0.05;
/// Of the hot pattern: one page in so many is hot, ...
const HOT_ONE_IN: u64 = 10;
/// ... and so many writes of [`HOT_WRITES_OF`] go to those.
const HOT_WRITES: u64 = 9;
const HOT_WRITES_OF: u64 = 10;
/// Pause of a writer that is not behind.
const PAUSE: Duration = Duration::from_millis(5);

/// Which pages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any, with equal odds.
    Uniform,
    /// Nine times of ten one of the same tenth.
    Hot,
}

/// What all guests' pages hold now.
pub struct World {
    /// By guest: content numbers.
    numbers: Vec<Vec<u64>>,
    /// Of each common content: guests that have it now.
    holders: Vec<AtomicU32>,
    limit_pages: AtomicI64,
    /// Latencies count while this is set.
    pub measuring: AtomicBool,
    /// Writers end when this is set.
    pub stop: AtomicBool,
}

/// What a writer did and saw.
#[derive(Debug, Default)]
pub struct Written {
    /// Time each write took, while it was measured.
    pub latencies: Latencies,
    /// Pages that did not hold what was written to them.
    pub corrupt_pages: u64,
}

impl World {
    /// `guests` guests of `pages` pages in the state that writing keeps them in.
    pub fn new(guests: u32, pages: u32) -> World {
        let common = common_pages(pages);
        let holders: Vec<AtomicU32> = (0..common).map(|_| AtomicU32::new(0)).collect();
        let guest = |guest: u64| {
            let mut random = Random::new(guest + 1);
            let number = |page| {
                if page < common && random.below(2) == 0 {
                    holders[page as usize].fetch_add(1, Ordering::Relaxed);
                    page
                } else {
                    own_number(guest, page)
                }
            };
            (0..u64::from(pages)).map(number).collect()
        };
        let numbers = (0..u64::from(guests)).map(guest).collect();
        let duplicates = holders.iter().map(|holders| i64::from(holders.load(Ordering::Relaxed)) - 1);
        let limit_pages = AtomicI64::new(duplicates.filter(|&duplicates| duplicates > 0).sum());
        World { numbers, holders, limit_pages, measuring: AtomicBool::new(false), stop: AtomicBool::new(false) }
    }

    /// The memory to load.
    pub fn contents(&self) -> Contents {
        Contents::Numbers(self.numbers.clone())
    }

    /// Pages that could be saved at this moment.
    pub fn limit_pages(&self) -> u64 {
        // Relaxed here and below: a figure, not a message.
        self.limit_pages.load(Ordering::Relaxed).max(0) as u64
    }

    /// Runs one writer a guest until `stop` is set, and `during` meanwhile on this thread; returns what all
    /// writers saw.
    pub fn write(
        &mut self,
        rams: &[GuestRam],
        pattern: Pattern,
        during: impl FnOnce(&World) -> Result<(), Error>,
    ) -> Result<Written, Error> {
        let mut numbers = std::mem::take(&mut self.numbers);
        let world = &*self;
        let written = thread::scope(|scope| {
            let mut writers = Vec::new();
            for (guest, (&ram, numbers)) in (0..).zip(rams.iter().zip(&mut numbers)) {
                let body = move || Writer::new(world, guest, ram, numbers, pattern).run();
                writers.push(thread::Builder::new().name("writer".into()).spawn_scoped(scope, body));
            }
            let result = during(world);
            world.stop.store(true, Ordering::Relaxed);
            let mut all = Written::default();
            for writer in writers {
                let writer = writer.map_err(Error::system("starting a writer"))?;
                let written = writer.join().map_err(|_| Error::Guest("a writer panicked".to_owned()))?;
                all.latencies.add(&written.latencies);
                all.corrupt_pages += written.corrupt_pages;
            }
            result.map(|()| all)
        });
        self.numbers = numbers;
        written
    }

    /// Pages that do not hold now what was written to them last; reads them all.
    pub fn corrupt_pages(&self, rams: &[GuestRam]) -> u64 {
        let of = |(ram, numbers): (&GuestRam, &Vec<u64>)| {
            (0..).zip(numbers).filter(|&(page, &number)| ram.number(page) != number).count() as u64
        };
        rams.iter().zip(&self.numbers).map(of).sum()
    }
}

struct Writer<'a> {
    world: &'a World,
    guest: u64,
    ram: GuestRam,
    numbers: &'a mut [u64],
    pattern: Pattern,
    random: Random,
    /// Contents made so far: each is new.
    made: u64,
    written: Written,
}

impl<'a> Writer<'a> {
    fn new(world: &'a World, guest: u64, ram: GuestRam, numbers: &'a mut [u64], pattern: Pattern) -> Self {
        let made = numbers.len() as u64;
        Self {
            world,
            guest,
            ram,
            numbers,
            pattern,
            random: Random::new(guest + 1000),
            made,
            written: Written::default(),
        }
    }

    fn run(mut self) -> Written {
        let rate = self.numbers.len() as f64 * CHANGED_PER_SECOND;
        let (begun, mut done) = (Instant::now(), 0u64);
        while !self.world.stop.load(Ordering::Relaxed) {
            let due = (begun.elapsed().as_secs_f64() * rate) as u64;
            (done..due).for_each(|_| self.write_one());
            done = due;
            thread::sleep(PAUSE);
        }
        self.written
    }

    fn write_one(&mut self) {
        let page = self.choose();
        let old = self.numbers[page as usize];
        self.written.corrupt_pages += u64::from(self.ram.number(page) != old);
        let new = self.next_content(u64::from(page), old);
        self.numbers[page as usize] = new;
        let begun = Instant::now();
        self.ram.set_number(page, new);
        let took = begun.elapsed();
        if self.world.measuring.load(Ordering::Relaxed) {
            self.written.latencies.note(took);
        }
    }

    fn choose(&mut self) -> u32 {
        let pages = self.numbers.len() as u64;
        let hot = self.pattern == Pattern::Hot && self.random.below(HOT_WRITES_OF) < HOT_WRITES;
        let page = if hot { self.random.below(pages / HOT_ONE_IN) * HOT_ONE_IN } else { self.random.below(pages) };
        page as u32
    }

    /// What page `page`, which holds `old`, is to hold next.
    fn next_content(&mut self, page: u64, old: u64) -> u64 {
        let (holders, limit) = (self.world.holders.get(page as usize), &self.world.limit_pages);
        match holders {
            // Common now, and nobody else's: back to what others have.
            Some(holders) if old != page => {
                if holders.fetch_add(1, Ordering::Relaxed) > 0 {
                    limit.fetch_add(1, Ordering::Relaxed);
                }
                page
            }
            _ => {
                if holders.is_some_and(|holders| holders.fetch_sub(1, Ordering::Relaxed) > 1) {
                    limit.fetch_sub(1, Ordering::Relaxed);
                }
                self.made += 1;
                own_number(self.guest, self.made)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_known_while_everything_changes() {
        let mut world = World::new(4, 256);
        assert_eq!(world.limit_pages(), world.contents().count().unwrap().limit_pages());
        let mut memory = vec![0u64; 4 * 256 * 512];
        let base = std::ptr::NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        // SAFETY: the four guests follow each other in `memory`.
        let rams = [0, 1, 2, 3].map(|guest| GuestRam::new(unsafe { base.add(guest << 20) }, 256));
        for (ram, numbers) in rams.iter().zip(&world.numbers) {
            (0..).zip(numbers).for_each(|(page, &number)| ram.set_number(page, number));
        }
        let begun = Instant::now();
        let written = world.write(&rams, Pattern::Uniform, |world| {
            world.measuring.store(true, Ordering::Relaxed);
            while begun.elapsed() < Duration::from_millis(500) {
                thread::yield_now();
            }
            Ok(())
        });
        let written = written.unwrap();
        assert!(written.latencies.summary().count > 0 && written.corrupt_pages == 0);
        assert_eq!(world.corrupt_pages(&rams), 0);
        assert_eq!(world.limit_pages(), world.contents().count().unwrap().limit_pages());
        rams[2].set_number(7, 1 << 50);
        assert_eq!(world.corrupt_pages(&rams), 1);
    }
}
