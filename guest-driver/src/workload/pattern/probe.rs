//! `probe`: times single touches, of fresh pages first and then of pages that it has filled, far from each
//! other and in no order, and writes each time to the meter. What had become of a page in between is for
//! whoever reads the meter to know.

use wire::machine::{METER_BASE, METER_FRESH, METER_RETURN};

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::memory::PAGE_WORDS;
use crate::page::{self, Identity, Texture};
use crate::workload::work::{STEP_PAGES, Work, space};

/// Pages between two fresh ones: beyond what a first touch brings along.
const STRIDE: u32 = 32;
/// Odd, so that its multiples modulo a power of two are all there is, and neighbours are far apart.
const SCATTER: u32 = 0x9e37_79b1;

#[derive(Debug)]
enum Stage {
    /// Position of the next fresh page to touch.
    Touching(u32),
    /// Position of the next page to fill.
    Filling(u32),
    /// Touches of filled pages so far.
    Returning(u32),
}

/// Contiguous pages, a power of two of them.
#[derive(Debug)]
pub struct Probe {
    first: u32,
    pages: u32,
    /// Pages that are filled.
    filled: u32,
    stage: Stage,
    texture: Texture,
}

impl Probe {
    /// At most so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32) -> Probe {
        let share = cpu.share(permille).max(1);
        let pages = 1 << share.ilog2();
        let (first, pages) = cpu.allocate_essential_run(pages).map_or((0, 0), |first| (first, pages));
        Probe { first, pages, filled: 0, stage: Stage::Touching(0), texture: cpu.texture(Texture::Half) }
    }

    fn identity<M: Machine>(&self, cpu: &Cpu<'_, M>, index: u32) -> Identity {
        let boot = cpu.boot();
        let address = cpu.address(space::PROBE, index);
        Identity { seed: boot.seed, owner: boot.guest, version: 1, address, texture: self.texture }
    }

    /// Reads one word of the page, and says how long that took.
    fn touch<M: Machine>(&self, cpu: &Cpu<'_, M>, index: u32, register: u64) {
        let page = cpu.ram().page(self.first + index);
        let begun = cpu.ticks();
        core::hint::black_box(page.u64(PAGE_WORDS - 1));
        let ticks = cpu.ticks().wrapping_sub(begun);
        cpu.mmio_write(METER_BASE + register, u32::try_from(ticks).unwrap_or(u32::MAX));
    }

    fn verify<M: Machine>(&self, cpu: &mut Cpu<'_, M>, index: u32) {
        let gfn = self.first + index;
        let right = page::verify(cpu.ram().page(gfn), &self.identity(cpu, index));
        cpu.checked(gfn, right);
    }
}

impl<M: Machine> Work<M> for Probe {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        match self.stage {
            _ if self.pages == 0 => cpu.park(5),
            Stage::Touching(from) => {
                self.touch(cpu, from, METER_FRESH);
                let next = from + STRIDE;
                self.stage = if next < self.pages { Stage::Touching(next) } else { Stage::Filling(0) };
            }
            Stage::Filling(from) => {
                let end = self.pages.min(from + STEP_PAGES);
                for index in from..end {
                    page::fill(cpu.ram().page(self.first + index), &self.identity(cpu, index));
                }
                (self.filled, self.stage) = (end, Stage::Filling(end));
                if end == self.pages {
                    self.stage = Stage::Returning(0);
                }
            }
            Stage::Returning(touches) => {
                let index = touches.wrapping_mul(SCATTER) % self.pages;
                self.touch(cpu, index, METER_RETURN);
                self.verify(cpu, index);
                cpu.operated(1);
                self.stage = Stage::Returning(touches.wrapping_add(1));
            }
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        (0..self.filled).for_each(|index| self.verify(cpu, index));
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        (0..self.pages).for_each(|index| cpu.free(self.first + index));
        (self.pages, self.filled) = (0, 0);
    }
}
