//! `serve`: requests that are due at a constant rate, whoever has memory or not. Each reads what all guests
//! have in common and works on data of its own; its latency counts from when it was due, so that a guest
//! which falls behind cannot hide it (no coordinated omission). It serves once it holds all that it serves
//! from: the balloon gives way to it.
//!
//! ```text
//!   filling -----> warm -- WARM_MS by the guest's clock, from one of its steps to another ---> serving
//!                          (how many ticks a millisecond has)
//! ```

use wire::machine::{METER_BASE, METER_WAIT};

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::common::Common;
use crate::workload::work::{STEP_PAGES, Work, space};

/// Thousandths of RAM that are like other guests', three quarters of them common: with the rest, 58 % of what
/// is held has an equal elsewhere, as in separately booted Debian guests (60 to 65 %).
const COMMON_PERMILLE: u32 = 700;
/// Thousandths of RAM with data of its own.
const OWN_PERMILLE: u32 = 200;
/// Time between two requests, ms.
pub const INTERVAL_MS: u64 = 50;
/// Pages of its own data that a request works on, one in ten of which it writes.
const REQUEST_PAGES: u32 = 64;
/// Ticks are counted for so long. The clock is set by the VMM, some hundred times a second, or more seldom on
/// a busy host; it is right when it is set.
const WARM_MS: u64 = 3000;

#[derive(Clone, Copy, Debug)]
enum Stage {
    Filling,
    /// What the clock last showed, and the ticks at its first step.
    Warm {
        shown_ms: u64,
        first: Option<(u64, u64)>,
    },
    /// The next request is due then, and so many ticks later the one after it.
    Serving(u64, u64),
}

/// What is common, what is its own, and when the next request is due.
#[derive(Debug)]
pub struct Serve {
    common: Common,
    own: Set,
    stage: Stage,
}

impl Serve {
    /// The common part is built at once, the rest a step at a time.
    pub fn build<M: Machine>(cpu: &mut Cpu<'_, M>) -> Serve {
        let common = Common::build(cpu, COMMON_PERMILLE, Set::push_patiently);
        let pages = cpu.share(OWN_PERMILLE);
        let rule = Rule::Own { space: space::SERVE, generation: 0, texture: Texture::Third };
        Serve { common, own: Set::new(cpu, pages, rule), stage: Stage::Filling }
    }

    fn request<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) {
        self.common.step(cpu);
        for _ in 0..REQUEST_PAGES.min(self.own.len()) {
            let index = cpu.rng.zipf_below(self.own.len());
            if cpu.rng.one_in(10) {
                self.own.rewrite(cpu, index);
            } else {
                self.own.verify(cpu, index);
            }
        }
    }
}

impl<M: Machine> Work<M> for Serve {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        match self.stage {
            Stage::Filling => {
                if !(0..STEP_PAGES).all(|_| self.own.push_patiently(cpu, 1)) {
                    self.stage = Stage::Warm { shown_ms: cpu.now_ms(), first: None };
                }
            }
            Stage::Warm { shown_ms, first } => {
                let (now_ms, now) = (cpu.now_ms(), cpu.ticks());
                self.stage = match first {
                    _ if now_ms == shown_ms => return cpu.park(1),
                    None => Stage::Warm { shown_ms: now_ms, first: Some((now_ms, now)) },
                    Some((since_ms, since)) if now_ms.saturating_sub(since_ms) >= WARM_MS => {
                        Stage::Serving(now, now.wrapping_sub(since) / (now_ms - since_ms) * INTERVAL_MS)
                    }
                    first => Stage::Warm { shown_ms: now_ms, first },
                };
            }
            Stage::Serving(due, interval) => {
                let early = due.wrapping_sub(cpu.ticks()) as i64;
                if early > 0 {
                    return cpu.park((early as u64 * INTERVAL_MS / interval.max(1)).max(1) as u32);
                }
                self.request(cpu);
                let latency = cpu.ticks().wrapping_sub(due);
                cpu.mmio_write(METER_BASE + METER_WAIT, u32::try_from(latency).unwrap_or(u32::MAX));
                self.stage = Stage::Serving(due.wrapping_add(interval), interval);
            }
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.common.verify_all(cpu);
        self.own.verify_all(cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.common.release(cpu);
        self.own.release(cpu);
    }
}
