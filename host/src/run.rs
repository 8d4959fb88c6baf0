//! A run from beginning to end, embedded: host and guests live and die together.
//!
//! ```text
//!   preflight -> launch -> all built -> all run -> time over -> Stop -> all verified -> Outcome
//!                   |          |           |       all gone       |
//!                   +----------+-----------+------ 1st signal ----+- 2nd signal, grace over: kill -> Outcome
//! ```
//!
//! A guest that is lost on the way ends nothing but itself.

use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::config::RunConfig;
use crate::control::control_loop::{ControlLoop, Limits};
use crate::control::decisions::Decisions;
use crate::control::ledger::Ledger;
use crate::error::Error;
use crate::fleet::accounting::Meter;
use crate::fleet::console;
use crate::fleet::guest::Guest;
use crate::fleet::lives::Fleet;
use crate::fleet::restarts;
use crate::request::admission;
use crate::request::preflight::{self, CheckedRun};
use crate::show::display::{self, Display};
use crate::show::gain::DomainGain;
use crate::show::http;
use crate::show::report::Outcome;
use crate::show::totals::Reclaimed;

/// How long building guests may take: reading images of many GiB from a slow disk.
const START_GRACE: Duration = Duration::from_secs(120);
/// How long guests may take to verify all they hold: every page of 32 guests of 256 MiB coming back through a
/// 100 µs fault, twice.
const STOP_GRACE: Duration = Duration::from_secs(420);
/// The same after Ctrl-C: somebody waits.
const INTERRUPT_GRACE: Duration = Duration::from_secs(5);
/// How long killed processes may take to be reaped; an estimate for large guests.
const KILL_GRACE: Duration = Duration::from_secs(60);

/// Nice value of the threads that read what guests report, grant memory and keep the books: some hundredths
/// of a CPU, without which nobody gets memory. On a host with a hundred threads for each of its CPUs they
/// would wait for seconds otherwise.
const HOST_NICE: i32 = -15;

/// Runs guests as asked for, showing how it goes; an error means that nothing was started.
pub fn run(config: RunConfig) -> Result<Outcome, Error> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().on_thread_start(take_precedence).build();
    let runtime = runtime.map_err(|source| Error::System { doing: "starting the runtime", source })?;
    // The main thread starts the VMMs: they die with the thread that did (see `fleet`), and have its nice
    // value.
    let outcome = runtime.block_on(run_guests(preflight::check(config)?));
    // With it go the VMMs of a run that failed on the way.
    drop(runtime);
    console::detach();
    outcome
}

/// Why a thread could not be put before those of the guests.
static NO_PRECEDENCE: OnceLock<std::io::Error> = OnceLock::new();

/// Puts the calling thread before those of the guests. Allowed with `CAP_SYS_NICE`, or the limit
/// `RLIMIT_NICE`.
fn take_precedence() {
    if let Err(errno) = rustix::process::setpriority_process(None, HOST_NICE) {
        _ = NO_PRECEDENCE.set(errno.into());
    }
}

