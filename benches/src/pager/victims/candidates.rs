//! Policies that choose victims, for replays of traces: what a pager can do, which sees faults alone, and
//! what could be done with more.

use crate::pager::victims::{
    fifo::Fifo,
    hand::{Hand, Order},
    lru::Lru,
    opt::Opt,
    policy::{Policy, Sees, pages},
    random::AnyPage,
    s3fifo::S3Fifo,
    sieve::Sieve,
};

/// A policy by name.
pub struct Candidate {
    /// Its name.
    pub name: &'static str,
    /// What it goes by.
    pub sees: Sees,
    /// One for this trace and a memory of so many pages.
    pub build: fn(&[u32], usize) -> Box<dyn Policy>,
}

/// The pager's own policy.
pub const PAGER: &str = "pager";
/// What most would begin with, and the pager did.
pub const CLOCK: &str = "clock";

/// All of them.
pub const ALL: [Candidate; 11] = [
    Candidate {
        name: PAGER,
        sees: Sees::Faults,
        build: |trace, _| Box::new(Hand::new(pages(trace), Order::Blocks, pager::rules::victims::lives)),
    },
    Candidate {
        name: CLOCK,
        sees: Sees::Faults,
        build: |trace, _| Box::new(Hand::new(pages(trace), Order::Addresses, |_, _| 1)),
    },
    Candidate {
        name: "pager-in-order",
        sees: Sees::Faults,
        build: |trace, _| Box::new(Hand::new(pages(trace), Order::Addresses, pager::rules::victims::lives)),
    },
    Candidate {
        name: "pager-no-lives",
        sees: Sees::Faults,
        build: |trace, _| Box::new(Hand::new(pages(trace), Order::Blocks, |_, _| 0)),
    },
    Candidate { name: "random", sees: Sees::Faults, build: |_, _| Box::new(AnyPage::new()) },
    Candidate { name: "fifo", sees: Sees::Faults, build: |_, _| Box::new(Fifo::default()) },
    Candidate {
        name: "s3fifo-faults",
        sees: Sees::Faults,
        build: |trace, capacity| Box::new(S3Fifo::new(pages(trace), capacity, Sees::Faults)),
    },
    Candidate {
        name: "s3fifo",
        sees: Sees::Hits,
        build: |trace, capacity| Box::new(S3Fifo::new(pages(trace), capacity, Sees::Hits)),
    },
    Candidate { name: "sieve", sees: Sees::Hits, build: |trace, _| Box::new(Sieve::new(pages(trace))) },
    Candidate { name: "lru", sees: Sees::Hits, build: |trace, _| Box::new(Lru::new(pages(trace))) },
    Candidate { name: "opt", sees: Sees::Future, build: |trace, _| Box::new(Opt::new(trace)) },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pager::victims::policy::miss_ratio;

    /// Pages 0, 1, 2, ... of `pages`, over and over.
    fn sweep(pages: u32, accesses: u32) -> Vec<u32> {
        (0..accesses).map(|access| access % pages).collect()
    }

    fn misses(name: &str, trace: &[u32], capacity: usize) -> f64 {
        let candidate = ALL.iter().find(|candidate| candidate.name == name).unwrap();
        miss_ratio(trace, capacity, &mut *(candidate.build)(trace, capacity))
    }

    #[test]
    fn what_fits_misses_nothing_and_nobody_beats_the_one_who_knows() {
        let trace: Vec<u32> = sweep(300, 3000).into_iter().zip(sweep(70, 3000)).flat_map(|(a, b)| [a, b]).collect();
        for candidate in &ALL {
            assert_eq!(misses(candidate.name, &trace, 300), 0.0, "{}", candidate.name);
            assert!(misses(candidate.name, &trace, 150) >= misses("opt", &trace, 150), "{}", candidate.name);
        }
    }

    #[test]
    fn a_sweep_beats_every_order_it_can_fall_into_step_with_and_no_other() {
        let trace = sweep(3200, 64_000);
        for name in ["lru", "sieve", "fifo", CLOCK] {
            assert_eq!(misses(name, &trace, 1600), 1.0, "{name}");
        }
        // Of half of it, the best keeps half.
        assert!((misses("opt", &trace, 1600) - 0.5).abs() < 0.01);
        assert!(misses(PAGER, &trace, 1600) < 0.85);
    }
}
