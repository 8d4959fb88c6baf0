//! The division of the budget, as a ladder.
//!
//! Each rung is an allocation for every guest, none below the rung before it. The budget (less frames and
//! upkeep) affords some rung, and what is over is divided by weight on the way to the next:
//!
//! ```text
//!             a guest that stalls   one with slack   a calm one in use
//!   allowed   limit                 limit            limit              what nobody needs is shared out, too
//!   held      one step up           as it is         as it is           nobody stalls: nothing moves
//!   idle      one step up           what it uses     as it is           slack is given away first,
//!   cheap     one step up           what it uses     as it is, or down  then calm guests yield: (1)
//!   yielded   one step up           what it uses     one step down      first the cheapest,
//!   spared    as it is, or down     what it uses     one step down      last those that regret giving
//!   fair      up to entitlement     what it uses     one step down      those below theirs grow first
//!   pressed   as it is, or down     what it uses     one step down      down: stalling guests divide
//!   entitled  entitlement           entitlement      entitlement        at once, when the budget has shrunk
//!   floor     floor                 floor            floor              what it can live on, and some room
//!   kept      what of its floor a guest has not let go of               not taken for another's floor
//!   reserved  minimum               minimum          minimum            what admission has promised
//!
//!   (1) by the price to win a page, a rung for each band of prices (`means.rs`)
//! ```
//!
//! *Reserved* is what a guest was promised. What neither compresses nor has a swap file to go to is a guest's
//! *floor*: less would not win memory, only end the guest. While the floors fit the budget, nobody goes below
//! his. They may not: a budget can be lowered after guests have filled their memory. Then the floors are in
//! force, and the budget is what is short, up to what was in force before it was lowered
//! ([`Host::ceiling_bytes`]).
//!
//! A guest's *entitlement* is its part of the budget by shares, with idle memory taxed (`fill.rs`). Nobody
//! who uses what it has is pushed below it, for whoever's sake: one step down ends there. So idle guests give
//! first and most, busy guests end at the ratio of their shares, and a guest that was never sampled (nothing
//! is known of what it uses) is entitled to its minimum only. With a tax of 0 shares alone decide, and each
//! guest is entitled to its part from the start.
//!
//! A guest that gave while it was calm, and soon waited for that, is *spared* for a while (`regret.rs`): it
//! gives to those below their entitlement only. Without that two guests would pass a step to and fro.
//!
//! Two corrections follow. Nobody grows by an unnoticeable amount (a dead band). And growth waits for memory
//! that is free *now*: a guest counts with what it may still be using until it has really shrunk.

use std::fmt;

use crate::balloon;
use crate::fill::{Bidder, climb, entitle, sum};
use crate::guest::{Config, GuestInput, Host, STEP_DIVISOR, Usage};
use crate::means::BANDS;

/// An allocation does not grow by less than this part of the guest's memory, ...
const DEAD_BAND_DIVISOR: u64 = 512;
/// ... or of what it is, where that is less than an eighth of the memory: a small allocation grows by small
/// steps.
const DEAD_BAND_HELD_DIVISOR: u64 = 64;
/// A guest that holds its entitlement to within this part is left alone by others that wait, and leaves them
/// alone: what is in use is known from samples of a hundred pages, and guests that are alike would pass what
/// they evict for each other to and fro.
const ENTITLED_DIVISOR: u64 = 40;

/// What one guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Host memory it may keep.
    pub allocation_bytes: u64,
    /// Memory it is asked to give up.
    pub balloon_bytes: u64,
    /// Its part of the budget by shares and use; nobody takes from it below that.
    pub entitlement_bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// Why an allocation is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It stays as it was.
    Settled,
    /// It grows: the guest stalls and uses up what it has.
    Stalls,
    /// It grows: nobody needs the memory more.
    Surplus,
    /// It stays for now: memory is coming, but its present holder has not let go of it yet.
    Waits,
    /// It stays, though the guest stalls: the guest is at its limit.
    AtLimit,
    /// It stays, though the guest stalls: nobody has anything left to give.
    Exhausted,
    /// It shrinks: the guest does not use it.
    Slack,
    /// It shrinks: others stall, this guest does not.
    Yields,
    /// It shrinks: another stalling guest's shares pay more.
    Outbid,
    /// It shrinks: the budget has become less than the sum of allocations.
    Squeezed,
    /// It shrinks: somebody lowered its limit, or reclaims memory from it.
    Lowered,
}

