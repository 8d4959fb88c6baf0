//! What all benchmarks have: targets, clocks, books, settings that are put back, guests' memory seen from
//! outside.

pub mod books;
pub mod clocks;
pub mod error;
pub mod guest_memory;
pub mod ksm;
pub mod latency;
pub mod program;
pub mod ram;
pub mod random;
pub mod report;
pub mod scrape;
pub mod settings;
pub mod target;
pub mod turn;
