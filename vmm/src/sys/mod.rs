//! Everything about vCPUs and firmware that the compiler cannot check: raw memory and signals.

pub mod file;
pub mod kick;
pub mod mapping;
pub mod ram;

mod events;
pub mod inherited;
mod process;

pub use events::rung;
pub use process::{anonymous_bytes, die_with_parent, ignore_interrupts, keep_own_memory};
