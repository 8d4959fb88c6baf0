//! The command line's grammar: the verbs, each larger one in a file of its own. What a
//! value *means* is checked by `host`, before any guest starts.

mod guest;
mod linux;
mod run;
mod values;
mod vhost_user;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use host::{ByteCount, SwapConfig};

pub use guest::GuestVerb;
pub use run::Run;
pub use vhost_user::VhostUserBalloon;

use values::{METRICS_DEFAULT, duration};

/// Runs KVM guests that were promised more memory than there is, and keeps the promise.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run guests within a budget until the time is over, and check that nothing was lost.
    #[command(after_help = run::EXAMPLES)]
    Run(Box<Run>),
    /// Say what this machine offers and what is missing.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Look at this directory for swap files too
        #[arg(long, value_name = "DIR[:SIZE]")]
        swap: Option<SwapConfig>,
    },
    /// Ask a running host why guests have the memory they have.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// List the guests of a running host, promise them something else, hold them, let them go on.
    #[command(subcommand, after_help = guest::EXAMPLES)]
    Guest(GuestVerb),
    /// Look at the host of a run, and give it more memory, or less.
    #[command(subcommand)]
    Host(HostVerb),
    /// Be the balloon device of another VMM's guest, over vhost-user.
    #[command(after_help = vhost_user::EXAMPLES)]
    VhostUserBalloon(VhostUserBalloon),
    /// One guest's process; started by the host with its descriptors open.
    #[command(hide = true)]
    Vmm,
}

#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// What was decided, from when to when and how often, from what and by which rule, and what would change
    /// it.
    #[command(after_help = POLICY_EXAMPLES)]
    Explain {
        /// A guest, for its decisions; without one, the last decision about each
        #[arg(value_name = "GUEST")]
        guest: Option<String>,
        /// More than a screen: all decisions that are remembered, or all about each guest's last one
        #[arg(long)]
        all: bool,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

const POLICY_EXAMPLES: &str = "\
Examples:
  ballast policy explain                  the last decision about each guest
  ballast policy explain guest3           each distinct decision once, and what would change the last one
  ballast policy explain guest3 --all
  ballast policy explain guest3 --json | jq '.decisions[0].inputs'";

#[derive(Debug, Subcommand)]
pub enum HostVerb {
    /// What it may use, what it does use, and how short it is.
    Show {
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what the run may use. Less than is in use is taken from the guests, as far as they can be
    /// squeezed.
    Set {
        /// Host memory that all guests together may cost from now on
        #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
        budget: ByteCount,
        /// How long to wait until it is reached; exit code 1 if it is not
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        wait: Duration,
        /// Do not wait
        #[arg(long, conflicts_with = "wait")]
        no_wait: bool,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn rules_of_others_are_no_option_of_the_product() {
        assert!(Arguments::try_parse_from(["ballast", "run", "--policy", "mom"]).is_err());
    }
}
