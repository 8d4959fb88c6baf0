//! What policy knows: the promises made to a guest, what was measured of it, and the host's side of the
//! ledger.

use crate::means::Means;

/// An allocation grows by this part of the guest's memory a tick (100 ms): 10 % in 640 ms. How fast it
/// shrinks is measured ([`crate::means`]).
pub(crate) const STEP_DIVISOR: u64 = 64;
/// Shares of a guest that nobody gave any.
pub const SHARES_DEFAULT: u32 = 1000;
/// Least memory worth promising: what a small guest needs to boot and answer its balloon.
pub const RESERVATION_BYTES_MIN: u64 = 16 << 20;
/// Least memory a guest keeps from its balloon.
const FLOOR_BYTES_MIN: u64 = 8 << 20;
/// Share of a stalled second that one refault costs, s: a fault through user space and a decompression, on a
/// nested host.
const REFAULT_SECONDS: f64 = 100e-6;
/// A guest that waits less than this share of its time is calm; as good as one can measure in 100 ms.
const PRESSURE_DEAD_BAND: f64 = 0.005;
/// A guest that waits this share of its time is believed to need all that it has used in the past periods.
/// Taking memory from a guest that needs it no more makes it wait a little, too: nobody sees beforehand which
/// pages these are.
const BELIEVED_PRESSURE: f64 = 0.25;
/// Need is counted in sixteenths, in integers, so that allocations are exact.
const NEED_UNIT: u64 = 16;
/// Pressure counts up to this many dead bands (a third of the time): all worse is equally bad.
const NEED_MAX: f64 = 64.0;

/// The levers there are on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Equal pages are shared.
    pub dedup: bool,
    /// Guests have a balloon.
    pub balloon: bool,
    /// Pages are evicted: allocations can be enforced.
    pub pager: bool,
    /// What of its idle memory a guest is charged as if it paid for `1 / (1 − tax)` as much, per cent; at
    /// most 99.
    pub idle_tax_percent: u8,
}

/// ESX's default, per cent.
pub const IDLE_TAX_PERCENT_DEFAULT: u8 = 75;

impl Default for Config {
    fn default() -> Self {
        Self { dedup: true, balloon: true, pager: true, idle_tax_percent: IDLE_TAX_PERCENT_DEFAULT }
    }
}

/// The host's side of the ledger, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// All that guests, frames and upkeep may take.
    pub budget_bytes: u64,
    /// What may be in force for want of anything better while guests cannot be squeezed into a budget that
    /// was lowered: what was in force before. A ceiling below the budget says nothing.
    pub ceiling_bytes: u64,
    /// Frame stores, in use.
    pub frames_bytes: u64,
    /// What the frame stores may grow by until the next tick.
    pub frames_headroom_bytes: u64,
    /// Upkeep that belongs to no guest.
    pub host_overhead_bytes: u64,
}

impl Host {
    /// Taken before any guest gets anything.
    pub(crate) fn set_aside_bytes(&self) -> u64 {
        self.frames_bytes.saturating_add(self.frames_headroom_bytes).saturating_add(self.host_overhead_bytes)
    }
}

/// What a guest was promised, and what was measured of it. `reservation`, `limit` and allocation all include
/// the overhead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuestInput {
    /// RAM as the guest sees it.
    pub memory_bytes: u64,
    /// Its allocation is never below this.
    pub reservation_bytes: u64,
    /// Its allocation is never above this.
    pub limit_bytes: u64,
    /// Weight against the others.
    pub shares: u32,
    /// Fixed cost of its VMM: host memory that is no guest page.
    pub overhead_bytes: u64,
    /// Memory it is never asked for by balloon.
    pub floor_bytes: u64,
    /// It has a balloon.
    pub balloon: bool,
    /// For now it gets no more than this, as somebody reclaims memory from it by hand; none while nobody
    /// does. See [`crate::reclaim`].
    pub cap_bytes: Option<u64>,
    /// Measured since; default before the start.
    pub usage: Usage,
}

