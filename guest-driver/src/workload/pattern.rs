//! Access patterns that are measured: what other people's benchmarks do to memory.

pub mod gups;
pub mod probe;
pub mod scan;
pub mod serve;
pub mod stream;
pub mod zipf;
