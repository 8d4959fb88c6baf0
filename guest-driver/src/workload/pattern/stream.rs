//! `stream`: copy, scale, add and triad over three arrays (McCalpin's STREAM), then every word is checked.
//!
//! Numbers are integers modulo 2^64, so results are exact: at any time array `x` holds `factor(x) * v(i)` at
//! word `i`, where `v(i)` never changes and a kernel changes one array's factor. Neighbours are equal in
//! pairs, as in a smooth field: lz4 takes a page to about a third.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::memory::PAGE_WORDS;
use crate::page::Texture;
use crate::rng::mix;
use crate::set::{Rule, Set, ZERO};
use crate::workload::work::{STEP_PAGES, Work, space};

const SCALAR: u64 = 3;

/// `target = left + scalar * right`, by array number; copy, scale, add, triad.
const KERNELS: [(usize, usize, u64, usize, u64); 4] = [
    // target, left, its factor, right, its factor
    (2, 0, 1, 0, 0),
    (1, 2, SCALAR, 0, 0),
    (2, 0, 1, 1, 1),
    (0, 1, 1, 2, SCALAR),
];

#[derive(Debug, Clone, Copy)]
enum Stage {
    Growing,
    /// Kernel, and pages of its target that are done.
    Kernel(usize, u32),
    /// Position of the next page to verify.
    Verifying(u32),
}

/// Three arrays: page `3 * i + x` of the set is page `i` of array `x`.
#[derive(Debug)]
pub struct Stream {
    arrays: Set,
    stage: Stage,
    factors: [u64; 3],
}

impl Stream {
    /// Arrays of so many thousandths of RAM together.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32) -> Stream {
        let rule = Rule::Own { space: space::STREAM, generation: 0, texture: Texture::Random };
        let pages = cpu.share(permille) / 3 * 3;
        Stream { arrays: Set::new(cpu, pages, rule), stage: Stage::Growing, factors: [1, 2, 0] }
    }

    /// Pages of one array.
    fn pages(&self) -> u32 {
        self.arrays.len() / 3
    }

    fn value<M: Machine>(cpu: &Cpu<'_, M>, page: u32) -> u64 {
        mix(cpu.boot().seed ^ cpu.address(space::STREAM, page) ^ u64::from(cpu.boot().guest) << 40)
    }

    /// `v` at a word of a page that begins with `first`.
    fn at(first: u64, word: usize) -> u64 {
        first.wrapping_add(word as u64 / 2)
    }

    fn page<M: Machine>(&self, cpu: &Cpu<'_, M>, array: usize, page: u32) -> (u32, crate::memory::Span) {
        let (gfn, _) = self.arrays.page(cpu, 3 * page + array as u32);
        (gfn, cpu.ram().page(gfn))
    }

    fn factor_after(&self, kernel: usize) -> u64 {
        let (_, left, by, right, times) = KERNELS[kernel];
        self.factors[left].wrapping_mul(by).wrapping_add(self.factors[right].wrapping_mul(times))
    }

    fn compute<M: Machine>(&self, cpu: &Cpu<'_, M>, kernel: usize, page: u32) {
        let (target, left, by, right, times) = KERNELS[kernel];
        let [target, left, right] = [target, left, right].map(|array| self.page(cpu, array, page).1);
        for word in 0..PAGE_WORDS {
            let sum = left.u64(word).wrapping_mul(by).wrapping_add(right.u64(word).wrapping_mul(times));
            target.set_u64(word, sum);
        }
    }

    /// Checks a page of an array that ought to have this factor.
    fn verify<M: Machine>(&self, cpu: &mut Cpu<'_, M>, array: usize, page: u32, factor: u64) {
        let (gfn, span) = self.page(cpu, array, page);
        let first = Self::value(cpu, page);
        let expected = |word: usize| Self::at(first, word).wrapping_mul(factor);
        let right = (0..PAGE_WORDS).all(|word| span.u64(word) == expected(word));
        cpu.checked(gfn, right);
    }

    fn grow<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) -> bool {
        if !self.arrays.push(cpu, ZERO) {
            return false;
        }
        let last = self.arrays.len() - 1;
        let (page, array) = (last / 3, last as usize % 3);
        let (_, span) = self.page(cpu, array, page);
        let (first, factor) = (Self::value(cpu, page), self.factors[array]);
        (0..PAGE_WORDS).for_each(|word| span.set_u64(word, Self::at(first, word).wrapping_mul(factor)));
        true
    }
}

impl<M: Machine> Work<M> for Stream {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        match self.stage {
            Stage::Growing => {
                let grown = (0..STEP_PAGES).take_while(|_| self.grow(cpu)).count();
                if grown == 0 && self.pages() > 0 {
                    while !self.arrays.len().is_multiple_of(3) {
                        self.arrays.pop(cpu);
                    }
                    self.stage = Stage::Kernel(0, 0);
                } else if grown == 0 {
                    cpu.park(5);
                }
            }
            Stage::Kernel(kernel, from) => {
                let end = self.pages().min(from + STEP_PAGES / 2);
                (from..end).for_each(|page| self.compute(cpu, kernel, page));
                cpu.operated(u64::from(end - from));
                self.stage = Stage::Kernel(kernel, end);
                if end == self.pages() {
                    self.factors[KERNELS[kernel].0] = self.factor_after(kernel);
                    let next = kernel + 1;
                    self.stage = if next == KERNELS.len() { Stage::Verifying(0) } else { Stage::Kernel(next, 0) };
                }
            }
            Stage::Verifying(from) => {
                let end = self.pages().min(from + STEP_PAGES / 3);
                for page in from..end {
                    (0..3).for_each(|array| self.verify(cpu, array, page, self.factors[array]));
                }
                self.stage = if end == self.pages() { Stage::Kernel(0, 0) } else { Stage::Verifying(end) };
            }
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        for index in 0..self.arrays.len() {
            let (page, array) = (index / 3, index as usize % 3);
            let factor = match self.stage {
                Stage::Kernel(kernel, done) if KERNELS[kernel].0 == array && page < done => self.factor_after(kernel),
                _ => self.factors[array],
            };
            self.verify(cpu, array, page, factor);
        }
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.arrays.release(cpu);
    }
}