/// What was measured of a running guest. Bytes are of now, rates are the caller's moving averages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// In force since the last tick; 0 when there was none.
    pub allocation_bytes: u64,
    /// Asked of the balloon at the last tick.
    pub balloon_bytes: u64,
    /// Upper bound of what it uses now, by its VMM's word.
    pub committed_bytes: u64,
    /// What it uses now.
    pub resident_bytes: u64,
    /// Guest memory that is backed by shared frames.
    pub shared_bytes: u64,
    /// Guest memory that it had touched and that is zero now. Untouched memory does not belong here: it may
    /// be touched at any moment, so it is no saving.
    pub zero_bytes: u64,
    /// Guest memory in the compressed pool, less the pool.
    pub compressed_saved_bytes: u64,
    /// What would be left of it if all that can go went: what neither compresses nor has a swap file to go
    /// to. Below that it could not run at all.
    pub irreducible_bytes: u64,
    /// Share of its time its vCPUs were blocked.
    pub stall_ratio: f64,
    /// Pages that came back soon after their eviction.
    pub refaults_per_second: f64,
    /// Share of its time that it waited for memory lately, small waits remembered for seconds; see
    /// [`crate::restraint::waits`].
    pub waited_ratio: f64,
    /// What of its memory is in use, in bytes of host memory that this takes; none until it has been sampled.
    pub active_bytes: Option<u64>,
    /// What it says that it has free, by its balloon's statistics; 0 if it says nothing. Only the rules of
    /// others believe it.
    pub free_bytes: u64,
    /// What of that was in use lately; see [`crate::active`].
    pub recent_bytes: Option<u64>,
    /// Its part of the frames it shares: what it costs beside its allocation.
    pub charged_bytes: u64,
    /// It waited for what it last gave, and keeps what it has for a while; see [`crate::restraint::regret`].
    pub spared: bool,
    /// By what it could give memory, and at which price.
    pub means: Means,
}

impl GuestInput {
    /// A guest with the promises of its kind: an eighth of its memory reserved, all of it allowed. Where
    /// nothing can be taken from a guest that does not want to give (neither pager nor balloon), all of it is
    /// reserved: sharing alone may diverge.
    pub fn new(config: &Config, memory_bytes: u64, overhead_bytes: u64) -> Self {
        let limit_bytes = memory_bytes.saturating_add(overhead_bytes);
        let reservation_bytes = if config.pager || config.balloon {
            default_reservation(memory_bytes).saturating_add(overhead_bytes)
        } else {
            limit_bytes
        };
        let floor_bytes = default_floor(memory_bytes);
        let usage = Usage::default();
        Self {
            memory_bytes,
            reservation_bytes,
            limit_bytes,
            shares: SHARES_DEFAULT,
            overhead_bytes,
            floor_bytes,
            balloon: config.balloon,
            cap_bytes: None,
            usage,
        }
    }

    /// Most its balloon may be asked for.
    pub(crate) fn balloon_capacity_bytes(&self, config: &Config) -> u64 {
        if config.balloon && self.balloon { self.memory_bytes.saturating_sub(self.floor_bytes) } else { 0 }
    }

    /// What the guest must be left with: its reservation, and without a pager at least what the balloon
    /// cannot take.
    pub fn minimum_bytes(&self, config: &Config) -> u64 {
        if config.pager {
            return self.reservation_bytes;
        }
        let taken = self.balloon_capacity_bytes(config);
        let untakeable = self.memory_bytes.saturating_sub(taken).saturating_add(self.overhead_bytes);
        self.reservation_bytes.max(untakeable)
    }

    /// The least it can run with now: what cannot be evicted, and room for the pages that it works on.
    pub fn livable_bytes(&self) -> u64 {
        match self.usage.irreducible_bytes {
            0 => 0,
            bytes => bytes.saturating_add(self.overhead_bytes).saturating_add(self.floor_bytes),
        }
    }

    /// The most it gets while memory is reclaimed from it: the cap is reached by steps no longer than those
    /// by which a guest grows, since nobody knows beforehand which pages it uses, and is no less than it can
    /// run with.
    pub(crate) fn capped_bytes(&self) -> u64 {
        let Some(cap_bytes) = self.cap_bytes else { return u64::MAX };
        let held = self.usage.allocation_bytes.min(self.usage.resident_bytes);
        let step = self.usage.means.step_bytes(self.memory_bytes).min(self.memory_bytes / STEP_DIVISOR);
        cap_bytes.max(held.saturating_sub(step)).max(self.livable_bytes())
    }

