//! Who makes pages go: the hand that goes round RAM, for the evictor thread.
//!
//! A private page with lives left ([`crate::rules::victims`]) loses one as the hand passes, one without goes.
//! Whatever the guest needs soon it faults back in, with lives: reclaim is the probe. A second hand goes
//! round the pages in the pool, those that left longest ago first: they go on to the swap file when the pool
//! has grown too large.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
};

use wire::Gfn;

use crate::{
    mapping::Mapping,
    pages::{
        Error, Evicted, Noise, Pages, Staging,
        table::{Left, Page},
    },
    rules::{stay::Stay, victims::Hand},
    sync::Ordering,
    tiers::library::{Library, Task},
};

/// Pages evicted between two looks at whether that was enough; bounds what the pool may overdraw, see
/// [`crate::accounts::credit::EVICTOR_RESERVE`].
pub const BATCH: usize = 32;
/// Pages the hand passes in one step: a quarter of a small guest, so that a fault waits for no long search.
const STRIDE: u32 = 16_384;
/// Pages a hand of the pool passes in one step, some 20 µs: nobody waits for it.
const GATHER_STRIDE: u32 = 4096;
/// Noise is spared until the hand has passed this part of all pages without winning one: when there is little
/// else, it goes at once.
const NOISE_DIVISOR: u32 = 16;
/// Batches of pages of the pool in a row that are looked at for whether they equal the frame at their
/// address, while half of a batch does: some 3 ms.
const REJOIN_BATCHES: usize = 32;
/// Rounds without a page after which those that did not compress are tried again.
const ROUNDS_UNTIL_RETRY: u32 = 3;
/// With so many credits in hand, memory is not short.
pub const AMPLE_PAGES: i64 = 4096;
/// Pages younger than this many eras stay in the pool, or with the kernel, while there are older ones.
const YOUNG_ERAS: u64 = 2;

/// Why pages are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Memory is short: somebody has to go.
    Short,
    /// Memory is not short, but the guest may not need all it has.
    Proactive,
}

/// What becomes of fresh pages that the scanner has not dealt with yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// They stay: others may have the same, and sharing costs a fraction of compressing and wins more.
    Spared,
    /// They go like all others.
    Evicted,
}

/// Where the hands stand.
pub struct Evictor {
    hand: Hand,
    /// Pages passed since an eviction succeeded.
    barren: u32,
    /// Pages passed since one was spared because it was unseen.
    since_unseen: u32,
    pool_hand: u32,
    /// Pages the pool's hand passed since it found one to write.
    pool_barren: u32,
    /// Where the hand that packs the pool denser stands.
    dense_hand: u32,
    /// And the one that looks for pages of the pool that could be shared.
    rejoin_hand: u32,
    /// And the one that takes pages on from the kernel.
    lent_hand: u32,
    stay: Stay,
    library: Library,
    staging: Staging,
}

impl Evictor {
    /// One for a guest of `pages` pages.
    pub fn new(pages: u32) -> io::Result<Evictor> {
        // Keyed anew for each: guests of a host do not evict in step.
        let seed = RandomState::new().build_hasher().finish();
        Ok(Evictor {
            hand: Hand::new(pages, seed),
            barren: 0,
            since_unseen: u32::MAX,
            pool_hand: 0,
            pool_barren: 0,
            dense_hand: 0,
            rejoin_hand: 0,
            lent_hand: 0,
            stay: Stay::default(),
            library: Library::new(pages),
            staging: Staging::new(BATCH)?,
        })
    }

