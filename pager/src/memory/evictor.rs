//! The evictor thread: keeps credits in hand, serves faults that had none, and tidies up when nobody waits.

use std::time::{Duration, Instant};

use control::sync;

use super::{Failure, GuestMemory};
use crate::{
    memory::{
        hands::{AMPLE_PAGES, BATCH, Evictor, Need, Unseen},
        sampler::Sampler,
    },
    rules::{proactive::Proactive, reach::AHEAD_MAX},
    sync::{Ordering, lock},
    sys::{PageBuffer, Precedence, RunQueue, RunTimes, ThreadClock},
    tiers::swap::Swap,
};

/// Credits the evictor keeps in hand: what a burst of faults takes while one batch is evicted.
const WATERMARK_PAGES: i64 = 192;
/// Below this many it begins to work.
pub(super) const LOW_PAGES: i64 = 96;
/// Open pages that are closed at a time when credits run short: 0.2 µs each, while faults may wait.
const CLOSE_PAGES: i64 = 4096;
/// How often the evictor looks at the credits unasked; a fault that leaves few wakes it.
const EVICTOR_INTERVAL: Duration = Duration::from_millis(50);
/// How often it looks with ample credits left; a fault without one wakes it anyway.
const AMPLE_INTERVAL: Duration = Duration::from_secs(4);
/// How often it looks at the credits while pages may come back without asking for one: so that hardly more
/// than the credits in hand come back meanwhile, within these bounds.
const LENT_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// Lent pages that have come back are looked for when one in so many of those in memory went and one in so
/// many of all, or so much time passed. A look costs some 20 ns for each page of RAM: as much as evicting one
/// in a thousand.
const RETURNS_DIVISOR: u64 = 4;
const RETURNS_ALL_DIVISOR: u64 = 64;
const RETURNS_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks for pages to evict before memory is short, if it is to.
const PROACTIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks while faults wait for credits that eviction does not yield.
const STARVING_INTERVAL: Duration = Duration::from_millis(2);
/// How long the evictor waits for the scanner to win it a page, before fresh ones are compressed unseen; and
/// for how long they then are.
const SCANNER_PATIENCE: Duration = Duration::from_millis(250);
const SCANNER_WORN: Duration = Duration::from_secs(2);
/// Others run before the evictor when nobody has waited for it for so long: whoever fills fresh memory asks
/// it for a page all the time.
const YIELDING_AFTER: Duration = Duration::from_secs(1);
/// How often freed room is given back to the disk: what is freed meanwhile goes in one batch.
const DISCARD_INTERVAL: Duration = Duration::from_secs(1);
/// How often a batch of the pool's pages is packed denser: some 0.5 ms, 1 % of a CPU; and while the last
/// batch was worth it.
const TIDY_INTERVAL: Duration = Duration::from_millis(50);
const TIDY_INTERVAL_GAINFUL: Duration = Duration::from_millis(10);
/// Where the thread has waited for a CPU for more than so many times as long as it ran, others need it more.
/// It is twice as long until the next batch then, up to the longest: a page that is packed wins some 300
/// bytes for 65 µs, and must lie in the pool for minutes to be worth that.
const TIDY_CONTENDED: u32 = 4;
const TIDY_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Most of what is not overhead that the pool may take while there is a swap file: half. Beyond it, pages
/// that nobody has asked for in a long time would take room from pages in use. An estimate.
const POOL_SHARE_DIVISOR: u64 = 2;

/// When the pool is packed denser: by what that wins, and as long as nobody else wants the CPU.
struct Tidying {
    run_queue: RunQueue,
    /// As of the last turn.
    times: Option<RunTimes>,
    ended: Instant,
    interval: Duration,
}

impl Tidying {
    /// By the calling thread.
    fn new() -> Tidying {
        let run_queue = RunQueue::this();
        Tidying { times: run_queue.read(), run_queue, ended: Instant::now(), interval: TIDY_INTERVAL }
    }

    fn is_due(&self) -> bool {
        self.ended.elapsed() > self.interval
    }

    /// A batch has been packed; `gainful`: it was worth it.
    fn packed(&mut self, gainful: bool) {
        self.ended = Instant::now();
        self.interval = if self.is_contended(self.run_queue.read()) {
            (self.interval * 2).min(TIDY_INTERVAL_MAX)
        } else if gainful {
            TIDY_INTERVAL_GAINFUL
        } else {
            TIDY_INTERVAL
        };
    }

    /// Whether the thread had to wait for a CPU since it was asked last.
    fn is_contended(&mut self, times: Option<RunTimes>) -> bool {
        let last = std::mem::replace(&mut self.times, times);
        let both = self.times.zip(last);
        both.is_some_and(|(now, last)| {
            now.waited.saturating_sub(last.waited) > now.ran.saturating_sub(last.ran) * TIDY_CONTENDED
        })
    }
}

/// How often the credits are looked at while pages are lent to the kernel.
struct Watch {
    interval: Duration,
    returns_at: Instant,
    evictions: u64,
}

impl Watch {
    fn new() -> Watch {
        Watch { interval: EVICTOR_INTERVAL, returns_at: Instant::now(), evictions: 0 }
    }

