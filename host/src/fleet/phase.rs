//! Where a guest stands, and how it ended.
//!
//! ```text
//!   Starting -- Ready --> Ready -- Run --> Running -- Stop --> Verifying - Finished, 0 -> Ended(Verified)
//!      |                    |                 |           (Linux: Stopping)
//!      |                    |               | ^ Pause, Resume      |
//!      |                    |               v |                    |
//!      |                    |              Paused -- Stop -------->|
//!      +--------------------+-----------------+--------------------+- Finished(Err) ----> Ended(Failed)
//!      +--------------------+-----------------+--------------------+- death, silence, --> Ended(Lost)
//!                                                                     broken protocol
//! ```
//!
//! `Ended` is reached only after the process has been reaped: from then on, and not before, its memory is
//! free.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// Where a guest stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// The VMM builds it.
    Starting,
    /// Built, not yet running.
    Ready,
    /// The vCPUs run.
    Running,
    /// The vCPUs are held, until the operator has them go on.
    Paused,
    /// It verifies what it holds, to end then: a bare guest that was told to stop.
    Verifying,
    /// It shuts down: a Linux guest whose power button was pressed.
    Stopping,
    /// The process is gone.
    Ended(End),
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// It verified everything.
    Verified,
    /// It said itself that something was wrong.
    Failed(String),
    /// The VMM died or had to be killed.
    Lost(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Verified => f.write_str("ok"),
            End::Failed(why) => write!(f, "failed: {why}"),
            End::Lost(why) => write!(f, "lost: {why}"),
        }
    }
}

impl Phase {
    /// Every name there is.
    pub const NAMES: [&'static str; 9] =
        ["starting", "ready", "running", "paused", "verifying", "stopping", "ok", "failed", "lost"];

    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Verifying => "verifying",
            Phase::Stopping => "stopping",
            Phase::Ended(End::Verified) => "ok",
            Phase::Ended(End::Failed(_)) => "failed",
            Phase::Ended(End::Lost(_)) => "lost",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a process that said nothing about its end came to it.
pub fn describe_exit(exit: std::io::Result<ExitStatus>) -> String {
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => return format!("its process could not be waited for: {error}"),
    };
    match (exit.signal(), exit.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by signal {number} ({signal})"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(0)) => "its process ended without a result".into(),
        (None, code) => format!("its process exited with status {}", code.unwrap_or(-1)),
    }
}
