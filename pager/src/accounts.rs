//! What is counted: credits, references to frames, and what happened.

pub mod counters;
mod counts;
pub mod credit;
pub mod latency;
pub mod references;
pub mod stall;
