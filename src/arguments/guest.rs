//! `ballast guest`: looks at guests of a running host, and changes them.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Subcommand;
use host::{ByteCount, PromiseChange};

use super::values::{METRICS_DEFAULT, hold};

#[derive(Debug, Subcommand)]
pub enum GuestVerb {
    /// What guests there are, and what they have.
    List {
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What one guest is, has, and was promised.
    Show {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Promise a guest something else, checked as at the start and in force at once.
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
        /// shares=2000 (weight when memory is short), reservation=64MiB (never less), limit=128MiB (never
        /// more)
        #[arg(value_name = "KEY=VALUE", required = true)]
        promises: Vec<PromiseChange>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
    /// Take memory from a guest now, by the cheapest levers; it gets it back when the time is over, or when
    /// it waits for memory.
    #[command(after_help = RECLAIM_EXAMPLES)]
    Reclaim {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
        /// How much
        #[arg(value_name = "SIZE", required_unless_present = "hold")]
        bytes: Option<ByteCount>,
        /// How long it is kept from the guest once it is there, 1s to 24h; 0 to end that now [default: 60s]
        #[arg(long, value_name = "TIME", value_parser = hold)]
        hold: Option<Duration>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold guests' vCPUs; what others need of their memory goes, down to their reservations.
    Pause {
        /// The guests
        #[arg(value_name = "GUEST", required = true)]
        guests: Vec<String>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
    /// Let guests go on.
    Resume {
        /// The guests
        #[arg(value_name = "GUEST", required = true)]
        guests: Vec<String>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ballast guest list
  ballast guest list --json | jq -r '.guests[] | select(.state == \"paused\").name'
  ballast guest show guest1
  ballast guest set guest1 shares=2000 limit=128MiB
  ballast guest reclaim guest1 64MiB --hold 60s
  ballast guest pause guest1 guest2
  ballast guest resume guest1 guest2";

const RECLAIM_EXAMPLES: &str = "\
Examples:
  ballast guest reclaim guest1 64MiB              exit code 1 if it was not all
  ballast guest reclaim guest1 64MiB --hold 10m
  ballast guest reclaim guest1 --hold 0           give it back";

const SET_EXAMPLES: &str = "\
Examples:
  ballast guest set guest1 shares=2000
  ballast guest set guest1 reservation=64MiB limit=128MiB";
