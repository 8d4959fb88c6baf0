//! One guest, whole: memory, firmware, devices, vCPUs, scanner, wired together.
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

use std::{
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use balloon::Balloon;
use control::{
    Dedup, GuestConfig, MergeRequest, Reclaim, Round, Starved, VcpuKind,
    status::{BalloonStatus, GuestStatus, WorkloadStatus},
};
use dedup::{Scanner, ScannerConfig, ScannerHandle};
use pager::{GuestMemory, PAGE_BYTES, SlotFile, StoreView, SwapFile};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use wire::{
    machine::{self, ACTIVE_OWN, BALLOON_BASE, BOOT_MAGIC, BootInfo, CONSOLE_BASE, CONTENTS_OWN, METER_BASE, Workload},
    mmio,
};

use crate::{
    Error,
    board::{Board, Bus, Firmware, Gate, InterruptLine},
    devices::{
        Console, DeviceThread, Meter,
        virtio_mmio::{BalloonDevice, VirtioMmio, Wires},
    },
    failure::Failures,
    kvm::Vm,
    memory::{GuestPages, Image, ReportPace},
    sys::{self, ram::Ram},
    vcpus::Vcpus,
};

/// The bare guest, built with this program: an ELF file that starts on this VMM's machine and, by its PVH entry, on QEMU's `microvm`.
pub const BARE_GUEST: &[u8] = include_bytes!(env!("BALLAST_BARE_GUEST"));
/// How often a guest is asked for its statistics until the host says otherwise.
const STATISTICS_INTERVAL_MS: u64 = 1000;
/// Memory a VMM takes besides its guest's, before it has been measured: page-state tables, threads, buffers.
const OVERHEAD_BYTES: u64 = 1 << 20;
/// Longest a guest is held back at a time: its clock must not stand still for longer than a scheduler's slice.
const HOLD_MAX: Duration = Duration::from_millis(100);
/// Bytes of tables a guest page costs: 8 for its state, 4 for its placement, 8 for the counts of its two frames, 5 for dedup.
pub const TABLE_BYTES_PER_PAGE: u64 = 25;

type BalloonMmio = VirtioMmio<BalloonDevice<GuestPages>, Arc<GuestMemoryMmap<()>>, BalloonWires>;

struct BalloonWires {
    line: InterruptLine,
    queues: Vec<EventFd>,
}

impl Wires for BalloonWires {
    fn set_interrupt(&self, asserted: bool) {
        self.line.set(asserted);
    }

    fn notify(&self, index: usize) {
        // Fails only when the counter would overflow, and then it has been rung.
        let _ = self.queues[index].write(1);
    }
}

/// A guest that is built.
pub struct Machine {
    config: GuestConfig,
    start: Instant,
    image: Option<Image>,
    memory: Arc<GuestMemory>,
    devices_view: Arc<GuestMemoryMmap<()>>,
    board: Arc<Board>,
    meter: Arc<Meter>,
    /// The device, and what rings its queues.
    balloon: Option<(Arc<BalloonMmio>, Vec<EventFd>)>,
    vcpus: Option<Vcpus>,
    scanner: Option<ScannerThread>,
    reports: Arc<ReportPace>,
    failures: Failures,
    pages_compared: AtomicU64,
    held: Mutex<Held>,
    // Dropped in this order: who touches guest memory before who serves its faults.
    _device_thread: Option<DeviceThread>,
    _threads: pager::Threads,
    _vm: Option<Vm>,
}

/// Whether the vCPUs are to run, and whether they are held back all the same.
#[derive(Default)]
struct Held {
    runs: bool,
    since: Option<Instant>,
    until: Option<Instant>,
    ns_total: u64,
}

struct ScannerThread {
    handle: ScannerHandle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Builds the guest; its vCPUs wait at the gate. `send` carries the scanner's requests to the host, whose
    /// answers are posted to `handle`.
    pub fn build(
        config: GuestConfig,
        store: OwnedFd,
        published: &OwnedFd,
        swap: Option<OwnedFd>,
        failures: Failures,
        handle: ScannerHandle,
        send: impl FnMut(MergeRequest) + Send + 'static,
    ) -> Result<Machine, Error> {
        let pages =
            u32::try_from(config.memory_bytes / PAGE_BYTES as u64).map_err(|_| Error::RamSize(config.memory_bytes))?;
        let store =
            StoreView::new(store, published, config.store_frames).map_err(Error::system("mapping the frame store"))?;
        let image = config.image.as_deref().map(|path| Image::open(path, pages)).transpose()?;
        let pager_config = pager::Config {
            pages,
            allocation_bytes: config.allocation_bytes,
            overhead_bytes: sys::anonymous_bytes() + OVERHEAD_BYTES + u64::from(pages) * TABLE_BYTES_PER_PAGE,
            evict: config.levers.pager,
            fault_threads: fault_threads(config.vcpus),
            vma_budget: config.vma_budget,
            swap: swap.map(swap_file).transpose()?,
            image: image.clone().map(|image| Box::new(image) as _),
            prefetch: config.prefetch,
        };
        let reporter = failures.clone();
        let on_failure = Box::new(move |failure: pager::Failure| reporter.report(failure.to_string()));
        let (memory, threads) = GuestMemory::new(pager_config, store, on_failure).map_err(Error::Memory)?;
        let devices_view = Arc::new(sys::ram::guest_memory(memory.base(), config.memory_bytes)?);

        let mut firmware = Firmware::new(boot_info(&config))?;
        let start = match config.vcpu {
            VcpuKind::Kvm => Some(firmware.load(BARE_GUEST)?),
            VcpuKind::Hosted => None,
        };
        let firmware = Arc::new(firmware);
        let gate = Arc::new(Gate::default());
        let guest_pages = GuestPages::new(memory.clone(), failures.clone());
        let reports = guest_pages.reports().clone();
        let mut bus = Bus::default();
        bus.attach(CONSOLE_BASE, mmio::WINDOW_BYTES, Arc::new(Console::to_log(config.name.clone())))?;
        let meter = Arc::new(Meter::default());
        bus.attach(METER_BASE, mmio::WINDOW_BYTES, meter.clone())?;
        let line = InterruptLine::new(firmware.clone(), gate.clone());
        let balloon = match firmware.boot().balloon {
            0 => None,
            _ => Some(attach_balloon(&mut bus, pages, guest_pages.clone(), devices_view.clone(), line)?),
        };
        let board = Arc::new(Board::new(firmware.clone(), bus, gate));

        // SAFETY: `memory` is dropped last: its owner is this machine, which joins the vCPUs or exits the process first.
        let ram = unsafe { Ram::new(memory.base(), config.memory_bytes) };
        let (vm, vcpus) = match start {
            Some(start) => {
                let vm = Vm::new(ram, firmware.clone(), start)?;
                let vcpus = Vcpus::kvm(&vm, board.clone())?;
                (Some(vm), vcpus)
            }
            None => (None, Vcpus::hosted(ram, board.clone())?),
        };
        memory.set_vcpu_tids(vcpus.thread_ids());
        let device_thread =
            balloon.as_ref().map(|(balloon, events)| spawn_devices(balloon, events, vm.as_ref())).transpose()?;
        let scanner = ScannerConfig {
            cpu_share: config.scanner_cpu_share,
            idle_cpu_share: config.scanner_idle_cpu_share,
            zero_pages_only: config.levers.dedup == Dedup::ZeroPagesOnly,
            ..ScannerConfig::new(config.hash_secret)
        };
        let scanner = (config.levers.dedup != Dedup::Off)
            .then(|| ScannerThread::spawn(guest_pages, scanner, handle, send))
            .transpose()?;
        if let Some(ScannerThread { handle, .. }) = &scanner {
            let handle = handle.clone();
            memory.set_scanner(Box::new(move || handle.hurry()));
        }
        let machine = Machine {
            start: Instant::now(),
            image,
            memory,
            devices_view,
            board,
            meter,
            balloon,
            vcpus: Some(vcpus),
            scanner,
            reports,
            failures,
            pages_compared: AtomicU64::new(0),
            held: Mutex::default(),
            _device_thread: device_thread,
            _threads: threads,
            _vm: vm,
            config,
        };
        machine.allocate(machine.config.allocation_bytes, machine.config.balloon_bytes);
        machine.set_statistics_interval_ms(STATISTICS_INTERVAL_MS);
        Ok(machine)
    }

    /// Fills RAM from the image, if there is one, on a thread of its own. Nothing else has to wait for it: the scanner takes from a
    /// budget too small for all images what they have in common while they are being read.
    pub fn load_image(&self) -> Result<Option<JoinHandle<Result<(), Error>>>, Error> {
        let Some(image) = self.image.clone() else { return Ok(None) };
        let memory = self.memory.clone();
        let load = move || image.load(&memory);
        thread::Builder::new().name("image".into()).spawn(load).map(Some).map_err(Error::system("starting the loader"))
    }

    /// Lets the vCPUs run.
    pub fn resume(&self) {
        self.held().runs = true;
        self.memory.resume();
        self.vcpus.iter().for_each(Vcpus::resume);
    }

    /// Holds running vCPUs back for so long. Does not wait for them to leave the guest: one that waits for a page may not leave before
    /// it has that, and is held back by that all the same.
    pub fn hold(&self, time: Duration) {
        let mut held = self.held();
        if held.runs && held.since.is_none() {
            let now = Instant::now();
            (held.since, held.until) = (Some(now), Some(now + time.min(HOLD_MAX)));
            self.vcpus.iter().for_each(Vcpus::hold);
        }
    }

    /// Lets vCPUs go on that were held back long enough.
    pub fn end_hold(&self) {
        let mut held = self.held();
        if let Some(since) = held.since
            && held.until.is_some_and(|until| Instant::now() >= until)
        {
            held.ns_total += since.elapsed().as_nanos() as u64;
            (held.since, held.until) = (None, None);
            if held.runs {
                self.vcpus.iter().for_each(Vcpus::resume);
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the vCPUs where they are.
    pub fn pause(&self, timeout: Duration) -> Result<(), Error> {
        self.held().runs = false;
        self.memory.pause();
        self.vcpus.iter().try_for_each(|vcpus| vcpus.pause(timeout))
    }

    /// Stops the vCPUs without waiting for that: one that waits for a page leaves the guest when it has it. [`GuestStatus::paused`] says when all
    /// have left.
    pub fn order_pause(&self) {
        self.held().runs = false;
        self.memory.pause();
        self.vcpus.iter().for_each(Vcpus::hold);
    }

    /// A new allocation and balloon request, bytes.
    pub fn allocate(&self, allocation_bytes: u64, balloon_bytes: u64) {
        self.memory.set_allocation(allocation_bytes);
        if let Some((balloon, _)) = &self.balloon {
            let pages = u32::try_from(balloon_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX);
            balloon.configure(|device| device.balloon().set_requested_pages(pages));
        }
    }

    /// What becomes of the guest if it finds no page.
    pub fn set_starved(&self, starved: Starved) {
        self.memory.set_starved(starved);
    }

    /// When pages are evicted from now on.
    pub fn set_reclaim(&self, when: Reclaim) {
        self.memory.set_proactive(when == Reclaim::Proactively);
    }

    /// Asks the guest to verify what it holds and to exit.
    pub fn stop_guest(&self) {
        self.board.stop_guest();
    }

    /// Whether all vCPUs have ended.
    pub fn has_ended(&self) -> bool {
        self.vcpus.as_ref().is_none_or(|vcpus| vcpus.wait(Duration::ZERO))
    }

    /// Takes the vCPUs' verdict, once they have ended, and compares RAM with the image it came from.
    pub fn verdict(&mut self) -> Result<(), String> {
        let codes = self.vcpus.take().map_or(Ok(Vec::new()), Vcpus::join).map_err(|error| error.to_string())?;
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

    /// What the guest polls: its clock.
    pub fn tick(&self) {
        self.board.set_clock();
    }

    /// Whether all vCPUs are parked; the clock is set for them as they go on.
    pub fn is_parked(&self) -> bool {
        self.board.is_parked()
    }

    /// Has the guest say how it is this often from now on, ms; 0 for never.
    pub fn set_statistics_interval_ms(&self, interval_ms: u64) {
        if let Some((balloon, _)) = &self.balloon {
            balloon.device().balloon().set_statistics_interval_ms(interval_ms);
        }
    }

    /// Has the guest say how it is, if it is time; the answer is in a later status.
    pub fn poll_statistics(&self) {
        if let Some((balloon, queues)) = &self.balloon
            && balloon.device().balloon().poll_statistics(self.start.elapsed().as_millis() as u64)
        {
            // Fails only when the counter would overflow, and then it has been rung.
            let _ = queues[BalloonDevice::<GuestPages>::STATISTICS_INDEX].write(1);
        }
    }

    /// Has the guest's active memory sampled with this period from now on, ms; 0 for never.
    pub fn set_sample_period_ms(&self, period_ms: u64) {
        self.memory.set_sample_period_ms(period_ms);
    }

    /// How long pages that the guest reports free are left alone from now on, ms, and how many are taken at a time.
    pub fn set_report_pace(&self, delay_ms: u64, pages_max: u32) {
        self.reports.set(delay_ms, pages_max);
    }

    /// Asks the guest which pages it does not need, or ends asking.
    pub fn hint_pages(&self, round: Round) {
        let Some((balloon, _)) = &self.balloon else { return };
        match (round, balloon.device().balloon()) {
            (Round::Begin, device) => match device.begin_hinting() {
                Ok(()) => balloon.configure(|device| device.balloon().announce_hinting()),
                // Whoever asks again and again asks in vain, and is not worth a line each time.
                Err(refused) => tracing::debug!("{refused}"),
            },
            (Round::End, device) => {
                device.end_hinting();
                balloon.configure(|device| device.balloon().announce_done());
            }
        }
    }

    /// The guest's RAM.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Everything about the guest, now.
    pub fn status(&self) -> GuestStatus {
        if let Some(trouble) = self.memory.take_trouble() {
            tracing::warn!("{trouble}");
        }
        let pager = self.memory.status(sys::anonymous_bytes()).unwrap_or_else(|failure| {
            self.failures.report(failure.to_string());
            Default::default()
        });
        let mut dedup = self.scanner.as_ref().map(|scanner| scanner.handle.status()).unwrap_or_default();
        dedup.vmas = u64::from(self.memory.pages().vmas());
        dedup.vma_budget = u64::from(self.config.vma_budget);
        let (runs, held_ns_total) = {
            let held = self.held();
            (held.runs, held.ns_total)
        };
        GuestStatus {
            memory_bytes: self.config.memory_bytes,
            pager,
            dedup,
            balloon: self.balloon_status(),
            workload: self.workload_status(),
            held_ns_total,
            paused: !runs && self.vcpus.as_ref().is_some_and(Vcpus::are_held),
        }
    }

    /// The balloon, now; nothing of one if there is none.
    pub fn balloon_status(&self) -> BalloonStatus {
        let Some((balloon, _)) = &self.balloon else { return BalloonStatus::default() };
        let status = balloon.device().balloon().status();
        let [inflate_cpu_ns, report_cpu_ns] = balloon.device().cpu_ns();
        BalloonStatus {
            requested_bytes: u64::from(status.requested_pages) * PAGE_BYTES as u64,
            actual_bytes: u64::from(status.actual_pages) * PAGE_BYTES as u64,
            inflated_pages_total: status.counts.inflated_pages,
            deflated_pages_total: status.counts.deflated_pages,
            reported_pages_total: status.counts.reported_pages,
            hinted_pages_total: status.counts.hinted_pages,
            hint_dropped_pages_total: status.counts.hint_dropped_pages,
            hint_rounds_total: status.counts.hint_rounds,
            report_delay_ms: self.reports.delay_ms(),
            reports_left_pages_total: self.reports.left_pages(),
            inflate_cpu_ns,
            report_cpu_ns,
            rejected_total: status.counts.rejected + balloon.refused_total(),
            driver_ok: status.driver_ok,
            statistics_total: status.counts.statistics,
            statistics: status.statistics,
        }
    }

    /// What the guest counts.
    pub fn workload_status(&self) -> WorkloadStatus {
        let mut status = WorkloadStatus {
            pages_verified_total: self.pages_compared.load(Ordering::Relaxed),
            timed: self.meter.status(),
            ..WorkloadStatus::default()
        };
        for report in self.board.firmware.reports() {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            status.operations_total += read(&report.operations);
            status.pages_verified_total += read(&report.pages_verified);
            status.allocation_failures_total += read(&report.allocation_failures);
            if status.pages_corrupt_total == 0 {
                status.first_corrupt_gpa = read(&report.first_corrupt_gpa);
            }
            status.pages_corrupt_total += read(&report.pages_corrupt);
        }
        status.phase = self.board.firmware.report(0).phase.load(Ordering::Relaxed) as u32;
        status
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

impl ScannerThread {
    fn spawn(
        pages: GuestPages,
        config: ScannerConfig,
        handle: ScannerHandle,
        send: impl FnMut(MergeRequest) + Send + 'static,
    ) -> Result<ScannerThread, Error> {
        let scanner = Scanner::new(Arc::new(pages), config).with_handle(handle.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = thread::Builder::new()
            .name("scanner".into())
            .spawn(move || scanner.run(&stopping, send))
            .map_err(Error::system("starting the scanner"))?;
        Ok(ScannerThread { handle, stop, thread: Some(thread) })
    }
}

impl Drop for ScannerThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handle.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn swap_file(fd: OwnedFd) -> Result<Box<dyn SlotFile>, Error> {
    let file = SwapFile::inherited(fd).map_err(Error::system("looking at the swap file"))?;
    Ok(Box::new(file))
}

/// As many as can have something to do at once.
fn fault_threads(vcpus: u32) -> usize {
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (vcpus as usize).clamp(1, cpus)
}

fn boot_info(config: &GuestConfig) -> BootInfo {
    // A guest whose RAM is an image must not write to it, and a balloon would take what is to be compared.
    let workload = if config.image.is_some() { Workload::Image as u32 } else { config.workload };
    BootInfo {
        magic: BOOT_MAGIC,
        ram_bytes: config.memory_bytes,
        seed: config.seed,
        guest: config.guest,
        vcpus: config.vcpus,
        workload,
        balloon: u32::from(config.levers.balloon && config.image.is_none()),
        floor_bytes: config.floor_bytes,
        contents: CONTENTS_OWN,
        active: config.active_permille.map_or(ACTIVE_OWN, machine::active),
        reserved_bytes: 0,
    }
}

fn events(count: usize) -> Result<Vec<EventFd>, Error> {
    (0..count).map(|_| EventFd::new(EFD_NONBLOCK).map_err(Error::system("making an eventfd"))).collect()
}

fn clones(events: &[EventFd]) -> Result<Vec<EventFd>, Error> {
    events.iter().map(|event| event.try_clone().map_err(Error::system("copying an eventfd"))).collect()
}

fn attach_balloon(
    bus: &mut Bus,
    pages: u32,
    sink: GuestPages,
    memory: Arc<GuestMemoryMmap<()>>,
    line: InterruptLine,
) -> Result<(Arc<BalloonMmio>, Vec<EventFd>), Error> {
    let queues = events(balloon::QUEUE_COUNT)?;
    let wires = BalloonWires { line, queues: clones(&queues)? };
    let device = Arc::new(VirtioMmio::new(BalloonDevice::new(Balloon::new(pages, sink)), memory, wires));
    bus.attach(BALLOON_BASE, mmio::WINDOW_BYTES, device.clone())?;
    Ok((device, queues))
}

fn spawn_devices(balloon: &Arc<BalloonMmio>, events: &[EventFd], vm: Option<&Vm>) -> Result<DeviceThread, Error> {
    for (queue, event) in events.iter().enumerate() {
        vm.map_or(Ok(()), |vm| vm.register_ioevent(BALLOON_BASE + mmio::QUEUE_NOTIFY, queue as u32, event))?;
    }
    let balloon = balloon.clone();
    DeviceThread::spawn(clones(events)?, move |queue| balloon.process(queue))
        .map_err(Error::system("starting the device thread"))
}
