//! How much host memory each guest may keep, as pure functions: the host calls them every 100 ms with what it
//! measured.
//!
//! ```text
//!   Host, [GuestInput] -- admit ----> Ok | Refusal     before a guest starts
//!                      -- initial --> [Decision]       its first allocation and balloon
//!                      -- allocate -> [Decision]       every tick: who may keep how much, and why
//!   Decision           -- verdict --> Verdict          all that the guest is to be told
//! ```
//!
//! A guest *uses up* its allocation or leaves some of it idle; it *stalls* or is calm. Memory goes to guests
//! that stall while they use up what they have; it comes from what nobody has, then from idle allocations,
//! then from calm guests, then from guests whose shares pay least for each byte (Waldspurger's min-funding
//! revocation). Nobody's calm is disturbed for anybody's comfort: while no guest stalls, nothing moves.
//!
//! What goes into it: how much of its memory each guest uses ([`active`]), how short the host is ([`state`]),
//! what each way to win memory costs ([`levers`], [`means`]). What restrains it: guests that suffer for what
//! they gave, or give nothing ([`restraint`]), free pages that come back ([`reporting`]).
//!
//! Invariants, for guests that were admitted:
//! * Never is the sum of what is *in force* raised above the budget. In force is the larger of a guest's
//!   allocation and what it may still be using: a shrinking guest is counted in full until it has shrunk, and
//!   a growing one waits for that.
//! * Never is an allocation below the guest's reservation or above its limit.
//! * More shares, all else equal, are never less memory.
//! * Never in here: a clock, I/O, or state that the caller does not hold: what must be remembered is a value
//!   of the caller's.

#![forbid(unsafe_code)]

pub mod active;
mod admit;
mod allocate;
mod balloon;
pub mod explanation;
mod fill;
mod guest;
pub mod levers;
pub mod means;
pub mod reclaim;
pub mod reporting;
pub mod restraint;
pub mod state;
pub mod verdict;

pub use admit::{Refusal, admit, store_bytes_max};
pub use allocate::{Decision, Reason, allocate, initial, total_bytes};
pub use balloon::request_bytes as balloon_request_bytes;
pub use guest::{
    Config, GuestInput, Host, IDLE_TAX_PERCENT_DEFAULT, RESERVATION_BYTES_MIN, SHARES_DEFAULT, Usage, default_floor,
    default_reservation, pressure,
};
