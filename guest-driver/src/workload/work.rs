//! What every workload is, and shares with the others.

use crate::cpu::Cpu;
use crate::machine::Machine;

/// Pages a step works on: even if each comes from disk or out of compression, they take a few milliseconds.
pub const STEP_PAGES: u32 = 32;

/// Numbers of the page sets, so that no two have a page name in common.
#[allow(missing_docs, reason = "the names say it")]
pub mod space {
    pub const COMMON_SAME: u16 = 1;
    pub const COMMON_ELSEWHERE: u16 = 2;
    pub const COMMON_OWN: u16 = 3;
    pub const ZIPF: u16 = 4;
    pub const CHURN: u16 = 5;
    pub const HOG: u16 = 6;
    pub const ZERO: u16 = 7;
    pub const GUPS: u16 = 8;
    pub const STREAM: u16 = 9;
    pub const CACHE: u16 = 10;
    pub const WAKE: u16 = 11;
    pub const SCAN: u16 = 12;
    pub const TIDE: u16 = 13;
    pub const PROBE: u16 = 14;
    pub const CLOCK: u16 = 15;
    pub const SERVE: u16 = 16;
}

/// A workload under way.
pub trait Work<M: Machine> {
    /// Works for a few milliseconds at most.
    fn step(&mut self, cpu: &mut Cpu<'_, M>);
    /// Checks every page held.
    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>);
    /// Gives every page held back, clean ones excepted.
    fn release(&mut self, cpu: &mut Cpu<'_, M>);
}