    /// What of its memory counts as in use: of a guest that does not wait what it used lately, and the more
    /// it waits, the more of what it used before, and of what it holds: what it did not use was the first to
    /// be evicted, and a sample finds little touched by one that waits most of its time.
    pub(crate) fn used_bytes(&self) -> Option<u64> {
        let Usage { active_bytes, recent_bytes, resident_bytes, .. } = self.usage;
        let recent = recent_bytes.unwrap_or(u64::MAX).min(active_bytes?);
        let believed = (sane(self.usage.waited_ratio) / BELIEVED_PRESSURE).min(1.0);
        let part = |bytes: u64| (bytes as f64 * believed) as u64;
        let held = part(resident_bytes.saturating_sub(self.overhead_bytes));
        Some((recent + part(active_bytes? - recent)).max(held))
    }

    fn pressure(&self) -> f64 {
        pressure(self.usage.stall_ratio, self.usage.refaults_per_second)
    }

    /// It waits often enough to be noticed.
    pub(crate) fn waits(&self) -> bool {
        self.pressure() > PRESSURE_DEAD_BAND
    }

    /// The allocation of which it would leave an eighth unused. More would be slack.
    pub(crate) fn useful_bytes(&self) -> u64 {
        self.usage.resident_bytes.saturating_add(self.usage.resident_bytes / 7)
    }

    /// What it bids for memory with: its shares, times its need where nothing better is known of what it
    /// uses. At least 1, so that no division of memory is undefined. Need wavers with what it gets: among
    /// guests that have entitlements it would move memory back and forth.
    pub(crate) fn weight(&self) -> u64 {
        if self.usage.active_bytes.is_some() {
            return u64::from(self.shares.max(1)) * NEED_UNIT;
        }
        let need = (self.pressure() / PRESSURE_DEAD_BAND).min(NEED_MAX) * NEED_UNIT as f64;
        u64::from(self.shares.max(1)) * (NEED_UNIT + need as u64)
    }
}

/// Share of its time that a guest waits for memory, from the share in which its vCPUs were blocked and its
/// refaults. Measurements that make no sense count as none.
pub fn pressure(stall_ratio: f64, refaults_per_second: f64) -> f64 {
    sane(stall_ratio.max(0.0) + refaults_per_second.max(0.0) * REFAULT_SECONDS)
}

fn sane(ratio: f64) -> f64 {
    if ratio.is_finite() { ratio.max(0.0) } else { 0.0 }
}

/// Reservation of a guest of this size when nobody chose one: an eighth, but not less than a guest can live
/// on.
pub fn default_reservation(memory_bytes: u64) -> u64 {
    (memory_bytes / 8).max(RESERVATION_BYTES_MIN).min(memory_bytes)
}

/// What a guest of this size keeps from its balloon when nobody chose otherwise: half its default
/// reservation.
pub fn default_floor(memory_bytes: u64) -> u64 {
    (memory_bytes / 16).max(FLOOR_BYTES_MIN).min(memory_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Samples have found 40 MiB in use, the last one 10; the guest holds 100.
    fn guest(waited_ratio: f64) -> GuestInput {
        let mut guest = GuestInput::new(&Config::default(), 256 * MIB, 4 * MIB);
        guest.usage = Usage {
            active_bytes: Some(40 * MIB),
            recent_bytes: Some(10 * MIB),
            resident_bytes: 104 * MIB,
            waited_ratio,
            ..Usage::default()
        };
        guest
    }

    #[test]
    fn the_more_a_guest_waits_the_more_of_what_it_holds_counts_as_used() {
        let used_mib =
            [0.0, BELIEVED_PRESSURE / 2.0, 0.9, f64::NAN].map(|ratio| guest(ratio).used_bytes().unwrap() / MIB);
        assert_eq!(used_mib, [10, 50, 100, 10]);
    }

    #[test]
    fn a_guest_that_holds_less_than_it_was_seen_to_use_counts_with_that() {
        let mut guest = guest(0.9);
        guest.usage.resident_bytes = 30 * MIB;
        assert_eq!(guest.used_bytes(), Some(40 * MIB));
        guest.usage.active_bytes = None;
        assert_eq!(guest.used_bytes(), None, "nothing is known of it");
    }
}
