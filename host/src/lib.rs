//! The control plane: one process that starts the guests' VMMs, divides the host's memory among them, and
//! says how it goes.
//!
//! ```text
//!   RunConfig -- request --> CheckedRun -- fleet --> VMM processes
//!                                      |  latest word of each guest
//!                control <-------------+-------------> show (HTTP, live table) <---- client
//!                   |  policy::allocate
//!                   +--> Orders ----> fleet             fleet::accounting (kernel's books) --> peak
//!                                      |
//!                                   Outcome --> show (summary, JSON report), exit code
//! ```
//!
//! `run` is a run from beginning to end; `plan` is what a checked request makes of a guest. The rooms:
//!
//! | room | what is in it |
//! |---|---|
//! | `request` | what is asked for, checked against itself, the machine and other runs |
//! | `fleet` | guests, their processes and lives; what they said last; what they cost |
//! | `control` | ten times a second: the budget divided anew, and told |
//! | `show` | live table, summary, report, HTTP |
//! | `tier` | the kernel's swap as a place for pages: zram, what it takes, who is charged |
//! | `client` | the other end of HTTP, for the verbs of the command line |
//!
//! Invariants:
//! * No guest starts before everything that can be checked has been checked.
//! * No guest's memory is ever in this process: it may die at any moment, and takes no content with it.
//! * A VMM is believed in nothing that concerns other guests: a broken one is killed, reaped, named, and its
//!   memory reused.
//! * Nothing in here waits for one guest while others want something; only the end of a run waits, with a
//!   deadline.

#![forbid(unsafe_code)]

mod bytes;
mod client;
mod clock;
mod config;
mod control;
mod error;
mod fleet;
mod lock_file;
mod plan;
mod request;
mod run;
mod show;
mod tier;

use ::control::sync;

pub use bytes::ByteCount;
pub use client::connection::ClientError;
pub use client::guests::{GuestOrder, list_guests, order_guests, promise_guest, reclaim, show_guest};
pub use client::host::{set_budget, show_host};
pub use client::policy::explain_policy;
pub use config::{FreePageReporting, LinuxRequest, Rule, RunConfig, SwapChoice, SwapConfig, VmmCommand};
pub use error::Error;
pub use request::disks::DiskRequest;
pub use request::domain_range::DomainRange;
pub use request::guest_promises::PromiseChange;
pub use request::guest_settings::GuestSettings;
pub use request::prerequisite;
pub use request::taps::TapRequest;
pub use run::run;
pub use show::display;
pub use show::explain::explain;
pub use show::report::Outcome;
pub use show::summary::summary;
pub use tier::TierChoice;
