//! Everything about vCPUs and firmware that the compiler cannot check: raw memory and signals.

pub mod kick;
pub mod mapping;
pub mod ram;
