//! Starting a guest's process, alone or in a memory cgroup with swap devices of the kernel's.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::kit::{clocks, error::Error};
use crate::pager::paging::{
    cgroup::Cgroup,
    spec::{Outcome, Spec},
    swap::Swap,
};

/// How often its memory is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// What a guest has too much of may take so long to be reclaimed while it is paused.
const SHRINK_LIMIT: Duration = Duration::from_secs(10);
/// Looks in which an excess is to be made up for.
const EXCESS_LOOKS: u32 = 50;
/// This little too much is no matter.
const LESS_BYTES: u64 = 128 << 10;
/// What is taken from a guest that is stuck at its limit, bytes.
const SQUEEZE_BYTES: u64 = 1 << 20;
/// What it is to have less at most because of that, bytes.
const EXCESS_BYTES_MAX: f64 = (2u64 << 20) as f64;

/// What a guest on plain memory has instead of a pager.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// zram that takes so many bytes of pages.
    pub zram_bytes: Option<u64>,
    /// A swap file in this directory, of so many bytes.
    pub file: Option<(PathBuf, u64)>,
}

/// Runs a guest on Ballast's memory, or the floor's.
pub fn alone(spec: &Spec) -> Result<Outcome, Error> {
    let mut guest = Process::start(spec)?;
    guest.line()?;
    guest.say("fill")?;
    guest.line()?;
    guest.measure()
}

/// Runs a guest on Ballast's memory with a zram device before its pool, in a cgroup that holds it to its
/// allocation, as the host does.
pub fn with_tier(spec: &Spec, peer: &Peer) -> Result<Outcome, Error> {
    let zram = peer.zram_bytes.map(Swap::zram).transpose()?;
    let cgroup = Cgroup::new()?;
    cgroup.spare()?;
    let kernel_tier = zram.as_ref().and_then(Swap::statistics);
    let spec = Spec { kernel_tier, ..spec.clone() };
    let (mut guest, holding) = filled_in(cgroup, zram, &spec)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let limit = scope.spawn(|| holding.limit_until(&done));
        let outcome = guest.measure();
        done.store(true, Ordering::Relaxed);
        let held = limit.join().map_err(|_| Error::Guest("limiting a cgroup panicked".to_owned()))??;
        Ok(Outcome { held_bytes: held.bytes, ..outcome? })
    })
}

/// Runs a guest on plain memory, of which `spec.allocation_bytes` are in memory on average, zram's own memory
/// included.
///
/// What the process has before the guest starts is not the guest's; nor are page tables, which nobody else's
/// allocation pays for either. The guest fills its memory first, then it is cut down to what it is to have,
/// and only then is it measured.
pub fn in_cgroup(spec: &Spec, peer: &Peer) -> Result<Outcome, Error> {
    let zram = peer.zram_bytes.map(Swap::zram).transpose()?;
    let _file = peer.file.as_ref().map(|(directory, bytes)| Swap::file(directory, *bytes)).transpose()?;
    let cgroup = Cgroup::new()?;
    let (mut guest, holding) = filled_in(cgroup, zram, spec)?;
    let begun = Instant::now();
    while holding.held_bytes()? > spec.allocation_bytes + LESS_BYTES && begun.elapsed() < SHRINK_LIMIT {
        holding.hold(0)?;
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let hold = scope.spawn(|| holding.hold_until(&done));
        let outcome = guest.measure();
        done.store(true, Ordering::Relaxed);
        let held = hold.join().map_err(|_| Error::Guest("holding a cgroup panicked".to_owned()))??;
        let outcome = outcome?;
        // What the kernel reclaimed on that thread is the guest's cost, too.
        let cpu_seconds = outcome.cpu_seconds + held.cpus * outcome.seconds;
        Ok(Outcome { held_bytes: held.bytes, cpu_seconds, ..outcome })
    })
}

/// Starts a guest in `cgroup` and has it fill its memory. What is there before it has any is not the guest's.
fn filled_in(cgroup: Cgroup, zram: Option<Swap>, spec: &Spec) -> Result<(Process, Holding), Error> {
    let mut guest = Process::start(&Spec { cgroup: Some(cgroup.members()), ..spec.clone() })?;
    guest.line()?;
    let page_table_bytes = u64::from(spec.working_set_pages) * 16;
    let beside_bytes = cgroup.usage_bytes()? + page_table_bytes;
    guest.say("fill")?;
    guest.line()?;
    Ok((guest, Holding { cgroup, zram, allocation_bytes: spec.allocation_bytes, beside_bytes }))
}

