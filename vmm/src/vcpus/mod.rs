//! All vCPUs of a guest, KVM or hosted, as one thing: threads `vcpu0`, `vcpu1`, ... that run, pause, and end.
//!
//! ```text
//!   Vcpus::kvm / hosted      threads exist, none runs
//!     resume  <-->  pause
//!     Board::stop_guest      the (bare) guest verifies what it holds, and every vCPU ends with its code
//!     kill                   every vCPU ends where it is, or (hosted) where it next touches a register
//!   join                     the codes, or what went wrong first
//! ```
//!
//! A vCPU that fails takes the others with it. Not in here: any timeout for the guest itself; a guest that
//! does not stop when asked is its owner's to kill.

mod hosted;

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use guest_driver::BareGuest;

use self::hosted::{HostedMachine, Unwound};
use crate::{
    Error,
    board::{Board, Order, Surroundings},
    kvm::Vm,
    sys::{kick, ram::Ram},
};

struct Thread {
    tid: i32,
    handle: JoinHandle<Result<u32, Error>>,
}

/// See the module's description. Dropping it without [`Vcpus::join`] lets the threads go on alone.
pub struct Vcpus {
    board: Arc<dyn Surroundings>,
    threads: Vec<Thread>,
}

impl Vcpus {
    /// Makes the vCPUs of `vm`, each on its thread, at the gate.
    pub fn kvm(vm: &Vm, board: Arc<dyn Surroundings>) -> Result<Self, Error> {
        let vcpus = (0..vm.vcpus()).map(|vcpu| vm.vcpu(vcpu)).collect::<Result<Vec<_>, _>>()?;
        Self::spawn(board, vcpus.into_iter().map(|vcpu| move |board: &dyn Surroundings| vcpu.run(board)))
    }

    /// Makes the vCPUs that `board`'s firmware speaks of as host threads, at the gate.
    pub fn hosted(ram: Ram, board: Arc<Board>) -> Result<Self, Error> {
        let guest = Arc::new(BareGuest::new(HostedMachine::new(ram, board.clone())));
        let vcpus = 0..board.firmware.boot().vcpus;
        Self::spawn(
            board,
            vcpus.map(|vcpu| {
                let guest = guest.clone();
                move |board: &dyn Surroundings| {
                    board.gate().pass().map_err(|_| Error::VcpuKilled(vcpu))?;
                    match panic::catch_unwind(AssertUnwindSafe(|| guest.run(vcpu))) {
                        Ok(code) => Ok(code),
                        Err(payload) => outcome(vcpu, payload),
                    }
                }
            }),
        )
    }

    fn spawn<F>(board: Arc<dyn Surroundings>, bodies: impl Iterator<Item = F>) -> Result<Self, Error>
    where
        F: FnOnce(&dyn Surroundings) -> Result<u32, Error> + Send + 'static,
    {
        // For hosted vCPUs too: a kick without a handler would end the process.
        kick::install().map_err(Error::system("installing the vCPUs' signal handler"))?;
        let mut vcpus = Self { board, threads: Vec::new() };
        for (vcpu, body) in bodies.enumerate() {
            match vcpus.spawn_one(vcpu, body) {
                Ok(thread) => vcpus.threads.push(thread),
                Err(source) => {
                    vcpus.kill();
                    let _ = vcpus.join();
                    return Err(Error::System { doing: "starting a vCPU thread", source });
                }
            }
        }
        Ok(vcpus)
    }

    fn spawn_one<F>(&self, vcpu: usize, body: F) -> std::io::Result<Thread>
    where
        F: FnOnce(&dyn Surroundings) -> Result<u32, Error> + Send + 'static,
    {
        let board = self.board.clone();
        let (started, start) = mpsc::channel();
        let handle = thread::Builder::new().name(format!("vcpu{vcpu}")).spawn(move || {
            let _inside = board.gate().enter();
            // The receiver waits for exactly this.
            let _ = started.send(kick::thread_id());
            let result = body(&*board);
            if result.is_err() {
                board.gate().set(Order::Kill);
            }
            result
        })?;
        let tid = start.recv().map_err(std::io::Error::other)?;
        Ok(Thread { tid, handle })
    }

    /// Lets the vCPUs run.
    pub fn resume(&self) {
        self.board.gate().set(Order::Run);
    }

    /// Stops the vCPUs where they are; returns once none of them executes guest code or a device's, or with
    /// an error after `timeout`, when the order to pause still stands.
    pub fn pause(&self, timeout: Duration) -> Result<(), Error> {
        self.board.gate().set(Order::Pause);
        self.kick();
        let late = |inside| Error::PauseTimeout { inside, waited_ms: timeout.as_millis() };
        self.board.gate().wait_until_empty(timeout).map_err(late)
    }

    /// Has the vCPUs wait at the gate as soon as each of them comes there; does not wait for that.
    pub fn hold(&self) {
        self.board.gate().set(Order::Pause);
        self.kick();
    }

    /// None of them executes guest code or a device's.
    pub fn are_held(&self) -> bool {
        self.board.gate().is_empty()
    }

    /// Ends the vCPUs where they are.
    pub fn kill(&self) {
        self.board.gate().set(Order::Kill);
        self.kick();
    }

    /// The vCPU threads' ids, in order of vCPU.
    pub fn thread_ids(&self) -> Vec<i32> {
        self.threads.iter().map(|thread| thread.tid).collect()
    }

    /// Waits until all vCPUs have ended, so that [`Vcpus::join`] does not block, or for `timeout`; whether
    /// they have.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.board.gate().wait_until_deserted(timeout)
    }

    /// Waits for all vCPUs to end: their exit codes, or the error that ended them.
    pub fn join(self) -> Result<Vec<u32>, Error> {
        let results = self
            .threads
            .into_iter()
            .enumerate()
            .map(|(vcpu, thread)| thread.handle.join().unwrap_or(Err(Error::VcpuPanicked(vcpu as u32))));
        let results: Vec<_> = results.collect();
        // A vCPU that was killed because another failed is not the news.
        let is_news =
            |result: &&Result<u32, Error>| matches!(result, Err(error) if !matches!(error, Error::VcpuKilled(_)));
        match results.iter().position(|result| is_news(&result)) {
            Some(first) => results.into_iter().nth(first).into_iter().collect(),
            None => results.into_iter().collect(),
        }
    }

    fn kick(&self) {
        self.threads.iter().filter(|thread| !thread.handle.is_finished()).for_each(|thread| kick::kick(thread.tid));
    }
}

/// What became of a hosted vCPU whose thread unwound.
fn outcome(vcpu: u32, payload: Box<dyn Any + Send>) -> Result<u32, Error> {
    match payload.downcast_ref() {
        Some(&Unwound::Exit(code)) => Ok(code),
        Some(Unwound::Killed) => Err(Error::VcpuKilled(vcpu)),
        None => Err(Error::VcpuPanicked(vcpu)),
    }
}
