//! The control plane: one process that starts the guests' VMMs, divides the host's memory among them, and says how it goes.
//!
//! ```text
//!   RunConfig -- preflight --> Plan -- Fleet::launch --> VMM processes
//!                                        |  latest word of each guest
//!                 control_loop <---------+---------> http (/metrics), display
//!                   |  policy::allocate  |
//!                   +--> grants --------->           accounting (kernel's books) --> peak
//!                                        |
//!                                     Outcome --> summary, JSON report, exit code
//! ```
//!
//! Invariants:
//! * No guest starts before everything that can be checked has been checked.
//! * No guest's memory is ever in this process: it may die at any moment, and takes no content with it.
//! * A VMM is believed in nothing that concerns other guests: a broken one is killed, reaped, named, and its memory reused.
//! * Nothing in here waits for one guest while others want something; only the end of a run waits, with a deadline.

#![forbid(unsafe_code)]

mod accounting;
mod admission;
mod balloon_orders;
mod budget;
mod bytes;
mod client;
mod clock;
mod config;
mod control_loop;
mod cow;
mod decisions;
mod descriptors;
pub mod display;
mod domain_range;
mod domains;
mod episode;
mod error;
mod explain;
mod fleet;
mod freshness;
mod gain;
mod guest;
mod guest_client;
mod guest_levers;
mod guest_promises;
mod guest_settings;
mod host_client;
mod http;
mod hurry;
mod kept;
mod ledger;
mod link;
mod outside;
mod phase;
mod policy_client;
mod preflight;
pub mod prerequisite;
mod prices;
mod promises;
mod rates;
mod reclaim;
mod remedies;
mod report;
mod restarts;
mod run;
mod shortfall;
mod start;
mod summary;
mod swap;
mod table;
mod throttle;
mod totals;
mod upkeep;

pub use bytes::ByteCount;
pub use client::ClientError;
pub use config::{FreePageReporting, Rule, RunConfig, SwapChoice, SwapConfig, VmmCommand};
pub use domain_range::DomainRange;
pub use error::Error;
pub use explain::explain;
pub use guest_client::{GuestOrder, list_guests, order_guests, promise_guest, reclaim, show_guest};
pub use guest_promises::PromiseChange;
pub use guest_settings::GuestSettings;
pub use host_client::{set_budget, show_host};
pub use policy_client::explain_policy;
pub use report::Outcome;
pub use run::run;
pub use summary::summary;