    /// After a pause so many credits were left.
    fn paused(&mut self, credits: i64) {
        self.interval = match credits {
            ..LOW_PAGES => (self.interval / 2).max(LENT_INTERVAL_MIN),
            LOW_PAGES..WATERMARK_PAGES => self.interval,
            _ => (self.interval * 2).min(EVICTOR_INTERVAL),
        };
    }

    /// Whether to look for pages that have come back: of `here` pages in memory and `all` pages, after
    /// `evictions` in all.
    fn is_due(&mut self, evictions: u64, here: u64, all: u64) -> bool {
        let enough = here / RETURNS_DIVISOR + all / RETURNS_ALL_DIVISOR;
        let due = evictions - self.evictions > enough || self.returns_at.elapsed() > RETURNS_INTERVAL;
        if due {
            (self.returns_at, self.evictions) = (Instant::now(), evictions);
        }
        due
    }
}

/// With the scanner.
#[derive(Default)]
struct Patience {
    waits_since: Option<Instant>,
    worn_at: Option<Instant>,
}

impl Patience {
    /// Room was won, or none is needed: the scanner is not waited for.
    fn gained(&mut self) {
        self.waits_since = None;
    }

    /// There is nothing to be won but by the scanner.
    fn wait(&mut self) {
        let now = Instant::now();
        if now - *self.waits_since.get_or_insert(now) > SCANNER_PATIENCE {
            (self.waits_since, self.worn_at) = (None, Some(now));
        }
    }

    /// Whether fresh pages are to go unseen.
    fn is_worn(&self) -> bool {
        self.worn_at.is_some_and(|at| at.elapsed() < SCANNER_WORN)
    }
}

impl GuestMemory {
    pub(super) fn run_evictor(&self) -> Result<(), Failure> {
        _ = self.evict_clock.set(ThreadClock::this()?);
        let (mut hands, mut sampler) = (Evictor::new(self.pages.count())?, Sampler::default());
        let (mut last_discard, mut tidying) = (Instant::now(), Tidying::new());
        let (mut proactive, mut patience, mut watch) = (None, Patience::default(), Watch::new());
        let mut buffer = PageBuffer::new(AHEAD_MAX)?;
        // With a kernel tier, guests wait for this thread at first only: what comes back is there at once. A
        // vCPU that is kept from its CPU meanwhile waits longer than for a page.
        let mut precedence = Precedence::ordinary(self.pages.kernel.exists());
        let mut waited_at = Instant::now();
        while !self.stopping.load(Ordering::Acquire) {
            self.pages.counters.tick(self.start);
            self.wait_clock.tick(Instant::now());
            if !self.nobody_waits() {
                waited_at = Instant::now();
            }
            precedence.yields(waited_at.elapsed() > YIELDING_AFTER);
            self.note_relief()?;
            watch.paused(self.pages.credits.available());
            let progress = self.make_room(&mut hands, &mut patience, &mut watch)?;
            let starving = !self.serve_waiting(&mut buffer)?;
            self.reclaim_proactively(&mut proactive, &mut hands)?;
            if starving && progress {
                continue;
            }
            if !starving && last_discard.elapsed() > DISCARD_INTERVAL {
                last_discard = Instant::now();
                self.pages.swap.iter().for_each(Swap::discard_freed);
            }
            // While faults wait and nothing can be evicted, a denser pool is the only room there is.
            if starving || tidying.is_due() {
                let need = if starving { Need::Short } else { Need::Proactive };
                tidying.packed(hands.tidy(&self.pages, need)?);
            }
            let interval = match () {
                () if starving => STARVING_INTERVAL,
                () if self.pages.table.lent() > 0 => watch.interval.min(self.sample(&mut sampler)?),
                () if self.proactive.load(Ordering::Relaxed) && self.pages.credits.available() >= LOW_PAGES => {
                    PROACTIVE_INTERVAL.min(self.sample(&mut sampler)?)
                }
                () if tidying.interval < TIDY_INTERVAL => tidying.interval.min(self.sample(&mut sampler)?),
                () if self.pages.credits.available() >= AMPLE_PAGES => AMPLE_INTERVAL.min(self.sample(&mut sampler)?),
                () => EVICTOR_INTERVAL.min(self.sample(&mut sampler)?),
            };
            let waiting = sync::lock(&self.waiting);
            if starving || waiting.is_empty() && self.pages.credits.available() >= LOW_PAGES {
                drop(self.evictor.wait_timeout(waiting, interval));
            }
        }
        Ok(())
    }

    /// Evicts what the allowance of `state` lets go, where that is wished for and nobody waits for memory.
    fn reclaim_proactively(&self, state: &mut Option<Proactive>, hands: &mut Evictor) -> Result<(), Failure> {
        if !self.evict || !self.proactive.load(Ordering::Relaxed) {
            *state = None;
            return Ok(());
        }
        let (now_ms, returns) =
            (self.pages.counters.now_ms(), self.pages.counters.promotions_total.load(Ordering::Relaxed));
        let state = state.get_or_insert_with(|| Proactive::new(now_ms, returns));
        let mut due = state.evictions(now_ms, returns, self.pages.table.here()) as usize;
        while due > 0 && self.nobody_waits() && !self.stopping.load(Ordering::Acquire) {
            hands.evict(&self.pages, Need::Proactive, self.unseen(), due)?;
            due = due.saturating_sub(BATCH);
        }
        Ok(())
    }

