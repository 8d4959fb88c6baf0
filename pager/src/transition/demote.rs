//! Down the tiers.
//!
//! ```text
//!   Private --protect, read--+-- as it was loaded from the image ----> Clean
//!                            +-- one pattern -----------------------> Zero, or Compressed: the pattern is in the entry
//!                            +-- compresses by lz4, or else by zstd,
//!                            |   and the pool has room -------------> Compressed
//!                            +-- noise, and to be spared -----------> Private, incompressible, with lives
//!                            +-- staged --- written ----------------> Swapped
//!                            +-- no file, file full, write failed --> Private, incompressible
//!
//!   Compressed --decompress, staged --- written --------------------> Swapped              (write_back)
//! ```
//!
//! Pages on their way to the file stay locked and protected until it has them, and are discarded only then. Reads of them go on;
//! a write waits, and calls the page's departure off.

use std::io;

use super::{Error, FILLED, Pages};
use crate::tiers::squeeze::{QUICK_BYTES, Squeeze, is_noise, quickly};
use wire::{Gfn, PageBytes, Run, runs};

use crate::{
    entry::{Entry, State},
    mapping::Mapping,
    rules::victims::{LIVES_NOISE, LIVES_WRITTEN},
    sync::lock,
    sys::PageBuffer,
    tiers::{
        pool::{Codec, SLAB_PAGES},
        swap::Swap,
    },
};

/// Pages between two that go, at most, over which protection is stretched: a block of the hand's.
const GAP_MAX: u32 = 32;

/// What became of pages to be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Pages compressed, found filled with one pattern, found zero, or written to the swap file.
    pub evicted: u32,
    /// Pages that stay because they do not compress, and no swap file takes them.
    pub incompressible: u32,
}

/// What becomes of a page that does not compress while there is a swap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// It stays the first time it is found so, with [`LIVES_NOISE`]: writing it and its return cost several times what they cost a page of the pool.
    Spared,
    /// It goes to the file.
    Written,
}

/// Pages on their way to the swap file, one write's worth. They are locked.
pub struct Staging {
    pages: Vec<(Gfn, Entry)>,
    buffer: PageBuffer,
    pub(super) squeeze: Squeeze,
}

/// What became of a staged page.
enum Fate {
    /// It is in this slot of the file.
    Written(u64),
    /// It is in the file, but a thread of the guest waits for it.
    Wanted,
    /// It is not in the file.
    Kept,
}

impl Staging {
    /// Room for `pages` pages, at least one.
    pub fn new(pages: usize) -> io::Result<Staging> {
        let squeeze = Squeeze::new()?;
        Ok(Staging { pages: Vec::with_capacity(pages), buffer: PageBuffer::new(pages)?, squeeze })
    }

    /// Where the bytes of the next page go.
    pub(super) fn next(&mut self) -> &mut PageBytes {
        self.buffer.page_mut(self.pages.len())
    }

    /// The next page's bytes, and what compresses them.
    pub(super) fn next_and_squeeze(&mut self) -> (&PageBytes, &mut Squeeze) {
        (self.buffer.page(self.pages.len()), &mut self.squeeze)
    }

    fn is_full(&self) -> bool {
        self.pages.len() == self.buffer.pages()
    }

    /// Writes what is staged, and says of each page, in order, what became of it; empty afterwards.
    fn write(&mut self, swap: &Swap, now_ms: u64, wanted: impl Fn(Gfn) -> bool) -> Vec<(Gfn, Entry, Fate)> {
        let gfns: Vec<_> = self.pages.iter().map(|&(gfn, _)| gfn).collect();
        let mut fates: Vec<_> = self.pages.drain(..).map(|(gfn, entry)| (gfn, entry, Fate::Kept)).collect();
        swap.write(&gfns, &self.buffer, now_ms, |index, slot| {
            fates[index].2 = if wanted(gfns[index]) {
                swap.free(slot);
                Fate::Wanted
            } else {
                Fate::Written(slot)
            };
        });
        fates
    }
}

