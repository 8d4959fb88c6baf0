//! How a guest is built, step by step: [`Machine::build`] is the list.

use std::{
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, atomic::AtomicU64},
    thread,
    time::Instant,
};

use control::{Dedup, GuestConfig, MergeRequest};
use dedup::{ScannerConfig, ScannerHandle};
use pager::{GuestMemory, PAGE_BYTES, SlotFile, StoreView, SwapFile};

use super::{Machine, assembled::Assembled, bare, hold::Hold, linux, scanner_thread::ScannerThread};
use crate::{
    Error,
    devices::Parts,
    failure::Failures,
    memory::{GuestPages, Image, Layout},
    sys::{self, ram::Ram},
};

/// How often a guest is asked for its statistics until the host says otherwise.
const STATISTICS_INTERVAL_MS: u64 = 1000;
/// Memory a VMM takes besides its guest's and tables, before it has been measured: threads, buffers.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// What a VMM inherits of its host.
pub struct Inherited {
    /// The domain's frame store.
    pub store: OwnedFd,
    /// Which frames are published.
    pub published: OwnedFd,
    /// The swap file, if there is one.
    pub swap: Option<OwnedFd>,
    /// What a Linux guest has, in the order of [`control::LinuxConfig`].
    pub linux: Vec<OwnedFd>,
}

impl Machine {
    /// Builds the guest; its vCPUs wait at the gate. `send` carries the scanner's requests to the host, whose
    /// answers are posted to `handle`.
    pub fn build(
        config: GuestConfig,
        inherited: Inherited,
        failures: Failures,
        handle: ScannerHandle,
        send: impl FnMut(MergeRequest) + Send + 'static,
    ) -> Result<Machine, Error> {
        let Inherited { store, published, swap, linux: files } = inherited;
        let pages =
            u32::try_from(config.memory_bytes / PAGE_BYTES as u64).map_err(|_| Error::RamSize(config.memory_bytes))?;
        let store =
            StoreView::new(store, &published, config.store_frames).map_err(Error::system("mapping the frame store"))?;
        let image = config.image.as_deref().map(|path| Image::open(path, pages)).transpose()?;
        let kernel = config.linux.as_ref().map(|linux| linux::take(&config, linux, files)).transpose()?;

        let (memory, threads) = guest_memory(&config, pages, store, swap, image.clone(), failures.clone())?;
        let layout = if kernel.is_some() { Layout::pc } else { Layout::flat }(config.memory_bytes);
        // SAFETY: the machine has both, and drops `memory` after all who use the view.
        let devices_view = Arc::new(unsafe { sys::ram::guest_memory(memory.base(), &layout) }?);
        let guest_pages = GuestPages::new(memory.clone(), layout.clone(), failures.clone());
        let reports = guest_pages.reports().clone();
        let parts = Parts {
            has_balloon: config.levers.balloon && config.image.is_none(),
            memory: devices_view.clone(),
            pages: guest_pages.clone(),
        };
        // SAFETY: `memory` is dropped last: its owner is this machine, which joins the vCPUs or exits the
        // process first.
        let ram = unsafe { Ram::new(memory.base(), config.memory_bytes) };
        let Assembled { around, devices, kernel, vm, vcpus } = match kernel {
            Some(kernel) => linux::assemble(&config, kernel, ram, &layout, &parts)?,
            None => bare::assemble(&config, ram, parts)?,
        };
        memory.set_vcpu_tids(vcpus.thread_ids());
        let device_threads = devices.spawn(vm.as_ref())?;
        let scanner = scanner(&config, guest_pages, &memory, handle, send)?;

        let machine = Machine {
            start: Instant::now(),
            image,
            kernel: Mutex::new(kernel),
            memory,
            devices_view,
            around,
            devices,
            vcpus: Some(vcpus),
            scanner,
            reports,
            failures,
            pages_compared: AtomicU64::new(0),
            hold: Mutex::new(Hold::default()),
            _device_threads: device_threads,
            _threads: threads,
            _vm: vm,
            config,
        };
        let GuestConfig { allocation_bytes, balloon_bytes, kernel_page_price, .. } = machine.config;
        machine.allocate(allocation_bytes, balloon_bytes, kernel_page_price);
        machine.set_statistics_interval_ms(STATISTICS_INTERVAL_MS);
        if machine.config.kernel_tier {
            let (base, bytes) = (machine.memory.base(), machine.config.memory_bytes as usize);
            if let Err(error) = sys::keep_own_memory(base.cast(), bytes) {
                tracing::warn!(%error, "what the VMM has beside guest memory may be swapped out");
            }
        }
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
        overhead_bytes: sys::anonymous_bytes() + OVERHEAD_BYTES + config.tables_bytes,
        evict: config.levers.pager,
        fault_threads: fault_threads(config.vcpus),
        vma_budget: config.vma_budget,
        swap: swap.map(swap_file).transpose()?,
        image: image.map(|image| Box::new(image) as _),
        prefetch: config.prefetch,
        kernel_tier: config.kernel_tier,
        foreign_bytes: 0,
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
