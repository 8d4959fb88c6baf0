//! The page-state transitions, model-checked: the real [`crate::pages`], table, credits, references and pool,
//! over a kernel in small.
//!
//! ```text
//!   guest thread --access--> kernel --next_fault--> fault thread --no credit--> waiting room --> evictor
//!   two actors   --Pages::share, evict, ...--> Pages<Kernel> --Mapping--> kernel  (host: publish, punch)
//! ```
//!
//! A race is a guest of two pages over three frames, brought into a state at random, then a guest thread that
//! reads and writes, the threads that serve faults, and two of the actors ([`actors::Actor`]), interleaved by
//! shuttle at every atomic, lock and system call. One test a pair, and a few of more. Each access is checked
//! at its instant against what the guest last wrote ([`truth`]); the kernel fails on a hole that is read, a
//! mapped frame that is punched, and more anonymous pages than were paid for; a thread that nobody wakes is a
//! deadlock; and at rest every lock, mapping, credit and reference is where it should be ([`world`]).
//!
//! Races are sampled, not exhausted, and every atomic is sequentially consistent here: weaker orderings rest
//! on the comments beside them.
//!
//! What it is to see is in `pager/mutants`: patches that break a rule each, and `run`, which shows that the
//! model fails with each of them. It was seen to catch these as well:
//!
//! | mutation | caught as |
//! |---|---|
//! | `adopt` neither protects nor looks after placing | a page is `Shared` but anonymous |
//! | `adopt` does not count the reference | a hole of the store is read, frames not held |
//! | `answer`, or `read_published`, has no silence | a hole of the store is read |
//! | `swap_in` frees its slot before it reads it | a checksum that does not match |
//! | `swap_in`, or `prefetch`, takes no credit | credits were lost or made |
//! | `write_back` frees the pool's slot of a page that was not written | a damaged page |
//! | `recompress`, or `rejoin`, keeps the old slot | the pool keeps pages for nobody |
//! | `promote` frees the slot before it reads its content | a hole of the store is read, a damaged page |

mod actors;
mod chance;
mod content;
mod kernel;
mod races;
mod rest;
mod size;
mod truth;
mod world;

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

use actors::Actor;

/// Executions of one race with threads chosen at random, and again with random priorities that change twice
/// (PCT).
const RANDOM: usize = 1000;
const BY_PRIORITY: usize = 500;
const PRIORITY_DEPTH: usize = 3;

/// Explores a race.
fn race(actors: &'static [Actor]) {
    explore(move || races::run(actors));
}

/// Runs `execution` over and over, differently interleaved; a failure prints the seed or schedule that shows
/// it again.
fn explore(execution: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = Config::new();
    // Compression works on its stack.
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new(RANDOM), config.clone()).run(execution.clone());
    Runner::new(PctScheduler::new(PRIORITY_DEPTH, BY_PRIORITY), config).run(execution);
}

/// One test for each pair, `model::first::second`.
macro_rules! pairs {
    () => {};
    ($first:ident $one:ident, $($name:ident $other:ident,)*) => {
        mod $first {
            $(#[test]
            fn $name() {
                super::race(&[super::Actor::$one, super::Actor::$other]);
            })*
        }
        pairs!($($name $other,)*);
    };
}

pairs! {
    write Write, fault Fault, merge Merge, alias Alias, drop_zero DropZero, evict Evict, stretch Stretch, sample Sample, write_back WriteBack, swap Swap, pack Pack, prefetch Prefetch, close_open CloseOpen, note Note,
    inflate Inflate, deflate Deflate, report_free ReportFree, report_poison ReportPoison, hint Hint, release Release,
}

#[test]
fn shares_are_broken_evicted_and_given_up_at_once() {
    race(&[Actor::Merge, Actor::Evict, Actor::Inflate]);
}

#[test]
fn pages_protected_by_mistake_are_shared_open_and_written_to() {
    race(&[Actor::Stretch, Actor::Merge, Actor::Evict]);
}

#[test]
fn pages_go_to_disk_come_back_and_are_given_up_at_once() {
    race(&[Actor::Evict, Actor::WriteBack, Actor::Inflate]);
}

#[test]
fn pages_go_to_disk_and_come_back_while_the_scanner_works() {
    race(&[Actor::Evict, Actor::WriteBack, Actor::Merge]);
}

#[test]
fn pages_of_the_pool_are_packed_while_they_go_on_to_disk_and_come_back() {
    race(&[Actor::Pack, Actor::WriteBack, Actor::Evict]);
}

#[test]
fn pages_become_patches_and_come_back_while_their_frames_are_released() {
    race(&[Actor::Pack, Actor::Release, Actor::Evict]);
}

#[test]
fn pages_of_the_pool_are_shared_broken_and_come_back_while_their_frames_are_released() {
    race(&[Actor::Pack, Actor::Merge, Actor::Release, Actor::Evict]);
}

#[test]
fn a_frame_is_adopted_for_a_patch_or_released_and_never_both() {
    explore(races::patch_or_release);
}

#[test]
fn a_frame_is_adopted_by_a_page_of_the_pool_or_released_and_never_both() {
    explore(races::rejoin_or_release);
}

#[test]
fn frames_that_patches_are_of_are_shared_broken_and_released_at_once() {
    race(&[Actor::Pack, Actor::Release, Actor::Merge, Actor::ReportFree]);
}

#[test]
fn pages_are_prefetched_while_they_are_evicted_written_back_and_given_up() {
    race(&[Actor::Prefetch, Actor::Evict, Actor::WriteBack, Actor::Inflate]);
}

#[test]
fn a_disk_that_fails_to_write_loses_nothing() {
    race(&[Actor::Disk, Actor::WriteBack, Actor::Evict]);
}

#[test]
fn a_frame_is_released_while_pages_move_to_and_from_it() {
    race(&[Actor::Alias, Actor::Release, Actor::ReportFree]);
}

#[test]
fn hinted_pages_are_written_shared_and_evicted_at_once() {
    race(&[Actor::Hint, Actor::Merge, Actor::Evict]);
}

#[test]
fn hinted_pages_are_broken_moved_and_given_up_at_once() {
    race(&[Actor::Hint, Actor::Alias, Actor::ReportPoison]);
}

#[test]
fn zero_pages_are_dropped_closed_and_punched_away_at_once() {
    race(&[Actor::DropZero, Actor::CloseOpen, Actor::Release]);
}

#[test]
fn sampled_pages_are_written_shared_and_hinted_at_once() {
    race(&[Actor::Sample, Actor::Write, Actor::Merge, Actor::Hint]);
}

#[test]
fn everybody_who_moves_pages_without_asking_at_once() {
    race(&[Actor::Alias, Actor::Evict, Actor::CloseOpen, Actor::Note]);
}
