//! One guest, whole: memory, firmware, devices, vCPUs, scanner.
//!
//! ```text
//!   vCPUs ──exit──► board ──► bus ──► balloon (virtio-mmio), console
//!     │                                  │ ioeventfd
//!     │ fault                            ▼
//!     ▼                              device thread ──ranges──► GuestPages ──┐
//!   pager::GuestMemory ◄────────────────────────────────────────────────────┤
//!     ▲  fault thread, evictor thread                                       │
//!     └───────────────── scanner thread ──share, drop_zero──► GuestPages ───┘
//! ```
//!
//! Here is its life, from the first `resume` to the verdict. `build` makes it, of the parts of `bare` or
//! `linux`; `orders` are what the host wishes meanwhile, `status` is what it is told.

mod assembled;
mod bare;
mod build;
mod hold;
mod kernel;
mod linux;
mod orders;
mod scanner_thread;
mod status;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use control::{GuestConfig, status::WorkloadStatus};
use pager::GuestMemory;
use vm_memory::GuestMemoryMmap;

use self::{assembled::Around, hold::Hold, kernel::Loading, scanner_thread::ScannerThread};
pub use self::{bare::BARE_GUEST, build::Inherited};
use crate::{
    Error,
    devices::{DeviceThread, Devices},
    failure::Failures,
    kvm::Vm,
    memory::{Image, ReportPace},
    sync::lock,
    vcpus::Vcpus,
};

/// A guest that is built.
pub struct Machine {
    config: GuestConfig,
    start: Instant,
    image: Option<Image>,
    /// What is yet to be loaded of a kernel.
    kernel: Mutex<Option<Loading>>,
    memory: Arc<GuestMemory>,
    /// RAM as devices see it.
    devices_view: Arc<GuestMemoryMmap<()>>,
    around: Around,
    devices: Devices,
    vcpus: Option<Vcpus>,
    scanner: Option<ScannerThread>,
    reports: Arc<ReportPace>,
    failures: Failures,
    pages_compared: AtomicU64,
    hold: Mutex<Hold>,
    // Dropped in this order: who touches guest memory before who serves its faults.
    _device_threads: Vec<DeviceThread>,
    _threads: pager::Threads,
    _vm: Option<Vm>,
}

impl Machine {
    /// Fills RAM from the image or the kernel, if there is one, on a thread of its own. Nothing else has to
    /// wait for it: the scanner takes from a budget too small for all images what they have in common while
    /// they are being read.
    pub fn load(&self) -> Result<Option<JoinHandle<Result<(), Error>>>, Error> {
        let memory = self.memory.clone();
        let load: Box<dyn FnOnce() -> Result<(), Error> + Send> = match (self.image.clone(), lock(&self.kernel).take())
        {
            (Some(image), _) => Box::new(move || image.load(&memory)),
            (None, Some(kernel)) => Box::new(move || kernel.load(&memory)),
            (None, None) => return Ok(None),
        };
        thread::Builder::new().name("image".into()).spawn(load).map(Some).map_err(Error::system("starting the loader"))
    }

    /// Lets the vCPUs run.
    pub fn resume(&self) {
        lock(&self.hold).set_runs(true);
        self.memory.resume();
        self.vcpus.iter().for_each(Vcpus::resume);
    }

    /// Holds running vCPUs back for so long. Does not wait for them to leave the guest: one that waits for a
    /// page is held back by that, and leaves when it has it.
    pub fn hold(&self, time: Duration) {
        let mut hold = lock(&self.hold);
        if hold.begin(time, Instant::now()) {
            self.vcpus.iter().for_each(Vcpus::hold);
        }
    }

    /// Lets vCPUs go on that were held back long enough.
    pub fn end_hold(&self) {
        let mut hold = lock(&self.hold);
        if hold.end(Instant::now()) {
            self.vcpus.iter().for_each(Vcpus::resume);
        }
    }

    /// Stops the vCPUs where they are.
    pub fn pause(&self, timeout: Duration) -> Result<(), Error> {
        lock(&self.hold).set_runs(false);
        self.memory.pause();
        self.vcpus.iter().try_for_each(|vcpus| vcpus.pause(timeout))
    }

    /// Stops the vCPUs without waiting for that: one that waits for a page leaves the guest when it has it. A
    /// status says that they are paused when all have left.
    pub fn order_pause(&self) {
        lock(&self.hold).set_runs(false);
        self.memory.pause();
        self.vcpus.iter().for_each(Vcpus::hold);
    }

    /// Asks the guest to end: a bare one verifies what it holds and exits, a PC's power button is pressed.
    pub fn stop_guest(&self) {
        match &self.around {
            Around::Bare(board) => board.stop_guest(),
            Around::Pc(board) => board.press(),
        }
    }

    /// Whether all vCPUs have ended.
    pub fn has_ended(&self) -> bool {
        self.vcpus.as_ref().is_none_or(|vcpus| vcpus.wait(Duration::ZERO))
    }

    /// Takes the vCPUs' verdict, once they have ended, and compares RAM with the image it came from.
    pub fn verdict(&mut self) -> Result<(), String> {
        let codes = self.vcpus.take().map_or(Ok(Vec::new()), Vcpus::join);
        if let Around::Pc(board) = &self.around {
            return linux::verdict(board, codes.err());
        }
        let codes = codes.map_err(|error| error.to_string())?;
        if let Some(vcpu) = codes.iter().position(|&code| code != 0) {
            return Err(match self.workload_status() {
                WorkloadStatus { pages_corrupt_total: 0, .. } => {
                    format!("vcpu {vcpu} exited with code {}", codes[vcpu])
                }
                status => format!(
                    "{} corrupt pages, the first at {:#x}",
                    status.pages_corrupt_total, status.first_corrupt_gpa
                ),
            });
        }
        if let Some(image) = &self.image {
            let compared = image.compare(&self.devices_view)?;
            self.pages_compared.store(compared, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Ends the vCPUs where they are.
    pub fn kill(&self) {
        self.vcpus.iter().for_each(Vcpus::kill);
    }

    /// What a bare guest polls: its clock.
    pub fn tick(&self) {
        if let Around::Bare(board) = &self.around {
            board.set_clock();
        }
    }

    /// Whether the guest does not need [`Machine::tick`]: all vCPUs are parked, and the clock is set for them
    /// as they go on; or it has a clock of its own, but for its end, which wants to be seen soon.
    pub fn is_parked(&self) -> bool {
        match &self.around {
            Around::Bare(board) => board.is_parked(),
            Around::Pc(_) => false,
        }
    }

    /// The guest's RAM.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.scanner = None;
        if let Some(vcpus) = self.vcpus.take() {
            vcpus.kill();
            let _ = vcpus.join();
        }
    }
}
