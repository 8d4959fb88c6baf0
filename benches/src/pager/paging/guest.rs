//! One guest at work in a process of its own: the bare guest and its workload, on KVM or hosted vCPUs, over
//! memory that is Ballast's, plain, or the floor's.
//!
//! ```text
//!   parent                                   this process
//!     start with a Spec          ------>     builds the guest
//!                                <------     "ready"
//!     notes what it has
//!     "fill"                     ------>     fills the working set, pauses
//!                                <------     "filled"
//!     takes what is too much
//!     "go"                       ------>     warms up, measures
//!                                <------     Outcome
//! ```

use std::{
    fs,
    io::{self, BufRead},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use control::status::PagerStatus;
use vmm::{
    BARE_GUEST,
    board::{Board, Bus, Firmware},
    kvm::Vm,
    sys::{self, ram::Ram},
    vcpus::Vcpus,
};
use wire::{
    machine::{BootInfo, METER_BASE},
    mmio,
};

use crate::kit::{clocks, error::Error};
use crate::pager::paging::{
    memory::Memory,
    meter::Meter,
    spec::{Cpu, Outcome, Pager, Spec},
};

/// How often the account is brought up to date, as a VMM does.
const STATUS: Duration = Duration::from_millis(100);
/// Filling may take so long.
const FILL_LIMIT: Duration = Duration::from_secs(60);

/// A vCPU in a page fault comes to a stop when that is served.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// Runs one guest, in the process that is for it; talks to its parent.
pub fn run(spec: &Spec) -> Result<(), Error> {
    sys::die_with_parent().map_err(Error::system("asking to end with the parent"))?;
    if let Some(members) = &spec.cgroup {
        let joined = fs::write(members, std::process::id().to_string());
        joined.map_err(|source| Error::File { path: members.clone(), source })?;
    }
    let mut guest = Guest::build(spec)?;
    say_and_wait("ready")?;
    let fill_seconds = guest.fill(spec)?;
    say_and_wait("filled")?;
    let outcome = guest.measure(spec, fill_seconds)?;
    println!("{}", serde_json::to_string(&outcome).map_err(io::Error::from).map_err(Error::system("writing figures"))?);
    Ok(())
}

fn say_and_wait(word: &str) -> Result<(), Error> {
    println!("{word}");
    let read = io::stdin().lock().read_line(&mut String::new());
    read.map(drop).map_err(Error::system("waiting for the parent's word"))
}

struct Guest {
    board: Arc<Board>,
    meter: Arc<Meter>,
    look: Duration,
    vcpus: Option<Vcpus>,
    // After the vCPUs that use it.
    memory: Memory,
    _vm: Option<Vm>,
}

impl Guest {
    fn build(spec: &Spec) -> Result<Guest, Error> {
        let failed = |error: vmm::Error| Error::Guest(error.to_string());
        // Workloads use half of RAM.
        let pages = 2 * spec.working_set_pages;
        let memory = Memory::new(spec, pages)?;
        let ram_bytes = u64::from(pages) * pager::PAGE_BYTES as u64;
        // SAFETY: `memory` outlives the vCPUs: `Guest::drop` joins them.
        let ram = unsafe { Ram::new(memory.base(), ram_bytes) };
        let boot = BootInfo {
            seed: 42,
            guest: spec.number,
            contents: spec.contents,
            ..BootInfo::new(ram_bytes, spec.workload)
        };
        let mut firmware = Firmware::new(boot).map_err(failed)?;
        let start = firmware.load(BARE_GUEST).map_err(failed)?;
        let firmware = Arc::new(firmware);
        let (mut bus, meter) = (Bus::default(), Arc::new(Meter::default()));
        bus.attach(METER_BASE, mmio::WINDOW_BYTES, meter.clone()).map_err(failed)?;
        let board = Arc::new(Board::new(firmware.clone(), bus, Arc::default()));
        let vm = match spec.cpu {
            Cpu::Kvm => Some(Vm::new(ram, firmware, start).map_err(failed)?),
            Cpu::Hosted => None,
        };
        let vcpus = match &vm {
            Some(vm) => Vcpus::kvm(vm, board.clone()),
            None => Vcpus::hosted(ram, board.clone()),
        };
        let vcpus = vcpus.map_err(failed)?;
        memory.set_vcpu_tids(vcpus.thread_ids());
        if spec.kernel_tier.is_some() {
            // As a VMM does: whoever is to make room must not wait for room itself.
            sys::keep_own_memory(memory.base().cast(), ram_bytes as usize)
                .map_err(Error::system("locking the memory that is not the guest's"))?;
        }
        let look = Duration::from_micros(spec.look_us);
        Ok(Guest { board, meter, look, vcpus: Some(vcpus), memory, _vm: vm })
    }

    /// Fills the working set; how long that took, seconds.
    fn fill(&mut self, spec: &Spec) -> Result<f64, Error> {
        let begun = Instant::now();
        self.vcpus.iter().for_each(Vcpus::resume);
        self.until(1, FILL_LIMIT)?;
        let seconds = begun.elapsed().as_secs_f64();
        let paused = self.vcpus.iter().try_for_each(|vcpus| vcpus.pause(PAUSE_LIMIT));
        paused.map_err(|error| Error::Guest(error.to_string()))?;
        if let Some(bytes) = spec.evict_to_bytes {
            self.memory.evict(bytes, spec.allocation_bytes);
        }
        self.meter.arm();
        Ok(seconds)
    }

    fn measure(&mut self, spec: &Spec, fill_seconds: f64) -> Result<Outcome, Error> {
        self.vcpus.iter().for_each(Vcpus::resume);
        self.until(self.operations() + spec.warm_up.operations, Duration::from_millis(spec.warm_up.limit_ms))?;
        let (before, cpu_before, at) = (self.memory.status()?, clocks::process()?, Instant::now());
        let waits_before = self.meter.waits();
        let first = self.operations();
        self.until(first + spec.measured.operations, Duration::from_millis(spec.measured.limit_ms))?;
        let (operations, seconds) = (self.operations() - first, at.elapsed().as_secs_f64());
        let waits = self.meter.waits().iter().zip(waits_before).map(|(after, before)| after - before).collect();
        let cpu_seconds = (clocks::process()? - cpu_before).as_secs_f64();
        let after = self.memory.status()?;
        let report = self.board.firmware.report(0);
        Ok(Outcome {
            fill_seconds,
            operations,
            seconds,
            cpu_seconds,
            held_bytes: after.as_ref().map_or(0.0, |status| status.resident_bytes as f64),
            corrupt_pages: report.pages_corrupt.load(Ordering::Relaxed),
            touches: self.meter.touches(),
            waits,
            ballast: before.zip(after).map(|(before, after)| pager(&before, &after)),
        })
    }

    fn operations(&self) -> u64 {
        self.board.firmware.report(0).operations.load(Ordering::Relaxed)
    }

    /// Waits until the guest has done so much, or for so long.
    fn until(&mut self, operations: u64, limit: Duration) -> Result<(), Error> {
        let (begun, mut status_at) = (Instant::now(), Instant::now());
        while self.operations() < operations && begun.elapsed() < limit {
            self.board.set_clock();
            thread::sleep(self.look);
            if status_at.elapsed() > STATUS {
                status_at = Instant::now();
                self.memory.status()?;
            }
            if let Some(vcpus) = self.vcpus.take_if(|vcpus| vcpus.wait(Duration::ZERO)) {
                let why = vcpus.join().map_or_else(|error| error.to_string(), |codes| format!("exit codes {codes:?}"));
                return Err(Error::Guest(format!("the vCPU stopped: {why}")));
            }
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(vcpus) = self.vcpus.take() {
            vcpus.kill();
            // That it was killed is all it has to say.
            let _ = vcpus.join();
        }
    }
}

fn pager(before: &PagerStatus, after: &PagerStatus) -> Pager {
    let faults = |status: &PagerStatus| {
        status.faults_missing_total + status.faults_minor_total + status.faults_write_protect_total
    };
    let each_us = |ns: u64, count: u64| ns as f64 / 1e3 / count.max(1) as f64;
    let promotions = after.promotions_total - before.promotions_total;
    let evictions = after.evictions_total - before.evictions_total;
    Pager {
        private_pages: after.pages.private - after.kernel_pages,
        compressed_pages: after.pages.compressed,
        swapped_pages: after.pages.swapped,
        pool_bytes: after.pool_bytes,
        faults: faults(after) - faults(before),
        promotions,
        evictions,
        in_cpu_us: each_us(after.fault_cpu_ns - before.fault_cpu_ns, promotions),
        out_cpu_us: each_us(after.evict_cpu_ns - before.evict_cpu_ns, evictions),
    }
}