impl<M: Mapping> Pages<M> {
    /// Evicts private pages, all of `gfns` (which ascend) that are private and not in motion.
    pub fn evict(&self, gfns: &[Gfn], noise: Noise, staging: &mut Staging) -> Result<Evicted, Error> {
        let mut outcome = Evicted::default();
        let locked = gfns.iter().filter_map(|&gfn| self.lock_one_private(gfn)).collect::<Vec<_>>();
        let victims = locked.iter().map(|&(gfn, _)| gfn).collect::<Vec<_>>();
        if let Err((gfn, source)) = self.protect_all(&victims) {
            victims.iter().for_each(|&gfn| self.unlock(gfn, Entry::private(), Entry::private()));
            return Err(Error::Kernel { action: "protecting", gfn, source });
        }
        let mut stored = Vec::with_capacity(locked.len());
        for (gfn, was) in locked {
            if staging.is_full() {
                self.evict_staged(staging, &mut outcome)?;
            }
            self.mapping.read(gfn, staging.next());
            let (page, squeeze) = staging.next_and_squeeze();
            let clean = self.image.as_ref().is_some_and(|image| image.holds(gfn, page));
            let clean = clean.then(|| Entry::clean(self.now()));
            match clean.or_else(|| self.store(gfn, page)).or_else(|| self.store_densely(gfn, page, squeeze)) {
                Some(entry) => stored.push((gfn, entry)),
                None if self.swap_usable() && (noise == Noise::Written || was.incompressible()) => {
                    staging.pages.push((gfn, Entry::private()));
                }
                None => {
                    let lives = if self.swap_usable() { LIVES_NOISE } else { 0 };
                    self.keep(gfn, Entry::private_with(lives).into_incompressible(), &mut outcome)?;
                }
            }
        }
        self.give_away(stored, &mut outcome)?;
        self.evict_staged(staging, &mut outcome)?;
        Ok(outcome)
    }

    /// Protects locked pages, which ascend, in as few calls as possible: each interrupts all CPUs that run the guest, for their TLBs.
    ///
    /// Pages that are away may lie in between: protection leaves the mark on them that they have anyhow. One of them that comes back
    /// meanwhile may be protected by mistake, which costs its next write a fault.
    fn protect_all(&self, gfns: &[Gfn]) -> Result<(), (Gfn, io::Error)> {
        let joined = |&a: &Gfn, &b: &Gfn| b.0 - a.0 <= GAP_MAX && (a.0 + 1..b.0).map(Gfn).all(|gfn| self.is_away(gfn));
        for span in gfns.chunk_by(joined) {
            let run = Run { first: span[0], count: span[span.len() - 1].0 - span[0].0 + 1 };
            // It fails where the mapping of a page in between is being replaced: then one by one.
            let victims = || runs(span.iter().copied()).try_for_each(|run| self.mapping.protect(run));
            self.mapping.protect(run).or_else(|_| victims()).map_err(|source| (run.first, source))?;
        }
        Ok(())
    }

    fn evict_staged(&self, staging: &mut Staging, outcome: &mut Evicted) -> Result<(), Error> {
        let Some(swap) = &self.swap else { return Ok(()) };
        let mut stored = Vec::with_capacity(staging.pages.len());
        for (gfn, _, fate) in staging.write(swap, self.counters.now_ms(), |gfn| self.table.peek(gfn).waiters()) {
            match fate {
                Fate::Written(slot) => stored.push((gfn, Entry::swapped(slot, self.now()))),
                Fate::Wanted => self.keep(gfn, Entry::private_with(LIVES_WRITTEN), outcome)?,
                Fate::Kept => self.keep(gfn, Entry::private().into_incompressible(), outcome)?,
            }
        }
        self.give_away(stored, outcome)
    }

    /// A protected page stays private after all.
    fn keep(&self, gfn: Gfn, entry: Entry, outcome: &mut Evicted) -> Result<(), Error> {
        outcome.incompressible += u32::from(entry.incompressible());
        let unprotected = self.mapping.unprotect(gfn.run());
        self.unlock(gfn, Entry::private(), entry);
        unprotected.map_err(|source| Error::Kernel { action: "unprotecting", gfn, source })
    }