impl Reason {
    /// All, in the order of their declaration.
    pub const ALL: [Reason; 11] = [
        Reason::Settled,
        Reason::Stalls,
        Reason::Surplus,
        Reason::Waits,
        Reason::AtLimit,
        Reason::Exhausted,
        Reason::Slack,
        Reason::Yields,
        Reason::Outbid,
        Reason::Squeezed,
        Reason::Lowered,
    ];

    /// Whether the guest has less than it could use.
    pub fn is_short(self) -> bool {
        matches!(self, Reason::Stalls | Reason::Waits | Reason::AtLimit | Reason::Exhausted | Reason::Outbid)
    }

    /// Its name, for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Settled => "settled",
            Reason::Stalls => "stalls",
            Reason::Surplus => "surplus",
            Reason::Waits => "waits",
            Reason::AtLimit => "at_limit",
            Reason::Exhausted => "exhausted",
            Reason::Slack => "slack",
            Reason::Yields => "yields",
            Reason::Outbid => "outbid",
            Reason::Squeezed => "squeezed",
            Reason::Lowered => "lowered",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Settled => "settled",
            Reason::Stalls => "grows: it stalls",
            Reason::Surplus => "grows: nobody needs the memory more",
            Reason::Waits => "waits for memory that another guest is giving up",
            Reason::AtLimit => "stalls at its limit",
            Reason::Exhausted => "stalls, and nobody has memory to give",
            Reason::Slack => "shrinks: it does not use its allocation",
            Reason::Yields => "shrinks: others stall and it does not",
            Reason::Outbid => "shrinks: a stalling guest with more shares or need takes it",
            Reason::Squeezed => "shrinks: the budget has become tighter",
            Reason::Lowered => "shrinks: it may have less than it had",
        })
    }
}

/// One guest on the ladder.
struct Climber {
    minimum: u64,
    /// What it cannot be squeezed below, and room to work.
    floor: u64,
    /// What of its floor it holds.
    kept: u64,
    /// At most what it is pressed down to.
    entitled: u64,
    /// As far as it is helped up before the others are.
    fair: u64,
    low: u64,
    /// In force so far.
    before: u64,
    /// The same, within what it may have.
    given: u64,
    /// The same, but no less than it can run with.
    held: u64,
    high: u64,
    limit: u64,
    slack: bool,
    stalls: bool,
    spared: bool,
    /// What a step down costs.
    band: usize,
    dead_band: u64,
}

impl Climber {
    /// As far down as it goes for others that have their entitlement already.
    fn kept(&self) -> u64 {
        if self.spared { self.held } else { self.low }
    }

    /// It uses what it has, and does not wait.
    fn gives(&self) -> bool {
        !self.stalls && !self.slack
    }
}

impl Climber {
    fn new(config: &Config, guest: &GuestInput, entitlement: u64) -> Self {
        let usage = &guest.usage;
        let (minimum, limit) = bounds(config, guest);
        // Without a tax, shares alone decide, and nothing need be known of what a guest uses.
        let known = usage.active_bytes.is_some() || config.idle_tax_percent == 0;
        let livable = guest.livable_bytes().clamp(minimum, limit);
        let held = usage.allocation_bytes.clamp(livable, limit);
        let entitled = match known {
            true if entitlement.abs_diff(held) < held / ENTITLED_DIVISOR => held,
            true => entitlement.clamp(livable, limit),
            false => livable,
        };
        let (step, useful) = (guest.memory_bytes / STEP_DIVISOR, guest.useful_bytes());
        // One that waits, but has not used up what it has, waits for something else than memory: for first
        // touches, say.
        let slack = held >= useful;
        let stalls = guest.waits() && !slack;
        let step_down = usage.means.step_bytes(guest.memory_bytes);
        let stepped = held.saturating_sub(step_down);
        let low = match (slack, guest.waits()) {
            (true, true) => useful,
            (true, false) => stepped.min(useful),
            (false, _) => stepped.max(entitled.min(held)),
        };
        let low = low.max(livable);
        let (fair, entitled) = (entitled, entitled.min(low));
        let high = if stalls { held.saturating_add(step).min(useful).min(limit) } else { held };
        Self {
            minimum,
            floor: livable,
            kept: livable.min(usage.committed_bytes).max(minimum),
            entitled,
            fair,
            low,
            before: usage.allocation_bytes,
            given: usage.allocation_bytes.clamp(minimum, limit),
            held,
            high,
            limit,
            slack,
            stalls,
            spared: usage.spared && !slack,
            band: usage.means.band(step_down),
            dead_band: (guest.memory_bytes / DEAD_BAND_DIVISOR).min(held / DEAD_BAND_HELD_DIVISOR),
        }
    }
}

