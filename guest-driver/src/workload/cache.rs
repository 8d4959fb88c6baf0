//! Reading files through a page cache of *clean* pages: what the host may have back at any moment.
//!
//! A page that is asked for is pinned if it is still there, and verified; otherwise it is allocated and
//! "read", that is, computed. The files of the first half are the same in every guest.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::{self, Identity, Texture};
use crate::set::common_identity;
use crate::table::Table;
use crate::workload::work::{STEP_PAGES, Work, space};

/// Most pages of files: keys have 24 bits for them.
const FILE_PAGES_MAX: u32 = 1 << 24;

/// The files, and where their pages are or were.
#[derive(Debug)]
pub struct Cache {
    places: Table,
    next: u32,
}

impl Cache {
    /// Files of so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32) -> Cache {
        let pages = cpu.share(permille).min(FILE_PAGES_MAX);
        Cache { places: Table::new(cpu, pages), next: 0 }
    }

    /// Checks a page that is in the cache; false if it is not.
    fn verify_cached<M: Machine>(&self, cpu: &mut Cpu<'_, M>, index: u32) -> bool {
        let (gfn, key) = (self.places.get(cpu, index) as u32, cpu.key(index));
        let there = gfn != 0 && cpu.pin(gfn, key);
        if there {
            let right = page::verify(cpu.ram().page(gfn), &self.identity(cpu, index));
            cpu.checked(gfn, right);
            cpu.unpin(gfn);
        }
        there
    }

    fn read<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, index: u32) {
        if self.verify_cached(cpu, index) {
            return;
        }
        let key = cpu.key(index);
        // The place first: a page that nobody could find again would be lost to the check at the end.
        if !self.places.set(cpu, index, 0) {
            return;
        }
        if let Some(gfn) = cpu.allocate_clean(key) {
            page::fill(cpu.ram().page(gfn), &self.identity(cpu, index));
            cpu.unpin(gfn);
            self.places.set(cpu, index, u64::from(gfn));
        }
    }

    /// Reads the next `pages` pages of the files, in order, and begins anew at their end.
    pub fn read_on<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, pages: u32) {
        for _ in 0..pages.min(self.places.capacity()) {
            self.read(cpu, self.next);
            self.next = (self.next + 1) % self.places.capacity();
        }
    }

    fn identity<M: Machine>(&self, cpu: &Cpu<'_, M>, index: u32) -> Identity {
        if index < self.places.capacity() / 2 {
            return common_identity(cpu, space::CACHE, index);
        }
        Identity {
            seed: cpu.boot().seed,
            owner: cpu.boot().guest,
            version: 0,
            address: cpu.address(space::CACHE, index),
            texture: Texture::Half,
        }
    }
}

impl<M: Machine> Work<M> for Cache {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        let pages = self.places.capacity();
        if pages == 0 {
            cpu.park(5);
            return;
        }
        // Half of the reads go through the files in order, half go back to popular pages.
        for _ in 0..STEP_PAGES / 2 {
            self.read_on(cpu, 1);
            let popular = cpu.rng.zipf_below(pages);
            self.read(cpu, popular);
        }
        cpu.operated(u64::from(STEP_PAGES));
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        for index in 0..self.places.capacity() {
            self.verify_cached(cpu, index);
        }
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.places.release(cpu);
    }
}