    /// Samples what is due; returns when something is due next. On the evictor's thread, because it stores
    /// pages in the pool, too.
    fn sample(&self, sampler: &mut Sampler) -> Result<Duration, Failure> {
        let period_ms = self.sample_period_ms.load(Ordering::Relaxed);
        // A guest that is paused would be found to use nothing.
        let due = self.evict && period_ms > 0 && !self.wanted.is_paused();
        let period = due.then(|| Duration::from_millis(period_ms));
        let next = sampler.turn(&self.pages, period)?;
        *sync::lock(&self.sampling) = sampler.status();
        Ok(next)
    }

    /// Evicts until the watermark is reached or nothing more goes; whether anything was gained.
    fn make_room(&self, hands: &mut Evictor, patience: &mut Patience, watch: &mut Watch) -> Result<bool, Failure> {
        self.note_returned(watch)?;
        if self.pages.credits.available() >= LOW_PAGES {
            patience.gained();
            return Ok(true);
        }
        let mut gained = self.pages.close_open(CLOSE_PAGES)? > 0;
        while self.evict && self.pages.credits.available() < WATERMARK_PAGES && !self.stopping.load(Ordering::Acquire) {
            let unseen = if patience.is_worn() { Unseen::Evicted } else { self.unseen() };
            let outcome = hands.evict(&self.pages, Need::Short, unseen, BATCH)?;
            self.note_relief()?;
            self.note_returned(watch)?;
            gained |= outcome.evicted > 0;
            if outcome.evicted > 0 {
                patience.gained();
            } else if hands.awaits_scanner(&self.pages) {
                patience.wait();
                self.hurry.get().iter().for_each(|hurry| hurry());
                break;
            }
            let exhausted = outcome.evicted == 0 && hands.exhausted(&self.pages);
            if exhausted {
                gained |= hands.pack_lent(&self.pages, Need::Short)? > 0;
                self.note_relief()?;
            }
            if exhausted || self.pool_is_large() {
                gained |= hands.write_back(&self.pages)? > 0;
            }
            if exhausted && (!self.pages.swap_usable() || hands.nothing_to_write_back(&self.pages)) {
                break;
            }
            if self.pages.credits.available() > 0 && !self.nobody_waits() {
                break;
            }
        }
        Ok(gained)
    }

    /// Looks which lent pages have come back, if it is time to: the hand then knows which are in use.
    fn note_returned(&self, watch: &mut Watch) -> Result<(), Failure> {
        let (evictions, table) = (self.pages.counters.evictions_total.load(Ordering::Relaxed), &self.pages.table);
        if table.lent() > 0 && watch.is_due(evictions, table.here(), table.pages().into()) {
            self.pages.note_returned()?;
        }
        Ok(())
    }

    /// What becomes of fresh pages while there is patience.
    fn unseen(&self) -> Unseen {
        if self.hurry.get().is_some() { Unseen::Spared } else { Unseen::Evicted }
    }

    /// Whether the pool has outgrown its part of the allocation.
    fn pool_is_large(&self) -> bool {
        let credits = &self.pages.credits;
        let room_bytes = credits.allocation_bytes().saturating_sub(credits.overhead_bytes());
        self.pages.swap_usable() && lock(&self.pages.pool).bytes() > room_bytes / POOL_SHARE_DIVISOR
    }

    pub(super) fn nobody_waits(&self) -> bool {
        sync::lock(&self.waiting).is_empty()
    }

    /// Serves faults that wait, oldest first, while credits last; whether all were.
    fn serve_waiting(&self, buffer: &mut PageBuffer) -> Result<bool, Failure> {
        loop {
            let oldest = sync::lock(&self.waiting).first().copied();
            let Some(waiting) = oldest else { return Ok(true) };
            if !self.try_serve(waiting, buffer)? {
                if self.has_starved(waiting.clock_ms) {
                    return Err(self.starved(waiting.since));
                }
                return Ok(false);
            }
            let mut room = sync::lock(&self.waiting);
            // The thread may have faulted again meanwhile; then its place is that fault's.
            room.retain(|other| (other.event.tid, other.gfn) != (waiting.event.tid, waiting.gfn));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_for_cpus_much_longer_than_it_runs_is_contended() {
        let mut tidying = Tidying::new();
        let times =
            |ran, waited| Some(RunTimes { ran: Duration::from_millis(ran), waited: Duration::from_millis(waited) });
        tidying.is_contended(times(10, 100));
        let told =
            [(20, 100), (30, 140), (40, 181), (40, 181)].map(|(ran, waited)| tidying.is_contended(times(ran, waited)));
        assert_eq!(told, [false, false, true, false]);
        assert!(
            !tidying.is_contended(None) && !tidying.is_contended(times(1, 1000)),
            "kernels without books never are"
        );
    }
}