/// What a guest gets at least and at most.
fn bounds(config: &Config, guest: &GuestInput) -> (u64, u64) {
    // Without a pager nothing could enforce less than was given; and nothing need: the balloon has made
    // private and shared pages together fit, however they divide.
    let kept = if config.pager { 0 } else { guest.usage.allocation_bytes };
    let minimum = guest.minimum_bytes(config).max(kept);
    let most = guest.memory_bytes.saturating_add(guest.overhead_bytes).min(guest.capped_bytes());
    (minimum, guest.limit_bytes.min(most).max(minimum))
}

/// Each guest's part of the budget, by shares and with idle memory taxed. What it costs beside its
/// allocation, its part of shared frames, counts towards it. Guests that were never sampled take part as if
/// all they may have were in use.
fn entitlements(config: &Config, total: u64, guests: &[GuestInput]) -> Vec<u64> {
    let bidder = |guest: &GuestInput| {
        let (minimum, limit) = bounds(config, guest);
        let charged = guest.usage.charged_bytes;
        Bidder {
            low: minimum.saturating_add(charged),
            high: limit.saturating_add(charged),
            shares: guest.shares,
            active: guest.used_bytes().map_or(limit, |active| active.saturating_add(guest.overhead_bytes)),
        }
    };
    let charged: u64 = guests.iter().map(|guest| guest.usage.charged_bytes).fold(0, u64::saturating_add);
    let bidders: Vec<_> = guests.iter().map(bidder).collect();
    let entitled = entitle(total.saturating_add(charged), &bidders, config.idle_tax_percent);
    entitled.iter().zip(guests).map(|(&entitled, guest)| entitled.saturating_sub(guest.usage.charged_bytes)).collect()
}

/// What there is to be divided, when floors do not fit the budget: those, as far as they were in force before
/// it was lowered.
fn with_floors(total: u64, host: &Host, climbers: &[Climber]) -> u64 {
    let bytes = |height: fn(&Climber) -> u64| u64::try_from(sum(&rung(climbers, height))).unwrap_or(u64::MAX);
    let before = total.saturating_add(host.ceiling_bytes.saturating_sub(host.budget_bytes));
    total.max(bytes(|climber| climber.floor).min(before.max(bytes(|climber| climber.kept))))
}

/// What there is to be divided.
pub fn total_bytes(host: &Host) -> u64 {
    host.budget_bytes.saturating_sub(host.set_aside_bytes())
}

/// First allocations, as if nothing were known of the guests but what they were promised: by shares between
/// reservation and limit.
pub fn initial(config: &Config, host: &Host, guests: &[GuestInput]) -> Vec<Decision> {
    let fresh: Vec<GuestInput> = guests.iter().map(|guest| GuestInput { usage: Usage::default(), ..*guest }).collect();
    allocate(config, host, &fresh)
}

/// Allocations for the next tick, one for each guest, in their order.
pub fn allocate(config: &Config, host: &Host, guests: &[GuestInput]) -> Vec<Decision> {
    let total = total_bytes(host);
    let weights: Vec<u64> = guests.iter().map(GuestInput::weight).collect();
    let entitlements = entitlements(config, total, guests);
    let climbers: Vec<Climber> =
        guests.iter().zip(&entitlements).map(|(guest, &entitled)| Climber::new(config, guest, entitled)).collect();
    let squeezed = sum(&rung(&climbers, |climber| climber.held)) > u128::from(total);

    let total = with_floors(total, host, &climbers);
    let mut goals = climb(total, &ladder(total, &climbers), &weights);
    for (goal, climber) in goals.iter_mut().zip(&climbers) {
        if (climber.held..climber.held.saturating_add(climber.dead_band)).contains(goal) {
            *goal = climber.held;
        }
    }
    let allocations = grant(total, guests, &climbers, &goals, &weights);

    let outcomes = guests.iter().zip(&climbers).zip(goals.iter().zip(allocations)).zip(entitlements);
    outcomes
        .map(|(((guest, climber), (&goal, allocation_bytes)), entitlement_bytes)| Decision {
            allocation_bytes,
            balloon_bytes: balloon::request_bytes(config, guest, allocation_bytes),
            entitlement_bytes,
            reason: reason(climber, goal, allocation_bytes, squeezed),
        })
        .collect()
}

