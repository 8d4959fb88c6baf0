//! Which pages a workload touches, in order: the guest's own code, run on memory of which it sees only a few
//! pages at a time.
//!
//! RAM is a shared mapping of a memfd, registered with userfaultfd for minor faults: all content is there,
//! nothing is mapped. Each fault is a line of the trace; it maps its page and takes away the one that was
//! mapped [`WINDOW`] faults ago. So each access is recorded but those to the last few pages, which no policy
//! would evict.

use std::{
    collections::VecDeque,
    ffi::c_void,
    fs::File,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

use guest_driver::{BareGuest, Machine};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap},
    },
};
use pager::PAGE_BYTES;
use userfaultfd::{Event, FeatureFlags, RegisterMode, Uffd, UffdBuilder};
use wire::machine::{BootInfo, Control, DOORBELL_BASE, DOORBELL_PARK, VcpuReport, Workload};

use crate::kit::error::Error;

/// Pages that are mapped at a time: more than one operation of any workload touches in turns.
const WINDOW: usize = 8;
/// Recorded accesses that make a millisecond of the guest's clock.
const ACCESSES_PER_MS: u64 = 64;
/// How often the recorder looks whether it is to end.
const LOOK_MS: u16 = 20;

/// The guest's machine: RAM, a clock that goes by accesses, no devices.
struct Recorder {
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
    _file: File,
    uffd: Uffd,
    boot: BootInfo,
    control: Control,
    report: VcpuReport,
    recorded: AtomicU64,
    wanted: u64,
    parked_ms: AtomicU64,
    done: AtomicBool,
}

// SAFETY: `base` is an address of a mapping that lives as long as this; what is there belongs to the guest.
unsafe impl Sync for Recorder {}

/// The first `accesses` page accesses of `workload` on a machine with `pages` pages of RAM.
pub fn record(workload: Workload, pages: u32, accesses: u32) -> Result<Vec<u32>, Error> {
    let guest = BareGuest::new(Recorder::new(workload, pages, accesses.into())?);
    let (exit, trace) = thread::scope(|scope| {
        let recording = scope.spawn(|| guest.machine().serve());
        let exit = guest.run(0);
        guest.machine().done.store(true, Relaxed);
        (exit, recording.join())
    });
    if exit != 0 {
        return Err(Error::Guest(format!("recording {workload:?}: the guest ended with {exit}")));
    }
    trace.unwrap_or_else(|_| Err(Error::Guest(format!("recording {workload:?}: the recorder failed"))))
}

impl Recorder {
    fn new(workload: Workload, pages: u32, wanted: u64) -> Result<Recorder, Error> {
        let failed = |error: userfaultfd::Error| Error::Guest(format!("userfaultfd: {error}"));
        let bytes = NonZeroUsize::new(pages as usize * PAGE_BYTES).unwrap_or(NonZeroUsize::MIN);
        let file = memfd_create(c"ballast-trace", MFdFlags::MFD_CLOEXEC).map_err(Error::system("making memory"))?;
        let file = File::from(file);
        fallocate(&file, FallocateFlags::empty(), 0, bytes.get() as i64).map_err(Error::system("reserving memory"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, &file, 0) };
        let base = base.map_err(Error::system("mapping memory"))?;
        let mut builder = UffdBuilder::new();
        builder.close_on_exec(true).non_blocking(true).user_mode_only(false);
        let uffd = builder
            .require_features(FeatureFlags::from_bits_retain(userfaultfd_sys::UFFD_FEATURE_MINOR_SHMEM))
            .create()
            .map_err(failed)?;
        uffd.register_with_mode(base.as_ptr(), bytes.get(), RegisterMode::MINOR).map_err(failed)?;
        let boot = BootInfo::new(bytes.get() as u64, workload as u32);
        Ok(Recorder {
            base,
            bytes,
            _file: file,
            uffd,
            boot,
            control: Control::default(),
            report: VcpuReport::default(),
            recorded: AtomicU64::new(0),
            wanted,
            parked_ms: AtomicU64::new(0),
            done: AtomicBool::new(false),
        })
    }

    fn serve(&self) -> Result<Vec<u32>, Error> {
        let mut trace = Vec::with_capacity(self.wanted as usize);
        let mut mapped = VecDeque::with_capacity(WINDOW + 1);
        while !self.done.load(Relaxed) {
            let mut fds = [PollFd::new(self.uffd.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut fds, PollTimeout::from(LOOK_MS)), Ok(1)) {
                continue;
            }
            while let Ok(Some(Event::Pagefault { addr, .. })) = self.uffd.read_event() {
                let page = (addr.addr() - self.base.as_ptr().addr()) / PAGE_BYTES;
                if (trace.len() as u64) < self.wanted {
                    trace.push(page as u32);
                    self.recorded.store(trace.len() as u64, Relaxed);
                    mapped.push_back(page);
                }
                if mapped.len() > WINDOW {
                    self.unmap(mapped.pop_front().unwrap_or(page))?;
                }
                // Fails only when somebody mapped the page meanwhile, which wakes as well.
                let _ = self.uffd.r#continue(self.address(page).as_ptr(), PAGE_BYTES, true);
            }
        }
        Ok(trace)
    }

    fn address(&self, page: usize) -> NonNull<c_void> {
        // SAFETY: `page` is one of the mapping's: a fault named it.
        unsafe { self.base.byte_add(page * PAGE_BYTES) }
    }

    fn unmap(&self, page: usize) -> Result<(), Error> {
        // SAFETY: the mapping is shared, so its content stays in the file; the guest's next access faults,
        // and is served.
        let unmapped = unsafe { madvise(self.address(page), PAGE_BYTES, MmapAdvise::MADV_DONTNEED) };
        unmapped.map_err(Error::system("unmapping a page"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // SAFETY: the guest has ended, nobody else knows the address.
        let _ = unsafe { munmap(self.base, self.bytes.get()) };
    }
}

impl Machine for Recorder {
    fn ram(&self) -> *mut u8 {
        self.base.as_ptr().cast()
    }

    fn boot(&self) -> &BootInfo {
        &self.boot
    }

    fn control(&self) -> &Control {
        let recorded = self.recorded.load(Relaxed);
        self.control.now_ms.store(recorded / ACCESSES_PER_MS + self.parked_ms.load(Relaxed), Relaxed);
        self.control.stop.store(u32::from(recorded >= self.wanted), Relaxed);
        &self.control
    }

    fn report(&self, _vcpu: u32) -> &VcpuReport {
        &self.report
    }

    fn mmio_read(&self, _gpa: u64) -> u32 {
        0
    }

    fn mmio_write(&self, gpa: u64, value: u32) {
        if gpa == DOORBELL_BASE + DOORBELL_PARK {
            self.parked_ms.fetch_add(u64::from(value), Relaxed);
        }
    }

    fn mmio_write_byte(&self, _gpa: u64, _value: u8) {}
}
