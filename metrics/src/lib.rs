//! What Prometheus sees: every metric's name, meaning and unit, in one table each for the host and for a
//! guest.
//!
//! Nothing is registered and nothing counts here. The host makes a [`Snapshot`] of what it knows already, and
//! [`encode`] turns it into text: a scrape never waits for a guest, and a guest that is gone takes its series
//! with it.
//!
//! Invariants: names are `ballast_host_*`, `ballast_domain_*`, `ballast_guest_*`, `ballast_policy_*` and
//! `ballast_dedup_*` (and `ballast_build_info`), units are bytes and seconds, counters end in `_total`; the
//! labels are `domain`, `guest`, `state`, `mechanism`, `kind`, `action` and `reason`, the last five from
//! fixed sets; the series of one family can be added up. `docs/operations.md` describes every family; a test
//! keeps it complete.

#![forbid(unsafe_code)]

mod families;
mod text;

pub use text::encode;

/// Media type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// a family has no name, no series or the like
    #[error("encoding metrics: {0}")]
    Encode(#[from] prometheus::Error),
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Version of this program.
    pub version: &'static str,
    /// The host.
    pub host: Host,
    /// The sharing domains that exist.
    pub domains: Vec<Domain>,
    /// The guests that exist.
    pub guests: Vec<GuestFigures>,
}

/// The host's figures.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// What guests, frames and upkeep may take.
    pub budget_bytes: u64,
    /// What they take, measured from outside.
    pub used_bytes: u64,
    /// The most they took.
    pub peak_used_bytes: u64,
    /// RAM of the guests that exist.
    pub promised_bytes: u64,
    /// Frame stores, in use.
    pub frames_bytes: u64,
    /// Memory won: by mechanism (`balloon`, `shared`, `zero`, `compressed`, `swapped`, `kernel`, `clean`).
    pub reclaimed_bytes: Vec<(&'static str, u64)>,
    /// Guests by state, those that are gone included (`starting`, `running`, `finished`, `lost`, ...).
    pub guests: Vec<(&'static str, u64)>,
    /// How short the host is: 1 for the state it is in (`high`, `soft`, `hard`, `low`), 0 for the others.
    pub state: Vec<(&'static str, u64)>,
    /// What the world outside leaves of the budget.
    pub usable_bytes: u64,
    /// What is in force above that.
    pub short_bytes: u64,
    /// Decisions about allocations that were new, by action and reason.
    pub decisions: Vec<([&'static str; 2], u64)>,
    /// Room of the kernel tier's device, by what it holds: `used`, `free`. Empty without a tier, as the next.
    pub kernel_tier_bytes: Vec<(&'static str, u64)>,
    /// Memory that pages in it take, by whose they are: `guests`, `others`.
    pub kernel_tier_memory_bytes: Vec<(&'static str, u64)>,
    /// Connections to the endpoint, by what became of them.
    pub connections: Vec<(&'static str, u64)>,
}

/// One sharing domain's figures.
#[derive(Clone, Debug, Default)]
pub struct Domain {
    /// Unique among the domains that exist.
    pub name: String,
    /// Guests in it.
    pub guests: u64,
    /// Its frame store.
    pub frames_bytes: u64,
    /// Part of the store that no page shares.
    pub idle_frames_bytes: u64,
    /// Memory won by zero pages.
    pub gain_zero_bytes: u64,
    /// Memory won by equal pages of one guest.
    pub gain_within_bytes: u64,
    /// Memory won by equal pages of different guests.
    pub gain_across_bytes: u64,
    /// Needed if every shared page were written to.
    pub cow_full_bytes: u64,
    /// Expected to be needed by breaks before the host reacts.
    pub cow_expected_bytes: u64,
    /// Frames published.
    pub published_total: u64,
    /// Frames released.
    pub retired_total: u64,
    /// Frames there was no room for.
    pub refused_total: u64,
    /// Frames whose content did not come, or was another.
    pub declined_total: u64,
}

/// One guest's figures.
#[derive(Clone, Debug, Default)]
pub struct GuestFigures {
    /// Unique among the guests that exist.
    pub name: String,
    /// In force by the host's word.
    pub allocation_bytes: u64,
    /// Its VMM says nothing.
    pub unresponsive: bool,
    /// Its pages that are not merged: by reason (see `control::explain`).
    pub unmerged_pages: Vec<(&'static str, u64)>,
    /// Address-space areas with which nothing would have been refused for want of them.
    pub alias_vmas_wanted: u64,
    /// What a page won by each lever costs, ns.
    pub lever_page_ns: Vec<(&'static str, u64)>,
    /// What levers could win, bytes.
    pub lever_available_bytes: Vec<(&'static str, u64)>,
    /// What it has in the kernel's swap, before compression, by the kernel's books, ...
    pub kernel_tier_stored_bytes: Option<u64>,
    /// ... what that takes, ...
    pub kernel_tier_memory_bytes: Option<u64>,
    /// ... the most that the kernel charges it for, ...
    pub limit_bytes: Option<u64>,
    /// ... what it is charged for now, ...
    pub charged_bytes: Option<u64>,
    /// ... and what came of meeting that limit: `made_room`, `waited`.
    pub limit_meetings: Vec<(&'static str, u64)>,
    /// Its VMM runs, and has said lately how it is.
    pub up: bool,
    /// When its VMM was started, in seconds since 1970.
    pub start_time_seconds: Option<f64>,
    /// Times it was started anew.
    pub restarts_total: u64,
    /// How old its status is; none before its first.
    pub status_age_seconds: Option<f64>,
    /// RAM by its own word, if it has one, ...
    pub own_total_bytes: Option<u64>,
    /// ... what of it is not in use, ...
    pub own_free_bytes: Option<u64>,
    /// ... what it could use without swapping, ...
    pub own_available_bytes: Option<u64>,
    /// ... and how old that word is.
    pub own_age_seconds: Option<f64>,
    /// Its last status.
    pub status: control::GuestStatus,
}
