//! The model of the transitions.
#![allow(missing_docs)]

mod actors;
mod content;
mod kernel;
mod truth;
mod world;

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

use actors::Actor;
use world::World;

/// Pages of the guest: one with a neighbour.
const PAGES: u32 = 2;
/// Frames of the store: the pages' homes, and one to which both pages can move together.
const FRAMES: u32 = 3;

/// Executions of one race with threads chosen at random, and again with random priorities that change twice (PCT).
const RANDOM: usize = 1000;
const BY_PRIORITY: usize = 500;
const PRIORITY_DEPTH: usize = 3;

fn race(actors: &'static [Actor]) {
    let mut config = Config::new();
    // Compression works on its stack.
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new(RANDOM), config.clone()).run(move || World::race(actors));
    Runner::new(PctScheduler::new(PRIORITY_DEPTH, BY_PRIORITY), config).run(move || World::race(actors));
}

/// One test for each pair: `model::first::races_second`.
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
    write Write, fault Fault, merge Merge, alias Alias, drop_zero DropZero, evict Evict, close_open CloseOpen, note Note,
    inflate Inflate, deflate Deflate, report_free ReportFree, release Release,
}

#[test]
fn shares_are_broken_evicted_and_given_up_at_once() {
    race(&[Actor::Merge, Actor::Evict, Actor::Inflate]);
}

#[test]
fn a_frame_is_released_while_pages_move_to_and_from_it() {
    race(&[Actor::Alias, Actor::Release, Actor::ReportFree]);
}

#[test]
fn zero_pages_are_dropped_closed_and_punched_away_at_once() {
    race(&[Actor::DropZero, Actor::CloseOpen, Actor::Release]);
}

#[test]
fn everybody_who_moves_pages_without_asking_at_once() {
    race(&[Actor::Alias, Actor::Evict, Actor::CloseOpen, Actor::Note]);
}