    /// Evicts up to `most` pages, at most [`BATCH`], the next without lives. Fewer when the hand meets few in
    /// [`STRIDE`] steps.
    pub fn evict<M: Mapping>(
        &mut self,
        pages: &Pages<M>,
        need: Need,
        unseen: Unseen,
        most: usize,
    ) -> Result<Evicted, Error> {
        let mut victims = Vec::with_capacity(BATCH);
        let swaps = pages.swap_usable();
        if unseen == Unseen::Evicted {
            self.since_unseen = u32::MAX;
        }
        for _ in 0..STRIDE.min(pages.table.pages()) {
            let gfn = self.hand.step();
            let page = pages.table.peek(gfn).decode();
            if unseen == Unseen::Spared && matches!(page, Page::Private { unseen: true, .. }) {
                self.since_unseen = 0;
                continue;
            }
            self.since_unseen = self.since_unseen.saturating_add(1);
            let awaits_scanner = self.awaits_scanner(pages);
            self.barren += u32::from(need == Need::Short && !awaits_scanner);
            if self.barren / pages.table.pages() >= ROUNDS_UNTIL_RETRY + 2 {
                self.barren -= 2 * pages.table.pages();
            }
            let Page::Private { lives, incompressible, lent: None, .. } = page else { continue };
            if lives > 0 && awaits_scanner {
                continue;
            }
            // Once round without a page, lives count no more; from three times round on, pages that would not
            // compress are tried again every other time: they may have changed since. They stay marked
            // meanwhile, for `rules::floor`.
            let counts = lives > 0 && self.barren <= pages.table.pages();
            let rounds = self.barren / pages.table.pages();
            let is_retried = rounds >= ROUNDS_UNTIL_RETRY && (rounds - ROUNDS_UNTIL_RETRY).is_multiple_of(2);
            let stays = incompressible && !swaps && !is_retried;
            if counts || stays || need == Need::Proactive && lives > 0 {
                pages.cool(gfn);
                continue;
            }
            victims.push(gfn);
            if victims.len() == BATCH.min(most) {
                break;
            }
        }
        victims.sort_unstable();
        let is_barren = self.barren > pages.table.pages() / NOISE_DIVISOR;
        let noise = if is_barren { Noise::Written } else { Noise::Spared };
        let outcome = pages.evict(&victims, noise, &mut self.staging)?;
        if outcome.evicted > 0 {
            self.barren = 0;
        }
        pages.counters.evictions_total.fetch_add(u64::from(outcome.evicted), Ordering::Relaxed);
        if need == Need::Proactive {
            pages.counters.evictions_proactive_total.fetch_add(u64::from(outcome.evicted), Ordering::Relaxed);
        }
        pages.counters.incompressible_total.fetch_add(u64::from(outcome.incompressible), Ordering::Relaxed);
        Ok(outcome)
    }

    /// Whether pages are being spared because the scanner has not dealt with them yet. Meanwhile no page
    /// loses a life.
    pub fn awaits_scanner<M: Mapping>(&self, pages: &Pages<M>) -> bool {
        self.since_unseen < pages.table.pages()
    }

    /// Packs up to [`BATCH`] pages that are lent to the kernel, densely, or writes them to the swap file:
    /// those that have been lent for a while, or any if memory is short. How many went.
    pub fn pack_lent<M: Mapping>(&mut self, pages: &Pages<M>, need: Need) -> Result<u32, Error> {
        if pages.table.lent() == 0 {
            return Ok(0);
        }
        let era = pages.counters.era();
        let mut lent = gather(&mut self.lent_hand, pages.table.pages(), |gfn| {
            pages.table.peek(gfn).lent().is_some_and(|lent| !is_young(lent, era) || need == Need::Short)
        });
        lent.sort_unstable();
        pages.pack_lent(&lent, &mut self.staging)
    }

    /// Moves up to [`BATCH`] pages from the pool to the swap file, old ones first. How many went.
    pub fn write_back<M: Mapping>(&mut self, pages: &Pages<M>) -> Result<u32, Error> {
        let (era, barren) = (pages.counters.era(), &mut self.pool_barren);
        let victims = gather(&mut self.pool_hand, pages.table.pages(), |gfn| {
            *barren = barren.saturating_add(1);
            let entry = pages.table.peek(gfn);
            entry.is_pooled() && (!is_young(entry.left(), era) || *barren > pages.table.pages())
        });
        let gone = pages.write_back(&victims, &mut self.staging)?;
        if gone > 0 {
            self.pool_barren = 0;
        }
        Ok(gone)
    }

