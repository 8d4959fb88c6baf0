//! Starting a guest's process, alone or in a memory cgroup with swap devices of the kernel's.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{
    cgroup::Cgroup,
    guest::{Outcome, Spec},
    swap::Swap,
};
use crate::error::Error;

/// How often zram's memory is charged to the guest.
const CHARGE: Duration = Duration::from_millis(5);
/// Less is not worth a change of the limit.
const CHARGE_BYTES: u64 = 128 << 10;

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
    guest.ready()?;
    guest.go()
}

/// Runs a guest on plain memory, of which `spec.allocation_bytes` are in memory at most, zram's own memory included.
///
/// The limit is that much beyond what the process has before the guest starts, less what zram takes by then: it is lowered as zram grows.
/// Page tables, which nobody else's allocation pays for either, are added.
pub fn in_cgroup(spec: &Spec, peer: &Peer) -> Result<Outcome, Error> {
    let zram = peer.zram_bytes.map(Swap::zram).transpose()?;
    let _file = peer.file.as_ref().map(|(directory, bytes)| Swap::file(directory, *bytes)).transpose()?;
    let cgroup = Cgroup::new()?;
    let mut guest = Process::start(&Spec { cgroup: Some(cgroup.members()), ..spec.clone() })?;
    guest.ready()?;
    let page_table_bytes = u64::from(spec.working_set_pages) * 16;
    let room = cgroup.usage_bytes()? + spec.allocation_bytes + page_table_bytes;
    cgroup.set_limit(room)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let charge = scope.spawn(|| charge(&cgroup, room, zram.as_ref(), &done));
        let outcome = guest.go();
        done.store(true, Ordering::Relaxed);
        let charged = charge.join().map_err(|_| Error::Guest("charging zram's memory panicked".to_owned()))?;
        outcome.and_then(|outcome| charged.map(|()| outcome))
    })
}

fn charge(cgroup: &Cgroup, room: u64, zram: Option<&Swap>, done: &AtomicBool) -> Result<(), Error> {
    let mut charged = 0;
    while !done.load(Ordering::Relaxed) {
        let used = zram.map_or(0, Swap::memory_bytes);
        if used.abs_diff(charged) > CHARGE_BYTES {
            charged = used;
            cgroup.set_limit(room.saturating_sub(used))?;
        }
        cgroup.relieve(room.saturating_sub(charged))?;
        thread::sleep(CHARGE);
    }
    Ok(())
}

/// The process of a guest; dropping it kills it.
struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(spec: &Spec) -> Result<Process, Error> {
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

    fn ready(&mut self) -> Result<(), Error> {
        self.line().map(drop)
    }

    fn go(&mut self) -> Result<Outcome, Error> {
        let go = self.child.stdin.take().map_or(Ok(()), |mut input| input.write_all(b"go\n"));
        go.map_err(Error::system("starting a guest"))?;
        let line = self.line()?;
        serde_json::from_str(&line).map_err(io::Error::from).map_err(Error::system("reading a guest's figures"))
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(Error::system("reading from a guest's process"))?;
        if line.is_empty() {
            let status = self.child.wait().map_err(Error::system("waiting for a guest's process"))?;
            return Err(Error::Guest(format!("the process of a guest ended early: {status}")));
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
