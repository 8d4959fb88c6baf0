//! `ballast run` with a rule of others: the product's host and VMMs, linked here with the one thing the
//! product has no option for. A process of its own, started by [`crate::policy::run`].
//!
//! ```text
//!   ballast-bench policy ──► ballast-bench policy-host --rule mom ──► ballast vmm, ballast vmm, ...
//! ```

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use control::{Dedup, Levers, VcpuKind};
use host::{ByteCount, GuestSettings, RunConfig, SwapChoice, SwapConfig, VmmCommand};
use wire::machine::Workload;

use crate::{kit::error::Error, policy::rules::Rule};

/// What of `ballast run` the comparison of rules takes; the rest is as `ballast run` has it without options.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Who divides memory
    #[arg(long, value_enum)]
    rule: Rule,
    /// The program whose `vmm` a guest's process is
    #[arg(long)]
    ballast: PathBuf,
    #[arg(long)]
    guests: u32,
    #[arg(long)]
    memory: ByteCount,
    #[arg(long)]
    budget: ByteCount,
    #[arg(long, value_parser = seconds)]
    duration: Duration,
    #[arg(long)]
    metrics: SocketAddr,
    #[arg(long = "guest")]
    guest_settings: Vec<GuestSettings>,
    #[arg(long)]
    swap: SwapConfig,
    #[arg(long, value_parser = seconds)]
    sample_period: Duration,
    /// As the other side has it; rules are compared without dedup
    #[arg(long, value_parser = ["off"])]
    dedup: String,
}

/// Runs guests to the end of their time. An error if one of them did not verify all it held.
pub fn run(arguments: Arguments) -> Result<(), Error> {
    let outcome = host::run(arguments.into_config()).map_err(|error| Error::Guest(error.to_string()))?;
    match outcome.failures() {
        failures if failures.is_empty() => Ok(()),
        failures => Err(Error::Guest(failures.join("; "))),
    }
}

impl Arguments {
    fn into_config(self) -> RunConfig {
        let vmm = VmmCommand { program: self.ballast, arguments: vec!["vmm".into()] };
        RunConfig {
            guests: Some(self.guests),
            memory_bytes: Some(self.memory.0),
            guest_settings: self.guest_settings,
            rule: self.rule.function(),
            sample_period: Some(self.sample_period),
            workload: Workload::Mixed,
            duration: self.duration,
            vcpu: VcpuKind::Kvm,
            seed: 1,
            levers: Levers { dedup: Dedup::Off, balloon: true, pager: true },
            swap: SwapChoice::In(self.swap),
            metrics: self.metrics,
            ..RunConfig::plain(self.budget.0, vmm)
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    seconds.map(Duration::from_secs).ok_or_else(|| "give whole seconds: 60s".into())
}
