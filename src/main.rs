//! The `ballast` command: turns a command line into a [`host::RunConfig`], and what comes of it into an exit
//! code.
//!
//! Exit codes: 0 done, 1 failed, 2 the command line is at fault.

#![forbid(unsafe_code)]

mod arguments;
mod linux_image;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, PolicyVerb, Verb};
use host::GuestOrder;

/// How long reclaimed memory is kept from a guest when nobody says.
const HOLD_DEFAULT: Duration = Duration::from_secs(60);
/// The command line is at fault.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    match arguments.verb {
        Verb::Run(arguments) => run(*arguments),
        Verb::Doctor { json, swap } => doctor(json, swap.as_ref()),
        Verb::Policy(PolicyVerb::Explain { guest, all, metrics, json }) => {
            answer(host::explain_policy(metrics, guest.as_deref(), all, json))
        }
        Verb::Guest(arguments::GuestVerb::List { metrics, json }) => answer(host::list_guests(metrics, json)),
        Verb::Guest(arguments::GuestVerb::Show { guest, metrics, json }) => {
            answer(host::show_guest(metrics, &guest, json))
        }
        Verb::Guest(arguments::GuestVerb::Set { guest, promises, metrics }) => {
            answer(host::promise_guest(metrics, &guest, &promises).map(|()| String::new()))
        }
        Verb::Guest(arguments::GuestVerb::Reclaim { guest, bytes, hold, metrics, json }) => {
            reclaim(metrics, &guest, bytes, hold.unwrap_or(HOLD_DEFAULT), json)
        }
        Verb::Guest(arguments::GuestVerb::Pause { guests, metrics }) => order(metrics, &guests, GuestOrder::Pause),
        Verb::Guest(arguments::GuestVerb::Resume { guests, metrics }) => order(metrics, &guests, GuestOrder::Resume),
        Verb::Host(arguments::HostVerb::Show { metrics, json }) => answer(host::show_host(metrics, json)),
        Verb::Host(arguments::HostVerb::Set { budget, wait, no_wait, metrics }) => {
            answer(host::set_budget(metrics, budget, (!no_wait).then_some(wait)))
        }
        Verb::VhostUserBalloon(arguments) => {
            log_to(io::stderr, true);
            match vhost_user_balloon::run(arguments.into_config()) {
                Ok(never) => match never {},
                Err(error) => {
                    eprintln!("ballast: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Verb::Vmm => {
            log_to(io::stderr, false);
            vmm::run_process()
        }
    }
}

fn run(arguments: arguments::Run) -> ExitCode {
    log_to(|| host::display::LogWriter, true);
    let report: Option<PathBuf> = arguments.report.clone();
    let explain = arguments.explain;
    let outcome = arguments.into_config().and_then(host::run);
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return fail(&error),
    };
    // Whoever closed our standard output still wants the exit code.
    let _ = io::stdout().write_all(host::summary(&outcome).as_bytes());
    if explain {
        let _ = io::stdout().write_all(host::explain(&outcome).as_bytes());
    }
    if let Some(Err(error)) = report.map(|path| outcome.write(&path)) {
        return fail(&error);
    }
    if outcome.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a running host answered, or why it did not.
fn answer(said: Result<String, host::ClientError>) -> ExitCode {
    match said {
        Ok(text) => {
            // As above.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ballast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fails if it was not all.
fn reclaim(metrics: SocketAddr, guest: &str, bytes: Option<host::ByteCount>, hold: Duration, json: bool) -> ExitCode {
    let bytes = bytes.map_or(0, |bytes| bytes.0);
    // What is shorter than a second is one, and nothing is nothing.
    let hold_seconds = hold.as_millis().div_ceil(1000) as u64;
    let (said, all) = host::reclaim(metrics, guest, bytes, hold_seconds, json)
        .map_or_else(|error| (Err(error), false), |(text, all)| (Ok(text), all));
    let code = answer(said);
    if all { code } else { ExitCode::FAILURE }
}

fn order(metrics: SocketAddr, guests: &[String], order: GuestOrder) -> ExitCode {
    answer(host::order_guests(metrics, guests, order).map(|()| String::new()))
}

fn doctor(json: bool, swap: Option<&host::SwapConfig>) -> ExitCode {
    let prerequisites = host::prerequisite::all(swap);
    let text = if json {
        serde_json::to_string_pretty(&prerequisites)
            .map(|text| text + "\n")
            .unwrap_or_else(|error| format!("{error}\n"))
    } else {
        let line = |one: &host::prerequisite::Prerequisite| {
            format!("{:<8} {:<17} {}\n", if one.ok { "ok" } else { "missing" }, one.name, one.detail)
        };
        prerequisites.iter().map(line).collect()
    };
    // As above.
    let _ = io::stdout().write_all(text.as_bytes());
    if prerequisites.iter().all(|one| one.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `RUST_LOG` chooses the level; without it, warnings.
fn log_to<W>(writer: W, color: bool)
where
    W: for<'writer> tracing_subscriber::fmt::MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let color = color
        && io::IsTerminal::is_terminal(&io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(color).without_time().with_writer(writer).init();
}

fn fail(error: &host::Error) -> ExitCode {
    eprintln!("ballast: {error}");
    ExitCode::from(error.exit_code())
}

/// Help goes out as clap has it; an error is put into one line.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked_for || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // As above.
        let _ = error.print();
        return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
    }
    let text = error.render().to_string();
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let line = lines.collect::<Vec<_>>().join("; ");
    eprintln!("ballast: {} (see ballast --help)", line.trim_start_matches("error: "));
    ExitCode::from(USAGE)
}
