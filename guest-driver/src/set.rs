//! A set of pages, and what each of them must contain.
//!
//! For every page the set keeps its gfn and a *tag*, out of which, with the set's [`Rule`], comes the
//! identity that the page must have. So a page that is stale, or another's, is found out however sound it
//! looks by itself.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::{self, Identity, OWNER_COMMON, Texture};
use crate::rng::mix;
use crate::table::Table;

/// Tag of a page that is all zero.
pub const ZERO: u32 = 0;

/// How tags become identities. `space` tells the sets of a vCPU apart.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Pages of this guest's own; the tag is the version.
    Own {
        /// Which set.
        space: u16,
        /// Which life of the set: its pages differ from those of the lives before.
        generation: u16,
        /// Kind of content.
        texture: Texture,
    },
    /// Content that every guest has; the tag is its number, from 1.
    Common {
        /// Which set.
        space: u16,
    },
}

/// The pages.
#[derive(Debug)]
pub struct Set {
    table: Table,
    len: u32,
    rule: Rule,
}

impl Set {
    /// An empty set that can grow to `capacity` pages.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, capacity: u32, rule: Rule) -> Set {
        Set { table: Table::new(cpu, capacity), len: 0, rule }
    }

    /// Pages in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the set has no page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the set has as many pages as it may.
    pub fn is_full(&self) -> bool {
        self.len >= self.table.capacity()
    }

    /// Adds a page. False if the set is full or memory is.
    pub fn push<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, tag: u32) -> bool {
        if self.is_full() {
            return false;
        }
        let Some(gfn) = cpu.allocate() else { return false };
        if !self.table.set(cpu, self.len, slot(gfn, tag)) {
            cpu.free(gfn);
            return false;
        }
        self.len += 1;
        self.write(cpu, self.len - 1, tag);
        true
    }

    /// As [`Set::push`], for a set that is needed whole: when memory is out, the balloon gives some back, if
    /// it may.
    pub fn push_needed<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, tag: u32) -> bool {
        loop {
            if self.push(cpu, tag) {
                return true;
            }
            if self.is_full() || !cpu.relief() {
                return false;
            }
        }
    }

    /// As [`Set::push`], for a set without which there is nothing to do: waits for the balloon for as long as
    /// it takes.
    pub fn push_patiently<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, tag: u32) -> bool {
        loop {
            if self.push_needed(cpu, tag) {
                return true;
            }
            if self.is_full() || cpu.boot().balloon == 0 || cpu.stopping() {
                return false;
            }
            cpu.poll();
        }
    }

    /// Where a page is, and its tag.
    pub fn page<M: Machine>(&self, cpu: &Cpu<'_, M>, index: u32) -> (u32, u32) {
        let slot = self.table.get(cpu, index);
        (slot as u32, (slot >> 32) as u32)
    }

    /// Gives a page another content.
    pub fn write<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, index: u32, tag: u32) {
        let (gfn, _) = self.page(cpu, index);
        let page = cpu.ram().page(gfn);
        match self.identity(cpu, index, tag) {
            Some(identity) => page::fill(page, &identity),
            None => page.clear(),
        }
        self.table.set(cpu, index, slot(gfn, tag));
    }

    /// Reads a page and checks it.
    pub fn verify<M: Machine>(&self, cpu: &mut Cpu<'_, M>, index: u32) {
        let (gfn, tag) = self.page(cpu, index);
        let page = cpu.ram().page(gfn);
        let right = match self.identity(cpu, index, tag) {
            Some(identity) => page::verify(page, &identity),
            None => page.is_clear(),
        };
        cpu.checked(gfn, right);
    }

    /// Checks a page and writes its next version.
    pub fn rewrite<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>, index: u32) {
        self.verify(cpu, index);
        let (_, tag) = self.page(cpu, index);
        self.write(cpu, index, tag.wrapping_add(1).max(1));
    }

    /// Checks some page.
    pub fn verify_any<M: Machine>(&self, cpu: &mut Cpu<'_, M>) {
        if !self.is_empty() {
            let index = cpu.rng.below(self.len);
            self.verify(cpu, index);
        }
    }

    /// Checks all pages.
    pub fn verify_all<M: Machine>(&self, cpu: &mut Cpu<'_, M>) {
        (0..self.len).for_each(|index| self.verify(cpu, index));
    }

    /// Takes the last page out and frees it.
    pub fn pop<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) {
        if self.len > 0 {
            self.len -= 1;
            let (gfn, _) = self.page(cpu, self.len);
            cpu.free(gfn);
        }
    }

    /// Frees all pages and the set's books.
    pub fn release<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) {
        while self.len > 0 {
            self.pop(cpu);
        }
        self.table.release(cpu);
    }

    fn identity<M: Machine>(&self, cpu: &Cpu<'_, M>, index: u32, tag: u32) -> Option<Identity> {
        if tag == ZERO {
            return None;
        }
        Some(match self.rule {
            Rule::Own { space, generation, texture } => Identity {
                seed: cpu.boot().seed,
                owner: cpu.boot().guest,
                version: u32::from(generation) << 16 ^ tag,
                address: cpu.address(space, index),
                texture,
            },
            Rule::Common { space } => common_identity(cpu, space, tag),
        })
    }
}

/// Content number `number` of the common pages of a space: like a kernel's text, data and packed data by
/// turns.
pub fn common_identity<M: Machine>(cpu: &Cpu<'_, M>, space: u16, number: u32) -> Identity {
    let address = cpu.address(space, number);
    let texture = match mix(address) % 10 {
        0..5 => Texture::Text,
        5..8 => Texture::Half,
        _ => Texture::Random,
    };
    Identity { seed: cpu.boot().seed, owner: OWNER_COMMON, version: 0, address, texture }
}

fn slot(gfn: u32, tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(gfn)
}