async fn run_guests(run: CheckedRun) -> Result<Outcome, Error> {
    if let Some(error) = NO_PRECEDENCE.get() {
        tracing::warn!(%error, nice = HOST_NICE, "no precedence over the guests: with many to a CPU, memory may move late");
    }
    let mut signals = Signals::new()?;
    for note in &run.notes {
        // Whoever closed our standard error does not want it.
        let _ = writeln!(display::LogWriter, "ballast: {note}");
    }
    let (config, planned) = (&run.config, &run.guests);
    let grants = admission::initial(config, planned);
    let fleet = Fleet::launch(config, planned, &grants, run.tier).await?;

    let meter = Arc::new(Meter::new(config.budget_bytes));
    let ours = config.rule.is_none().then(|| admission::policy_config(config));
    let decisions = Arc::new(Decisions::new(planned.iter().map(|guest| guest.name.clone()), ours));
    let ledger = Ledger::new(config, planned);
    let display = Display::new(config, Arc::clone(&fleet), Arc::clone(&meter));
    // Dropped, and with it stopped, when this function is left.
    let mut tasks = JoinSet::new();
    let control =
        ControlLoop::new(Arc::clone(&fleet), Arc::clone(&meter), ledger, Arc::clone(&decisions), Limits::of(config));
    tasks.spawn(control.keep_going());
    tasks.spawn(Arc::clone(&meter).keep_sampling(Arc::clone(&fleet), config.sample_every));
    // What the guest prints and the table would spoil each other.
    if !config.has_console() {
        tasks.spawn(display.keep_showing());
    }
    let promise = Arc::new(run.promise);
    let endpoint = http::serve(run.listener, Arc::clone(&fleet), Arc::clone(&meter), decisions, promise)?;
    let restarts = config.restart_every.map(|every| tasks.spawn(restarts::keep_restarting(Arc::clone(&fleet), every)));

    let interrupted = tokio::select! {
        () = live(&fleet, (!config.until_poweroff).then_some(config.duration)) => false,
        () = signals.next() => true,
    };
    restarts.iter().for_each(AbortHandle::abort);
    meter.sample(&fleet).await;
    let before = fleet.views();
    let domains = DomainGain::of(&before, &fleet.domains.views());
    let reclaimed = Reclaimed::of(&before, fleet.frames_bytes());
    let interrupted = end(&fleet, &mut signals, interrupted).await;
    drop(endpoint);
    tasks.shutdown().await;
    display::erase();

    Ok(Outcome {
        budget_bytes: meter.budget.bytes(),
        excess: meter.budget.excess(),
        promised_bytes: planned.iter().map(|guest| guest.memory_bytes).sum(),
        peak_used_bytes: meter.peak_used_bytes(),
        vcpu: config.vcpu,
        linux: config.linux.is_some(),
        reclaimed,
        before,
        domains,
        after: fleet.views(),
        interrupted,
    })
}

/// Until the time is over, if it ever is, or no guest is left to spend it.
async fn live(fleet: &Fleet, duration: Option<Duration>) {
    if fleet.clock.timeout(START_GRACE, fleet.until_all(Guest::has_started)).await.is_none() {
        for guest in fleet.guests.iter().filter(|guest| !guest.has_started()) {
            guest.kill(format!("not built within {} s", START_GRACE.as_secs()));
        }
    }
    fleet.guests.iter().for_each(Guest::run);
    // The time being over is the ordinary end.
    let ended = fleet.until_all(Guest::has_ended);
    match duration {
        Some(duration) => _ = timeout(duration, ended).await,
        None => ended.await,
    }
}

/// Has all guests verify what they hold and end; kills those that take too long. Afterwards no process is
/// left. Returns whether the run was interrupted, now or before.
async fn end(fleet: &Fleet, signals: &mut Signals, mut interrupted: bool) -> bool {
    let grace = if interrupted { INTERRUPT_GRACE } else { START_GRACE };
    // A guest that is being started anew and does not run by then is killed with the words for it.
    let _ = fleet.clock.timeout(grace, restarts::end(fleet)).await;
    fleet.guests.iter().for_each(Guest::stop);
    let graces: &[Duration] = if interrupted { &[INTERRUPT_GRACE] } else { &[STOP_GRACE, INTERRUPT_GRACE] };
    let mut why = "interrupted before it had verified its memory".to_owned();
    for grace in graces {
        tokio::select! {
            () = fleet.until_all(Guest::has_ended) => return interrupted,
            () = signals.next() => interrupted = true,
            () = fleet.clock.sleep(*grace) => {
                why = format!("did not verify its memory within {} s", grace.as_secs());
                break;
            }
        }
    }
    fleet.kill_all(&why);
    if fleet.clock.timeout(KILL_GRACE, fleet.until_all(Guest::has_ended)).await.is_none() {
        tracing::error!("killed VMM processes are still there after {} s", KILL_GRACE.as_secs());
    }
    interrupted
}

/// SIGINT and SIGTERM: both end the run in order, a second one at once.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Error> {
        let listen = |kind| signal(kind).map_err(|source| Error::System { doing: "listening for signals", source });
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