/// The rungs of the module's table, lowest first.
fn ladder(total: u64, climbers: &[Climber]) -> Vec<Vec<u64>> {
    // Stalling guests take from each other only when the others have nothing (noticeable) left to give them.
    let without_stalling_guests_loss =
        rung(climbers, |climber| if climber.stalls { climber.held } else { climber.low });
    let unnoticed: u64 = climbers.iter().filter(|climber| climber.stalls).map(|climber| climber.dead_band).sum();
    let others_can_give = sum(&without_stalling_guests_loss) + u128::from(unnoticed) < u128::from(total);
    let pressed = if others_can_give { without_stalling_guests_loss } else { rung(climbers, |climber| climber.low) };
    let yielded = rung(climbers, |climber| if climber.stalls { climber.high } else { climber.kept() });
    let fair = climbers.iter().zip(&pressed).zip(&yielded);
    let fair: Vec<u64> =
        fair.map(|((climber, &pressed), &yielded)| climber.fair.clamp(pressed, yielded.max(pressed))).collect();
    let spared = climbers.iter().zip(&fair).map(|(climber, &fair)| fair.max(climber.kept())).collect();
    let mut rungs = vec![
        rung(climbers, |climber| climber.minimum),
        rung(climbers, |climber| climber.kept),
        rung(climbers, |climber| climber.floor),
    ];
    rungs.extend([rung(climbers, |climber| climber.entitled), pressed, fair, spared, yielded]);
    // The dearest are the first to keep what they have.
    for band in (1..BANDS).rev().filter(|&band| climbers.iter().any(|climber| climber.gives() && climber.band == band))
    {
        rungs.push(rung(climbers, |climber| match climber.gives() {
            true if climber.band < band => climber.kept(),
            true => climber.held,
            false if climber.slack => climber.low,
            false => climber.high,
        }));
    }
    rungs.push(rung(climbers, |climber| if climber.slack { climber.low } else { climber.high }));
    rungs.push(rung(climbers, |climber| climber.high));
    rungs.push(rung(climbers, |climber| climber.limit));
    rungs
}

/// What of the goals can be had now: in force is what a guest keeps or may still be using, and growth gets
/// what that leaves.
fn grant(total: u64, guests: &[GuestInput], climbers: &[Climber], goals: &[u64], weights: &[u64]) -> Vec<u64> {
    let kept = goals.iter().zip(climbers).map(|(&goal, climber)| goal.min(climber.given));
    let in_force: Vec<u64> = kept.zip(guests).map(|(kept, guest)| kept.max(guest.usage.committed_bytes)).collect();
    let wanted = goals.iter().zip(&in_force).map(|(&goal, &in_force)| goal.max(in_force)).collect();
    let granted = climb(total, &[in_force, wanted], weights);
    granted.iter().zip(goals).map(|(&granted, &goal)| granted.min(goal)).collect()
}

fn rung(climbers: &[Climber], height: impl Fn(&Climber) -> u64) -> Vec<u64> {
    climbers.iter().map(height).collect()
}

fn reason(climber: &Climber, goal: u64, allocation: u64, squeezed: bool) -> Reason {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match allocation.cmp(&climber.given) {
        Greater if climber.stalls => Reason::Stalls,
        Greater => Reason::Surplus,
        Less if climber.slack => Reason::Slack,
        // What its VMM costs wavers, and with it what it could have at most.
        Equal | Less if climber.limit.saturating_add(climber.dead_band) < climber.before => Reason::Lowered,
        Less if squeezed => Reason::Squeezed,
        Less if climber.stalls => Reason::Outbid,
        Less => Reason::Yields,
        Equal if goal > allocation => Reason::Waits,
        Equal if climber.stalls && climber.held == climber.limit => Reason::AtLimit,
        Equal if climber.stalls => Reason::Exhausted,
        Equal => Reason::Settled,
    }
}
