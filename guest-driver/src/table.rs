//! A growing array of 64-bit words in pages of RAM: what workloads keep their books in.
//!
//! A contiguous root holds the page numbers of leaves of 512 words each; leaves are allocated when first
//! written to.

use wire::PAGE_BYTES;

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::memory::{PAGE_WORDS, Span};

const LEAF_WORDS: u32 = PAGE_WORDS as u32;
const ROOT_PAGE_LEAVES: u32 = PAGE_BYTES as u32 / 4;

/// The array.
#[derive(Debug)]
pub struct Table {
    root: Option<(u32, u32)>,
    capacity: u32,
}

impl Table {
    /// An array of `capacity` words, each 0; of none, if there is no memory for the root.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, capacity: u32) -> Table {
        let pages = capacity.div_ceil(LEAF_WORDS).div_ceil(ROOT_PAGE_LEAVES).max(1);
        let root = cpu.allocate_essential_run(pages).map(|first| (first, pages));
        if let Some((first, pages)) = root {
            cpu.ram().span(first, pages).clear();
        }
        Table { root, capacity: if root.is_some() { capacity } else { 0 } }
    }

    /// How many words it may have.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A word.
    pub fn get<M: Machine>(&self, cpu: &Cpu<'_, M>, index: u32) -> u64 {
        self.leaf(cpu, index).map_or(0, |leaf| leaf.u64((index % LEAF_WORDS) as usize))
    }

    /// Changes a word. False if there is no memory for it.
    pub fn set<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, index: u32, value: u64) -> bool {
        let leaf = self.leaf(cpu, index).or_else(|| self.grow(cpu, index));
        leaf.inspect(|leaf| leaf.set_u64((index % LEAF_WORDS) as usize, value)).is_some()
    }

    /// Gives all memory back.
    pub fn release<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) {
        let Some((first, pages)) = self.root.take() else { return };
        let root = cpu.ram().span(first, pages);
        for leaf in 0..self.capacity.div_ceil(LEAF_WORDS) {
            let gfn = root.u32(leaf as usize);
            if gfn != 0 {
                cpu.free(gfn);
            }
        }
        (first..first + pages).for_each(|gfn| cpu.free(gfn));
        self.capacity = 0;
    }

    fn root<M: Machine>(&self, cpu: &Cpu<'_, M>) -> Option<Span> {
        self.root.map(|(first, pages)| cpu.ram().span(first, pages))
    }

    fn leaf<M: Machine>(&self, cpu: &Cpu<'_, M>, index: u32) -> Option<Span> {
        let gfn = self.root(cpu)?.u32((index / LEAF_WORDS) as usize);
        (gfn != 0).then(|| cpu.ram().page(gfn))
    }

    fn grow<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, index: u32) -> Option<Span> {
        if index >= self.capacity {
            return None;
        }
        let root = self.root(cpu)?;
        let gfn = cpu.allocate()?;
        let leaf = cpu.ram().page(gfn);
        leaf.clear();
        root.set_u32((index / LEAF_WORDS) as usize, gfn);
        Some(leaf)
    }
}