/// How a guest was kept at its allocation.
struct Held {
    /// What it had on average.
    bytes: f64,
    /// CPUs that took, on average.
    cpus: f64,
}

/// A guest's memory where the kernel manages it.
struct Holding {
    cgroup: Cgroup,
    zram: Option<Swap>,
    allocation_bytes: u64,
    /// What is in the cgroup but not the guest's.
    beside_bytes: u64,
}

impl Holding {
    fn zram_bytes(&self) -> u64 {
        self.zram.as_ref().map_or(0, Swap::memory_bytes)
    }

    /// What the guest has now.
    fn held_bytes(&self) -> Result<u64, Error> {
        Ok((self.cgroup.usage_bytes()? + self.zram_bytes()).saturating_sub(self.beside_bytes))
    }

    /// What may be in the cgroup now.
    fn room_bytes(&self) -> u64 {
        (self.allocation_bytes + self.beside_bytes).saturating_sub(self.zram_bytes())
    }

    /// Takes what is above the allocation, less so much.
    fn hold(&self, less_bytes: u64) -> Result<(), Error> {
        self.cgroup.hold(self.room_bytes().saturating_sub(less_bytes))
    }

    /// Has the kernel stop what goes beyond the allocation by more than a little, and looks what there is.
    fn limit_until(&self, done: &AtomicBool) -> Result<Held, Error> {
        let (mut sum_bytes, mut looks) = (0.0, 0u32);
        while !done.load(Ordering::Relaxed) {
            (sum_bytes, looks) = (sum_bytes + self.held_bytes()? as f64, looks + 1);
            if self.cgroup.waits() {
                // As the host does with a group that is stuck: the kernel is to make room.
                self.hold(SQUEEZE_BYTES)?;
            } else {
                self.cgroup.limit_above(self.room_bytes())?;
            }
            thread::sleep(LOOK);
        }
        Ok(Held { bytes: sum_bytes / f64::from(looks.max(1)), cpus: 0.0 })
    }

    /// Keeps the guest at its allocation on average.
    fn hold_until(&self, done: &AtomicBool) -> Result<Held, Error> {
        let begun = Instant::now();
        let (mut sum_bytes, mut looks) = (0.0, 0u32);
        while !done.load(Ordering::Relaxed) {
            (sum_bytes, looks) = (sum_bytes + self.held_bytes()? as f64, looks + 1);
            // What it had too much of so far, it has too little of from now on.
            let excess = sum_bytes - self.allocation_bytes as f64 * f64::from(looks);
            self.hold((excess / f64::from(EXCESS_LOOKS)).clamp(0.0, EXCESS_BYTES_MAX) as u64)?;
            thread::sleep(LOOK);
        }
        let cpu = clocks::this_thread()?;
        Ok(Held { bytes: sum_bytes / f64::from(looks.max(1)), cpus: cpu.as_secs_f64() / begun.elapsed().as_secs_f64() })
    }
}

/// The process of a guest; dropping it kills it.
pub(super) struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    pub fn start(spec: &Spec) -> Result<Process, Error> {
        let this = std::env::current_exe().map_err(Error::system("finding this program"))?;
        let text = serde_json::to_string(spec).map_err(io::Error::from).map_err(Error::system("writing a plan"))?;
        let mut command = Command::new(this);
        command.arg("pager-guest").arg(text).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(Error::system("starting a guest's process"))?;
        match child.stdout.take() {
            Some(output) => Ok(Process { child, output: BufReader::new(output) }),
            None => Err(Error::Guest("its process has no output".to_owned())),
        }
    }

    pub fn say(&mut self, word: &str) -> Result<(), Error> {
        let said = self.child.stdin.as_mut().map_or(Ok(()), |input| writeln!(input, "{word}"));
        said.map_err(Error::system("talking to a guest's process"))
    }

    /// Lets the guest, which has filled its memory, go on.
    fn measure(&mut self) -> Result<Outcome, Error> {
        self.say("go")?;
        self.outcome()
    }

    /// What it has measured, once it has.
    pub fn outcome(&mut self) -> Result<Outcome, Error> {
        let line = self.line()?;
        serde_json::from_str(&line).map_err(io::Error::from).map_err(Error::system("reading a guest's figures"))
    }

    /// The next word of the guest's process.
    pub fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(Error::system("reading from a guest's process"))?;
        if line.is_empty() {
            let status = self.child.wait().map_err(Error::system("waiting for a guest's process"))?;
            return Err(Error::GuestEnded(status));
        }
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is gone already is where it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