    /// Has pages of the pool be shared, packs up to [`BATCH`] of them denser, of those that have been there
    /// for a while, or of all if memory is short, or reads frames that they may resemble, and empties a slab
    /// that is nearly so. Whether there is more to gain at once.
    pub fn tidy<M: Mapping>(&mut self, pages: &Pages<M>, need: Need) -> Result<bool, Error> {
        let now_ms = pages.counters.now_ms();
        self.library.expire(now_ms);
        if need == Need::Short {
            self.library.refresh(now_ms);
        }
        // Dense, they take less room, but cost several times as much to bring back.
        let packs = need == Need::Short || self.stays_long(pages);
        let is_ample = pages.credits.available() >= AMPLE_PAGES;
        let onwards = if is_ample || !packs { 0 } else { self.pack_lent(pages, Need::Proactive)? };
        if pages.table.counts().compressed == 0 {
            return Ok(onwards >= BATCH as u32 / 2);
        }
        pages.undo_lonely(&mut self.staging)?;
        let rejoined = self.rejoin(pages)?;
        let (last, era) = (self.dense_hand, pages.counters.era());
        let stayed = |gfn| {
            let entry = pages.table.peek(gfn);
            let is_loose = matches!(entry.decode(), Page::Pooled { packed: false, .. });
            is_loose && (!is_young(entry.left(), era) || need == Need::Short)
        };
        let stayed = if packs { gather(&mut self.dense_hand, pages.table.pages(), stayed) } else { Vec::new() };
        let task = (!stayed.is_empty()).then(|| self.library.task(now_ms));
        let is_reading = matches!(task, Some(Task::Read(_)));
        let packed = match task {
            None => 0,
            Some(Task::Pack) => pages.recompress(&stayed, &mut self.staging, &mut self.library)?,
            Some(Task::Read(first)) => {
                // The pages are found again once all frames have been read.
                self.dense_hand = last;
                pages.read_frames(first, &mut self.library);
                0
            }
        };
        let moved = pages.compact();
        pages.counters.pool_packed_total.fetch_add(u64::from(packed), Ordering::Relaxed);
        pages.counters.pool_moved_total.fetch_add(u64::from(moved), Ordering::Relaxed);
        Ok(is_reading || onwards + rejoined + packed >= BATCH as u32 / 2)
    }

    /// Whether what the kernel brings back at its price stays there long enough for ours to be worth it.
    fn stays_long<M: Mapping>(&mut self, pages: &Pages<M>) -> bool {
        let returns = pages.counters.promotions_total.load(Ordering::Relaxed);
        let away = pages.table.lent() + pages.table.counts().compressed;
        !pages.kernel.exists() || self.stay.is_long(pages.counters.now_ms(), returns, away)
    }

    /// Has pages of the pool share the frames at their addresses that they equal: one batch, and more while
    /// that pays.
    fn rejoin<M: Mapping>(&mut self, pages: &Pages<M>) -> Result<u32, Error> {
        let mut rejoined = 0;
        for _ in 0..REJOIN_BATCHES {
            let mut found = gather(&mut self.rejoin_hand, pages.table.pages(), |gfn| pages.may_rejoin(gfn));
            found.sort_unstable();
            let equal = pages.rejoin(&found)?.len() as u32;
            rejoined += equal;
            if equal < BATCH as u32 / 2 {
                break;
            }
        }
        Ok(rejoined)
    }

    /// Twice round the pool's pages without one that could be written.
    pub fn nothing_to_write_back<M: Mapping>(&self, pages: &Pages<M>) -> bool {
        self.pool_barren > 2 * pages.table.pages()
    }

    /// Three times round without a page: there is nothing to evict.
    pub fn exhausted<M: Mapping>(&self, pages: &Pages<M>) -> bool {
        self.barren > 3 * pages.table.pages()
    }
}

/// Up to [`BATCH`] of the next pages that are wanted, of as many as a hand passes in one step; `hand` goes
/// round all `pages`.
fn gather(hand: &mut u32, pages: u32, mut wanted: impl FnMut(Gfn) -> bool) -> Vec<Gfn> {
    let mut found = Vec::with_capacity(BATCH);
    for _ in 0..GATHER_STRIDE.min(pages) {
        let gfn = Gfn(*hand);
        *hand = (*hand + 1) % pages;
        if wanted(gfn) {
            found.push(gfn);
            if found.len() == BATCH {
                break;
            }
        }
    }
    found
}

/// Whether a page left only lately.
fn is_young(left: Left, era: u64) -> bool {
    era.wrapping_sub(left.era) & 0b11 < YOUNG_ERAS
}
