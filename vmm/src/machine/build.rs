//! How a guest is built, step by step: [`Machine::build`] is the list.

use std::{
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, atomic::AtomicU64},
    thread,
    time::Instant,
};

use control::{Dedup, GuestConfig, MergeRequest, VcpuKind};
use dedup::{ScannerConfig, ScannerHandle};
use pager::{GuestMemory, PAGE_BYTES, SlotFile, StoreView, SwapFile};
use wire::machine::{self, ACTIVE_OWN, BOOT_MAGIC, BootInfo, CONTENTS_OWN, Workload};

use super::{Machine, hold::Hold, scanner_thread::ScannerThread};
use crate::{
    Error,
    board::{Board, Bus, Firmware, Gate, InterruptLine, Start},
    devices::{Devices, Parts},
    failure::Failures,
    kvm::Vm,
    memory::{GuestPages, Image},
    sys::{self, ram::Ram},
    vcpus::Vcpus,
};

/// The bare guest, built with this program: an ELF file that starts on this VMM's machine and, by its PVH
/// entry, on QEMU's `microvm`.
pub const BARE_GUEST: &[u8] = include_bytes!(env!("BALLAST_BARE_GUEST"));
/// Bytes of tables a guest page costs: 8 for its state, 4 for its placement, 2 for the counts of its two
/// frames, 3 for dedup.
pub const TABLE_BYTES_PER_PAGE: u64 = 17;
/// How often a guest is asked for its statistics until the host says otherwise.
const STATISTICS_INTERVAL_MS: u64 = 1000;
/// Memory a VMM takes besides its guest's, before it has been measured: page-state tables, threads, buffers.
const OVERHEAD_BYTES: u64 = 1 << 20;

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

        let (memory, threads) = guest_memory(&config, pages, store, swap, image.clone(), failures.clone())?;
        let devices_view = Arc::new(sys::ram::guest_memory(memory.base(), config.memory_bytes)?);
        let guest_pages = GuestPages::new(memory.clone(), failures.clone());
        let reports = guest_pages.reports().clone();

        let (firmware, start) = firmware(&config)?;
        let (gate, mut bus) = (Arc::new(Gate::default()), Bus::default());
        let parts = Parts {
            name: config.name.clone(),
            has_balloon: firmware.boot().balloon != 0,
            memory: devices_view.clone(),
            pages: guest_pages.clone(),
            line: InterruptLine::new(firmware.clone(), gate.clone()),
        };
        let devices = Devices::attach(&mut bus, parts)?;
        let board = Arc::new(Board::new(firmware, bus, gate));

        // SAFETY: `memory` is dropped last: its owner is this machine, which joins the vCPUs or exits the
        // process first.
        let ram = unsafe { Ram::new(memory.base(), config.memory_bytes) };
        let (vm, vcpus) = vcpus(ram, &board, start)?;
        memory.set_vcpu_tids(vcpus.thread_ids());
        let device_thread = devices.spawn(vm.as_ref())?;
        let scanner = scanner(&config, guest_pages, &memory, handle, send)?;

        let machine = Machine {
            start: Instant::now(),
            image,
            memory,
            devices_view,
            board,
            devices,
            vcpus: Some(vcpus),
            scanner,
            reports,
            failures,
            pages_compared: AtomicU64::new(0),
            hold: Mutex::new(Hold::default()),
            _device_thread: device_thread,
            _threads: threads,
            _vm: vm,
            config,
        };
        machine.allocate(machine.config.allocation_bytes, machine.config.balloon_bytes);
        machine.set_statistics_interval_ms(STATISTICS_INTERVAL_MS);
        Ok(machine)
    }
}

/// RAM, and the threads that serve it.
fn guest_memory(
    config: &GuestConfig,
    pages: u32,
    store: StoreView,
    swap: Option<OwnedFd>,
    image: Option<Image>,
    failures: Failures,
) -> Result<(Arc<GuestMemory>, pager::Threads), Error> {
    let config = pager::Config {
        pages,
        allocation_bytes: config.allocation_bytes,
        overhead_bytes: sys::anonymous_bytes() + OVERHEAD_BYTES + u64::from(pages) * TABLE_BYTES_PER_PAGE,
        evict: config.levers.pager,
        fault_threads: fault_threads(config.vcpus),
        vma_budget: config.vma_budget,
        swap: swap.map(swap_file).transpose()?,
        image: image.map(|image| Box::new(image) as _),
        prefetch: config.prefetch,
    };
    let on_failure = Box::new(move |failure: pager::Failure| failures.report(failure.to_string()));
    GuestMemory::new(config, store, on_failure).map_err(Error::Memory)
}

/// As many as can have something to do at once.
fn fault_threads(vcpus: u32) -> usize {
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (vcpus as usize).clamp(1, cpus)
}

fn swap_file(fd: OwnedFd) -> Result<Box<dyn SlotFile>, Error> {
    let file = SwapFile::inherited(fd).map_err(Error::system("looking at the swap file"))?;
    Ok(Box::new(file))
}

/// What the guest shares with us; for vCPUs of KVM, with the guest in it and where it starts.
fn firmware(config: &GuestConfig) -> Result<(Arc<Firmware>, Option<Start>), Error> {
    let mut firmware = Firmware::new(boot_info(config))?;
    let start = match config.vcpu {
        VcpuKind::Kvm => Some(firmware.load(BARE_GUEST)?),
        VcpuKind::Hosted => None,
    };
    Ok((Arc::new(firmware), start))
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

/// What runs the guest: KVM from `start` on, or host threads where there is none.
fn vcpus(ram: Ram, board: &Arc<Board>, start: Option<Start>) -> Result<(Option<Vm>, Vcpus), Error> {
    let Some(start) = start else { return Ok((None, Vcpus::hosted(ram, board.clone())?)) };
    let vm = Vm::new(ram, board.firmware.clone(), start)?;
    let vcpus = Vcpus::kvm(&vm, board.clone())?;
    Ok((Some(vm), vcpus))
}

/// The scanner, unless nothing is to be shared; `memory` hurries it when areas run short.
fn scanner(
    config: &GuestConfig,
    pages: GuestPages,
    memory: &GuestMemory,
    handle: ScannerHandle,
    send: impl FnMut(MergeRequest) + Send + 'static,
) -> Result<Option<ScannerThread>, Error> {
    if config.levers.dedup == Dedup::Off {
        return Ok(None);
    }
    let config = ScannerConfig {
        cpu_share: config.scanner_cpu_share,
        idle_cpu_share: config.scanner_idle_cpu_share,
        zero_pages_only: config.levers.dedup == Dedup::ZeroPagesOnly,
        ..ScannerConfig::new(config.hash_secret)
    };
    let scanner = ScannerThread::spawn(pages, config, handle.clone(), send)?;
    memory.set_scanner(Box::new(move || handle.hurry()));
    Ok(Some(scanner))
}