    /// Private pages, ascending, whose content is safe elsewhere go.
    fn give_away(&self, stored: Vec<(Gfn, Entry)>, outcome: &mut Evicted) -> Result<(), Error> {
        let Some(&(gfn, _)) = stored.first() else { return Ok(()) };
        let runs: Vec<_> = runs(stored.iter().map(|&(gfn, _)| gfn)).collect();
        self.mapping.discard_all(&runs).map_err(|source| Error::Kernel { action: "evicting", gfn, source })?;
        outcome.evicted += stored.len() as u32;
        for (gfn, entry) in stored {
            self.unlock(gfn, Entry::private(), entry);
        }
        Ok(())
    }

    /// Puts a page's content into the cheapest tier that takes it and is no file.
    pub(crate) fn store(&self, gfn: Gfn, page: &PageBytes) -> Option<Entry> {
        let left = self.now();
        if let Some(pattern) = filled_with(page) {
            let filled = || Entry::compressed(FILLED | u64::from(pattern), left);
            return Some(if pattern == 0 { self.found_zero() } else { filled() });
        }
        let mut buffer = [0; QUICK_BYTES];
        let slot = self.put(gfn, Codec::Lz4, quickly(page, &mut buffer)?)?;
        Some(Entry::compressed(slot, left))
    }

    /// The same for content that [`Pages::store`] does not take.
    fn store_densely(&self, gfn: Gfn, page: &PageBytes, squeeze: &mut Squeeze) -> Option<Entry> {
        if is_noise(page) {
            return None;
        }
        let slot = self.put(gfn, Codec::Zstd, squeeze.densely(page)?)?;
        Some(Entry::compressed(slot, self.now()))
    }

    /// Puts a compressed page into the pool, which pays for a slab if it takes one.
    pub(super) fn put(&self, gfn: Gfn, codec: Codec, bytes: &[u8]) -> Option<u64> {
        let mut pool = lock(&self.pool);
        if pool.needs_slab(codec.length(bytes.len())) {
            self.credits.force(SLAB_PAGES);
        }
        let before = pool.bytes();
        let slot = pool.store(gfn, codec, bytes).ok();
        if slot.is_none() && pool.bytes() == before {
            self.credits.give(SLAB_PAGES);
        }
        slot
    }

    /// Moves pages from the pool to the swap file, all of `gfns` that are in the pool and not in motion. How many went.
    pub fn write_back(&self, gfns: &[Gfn], staging: &mut Staging) -> Result<u32, Error> {
        let Some(swap) = self.swap.as_ref().filter(|_| self.swap_usable()) else { return Ok(0) };
        let mut gone = 0;
        for gfns in gfns.chunks(staging.buffer.pages()) {
            for &gfn in gfns {
                let Some(entry) = self.lock_if(gfn, in_pool) else { continue };
                self.content(gfn, entry, staging.next())?;
                staging.pages.push((gfn, entry));
            }
            for (gfn, entry, fate) in staging.write(swap, self.counters.now_ms(), |gfn| self.table.peek(gfn).waiters())
            {
                let Fate::Written(slot) = fate else {
                    self.unlock(gfn, entry, entry);
                    continue;
                };
                self.free_slot(entry);
                self.unlock(gfn, entry, Entry::swapped(slot, entry.left()));
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Whether there is a swap file that takes pages now.
    pub fn swap_usable(&self) -> bool {
        self.swap.as_ref().is_some_and(|swap| swap.usable(self.counters.now_ms()))
    }
}

/// The page takes room in the pool.
pub(crate) fn in_pool(entry: Entry) -> bool {
    entry.state() == State::Compressed && entry.slot() & FILLED == 0
}

/// The 32-bit pattern that fills the page, if one does.
fn filled_with(page: &PageBytes) -> Option<u32> {
    let first = &page[..4];
    let pattern = u32::from_ne_bytes([first[0], first[1], first[2], first[3]]);
    page.chunks_exact(4).all(|word| word == first).then_some(pattern)
}
