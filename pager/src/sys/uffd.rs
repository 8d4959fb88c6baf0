//! The one wrapper of userfaultfd (`Documentation/admin-guide/mm/userfaultfd.rst`).
//!
//! The `userfaultfd` crate opens, registers, reads events, protects and wakes. COPY, ZEROPAGE and CONTINUE
//! are issued here: the crate knows neither the write-protecting mode of CONTINUE nor partial results it can
//! tell from errors.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use userfaultfd::{Event, EventBuffer, FeatureFlags, ReadWrite, RegisterMode, UffdBuilder};
use userfaultfd_sys as raw;

use crate::mapping::Woken;

nix::ioctl_readwrite!(uffdio_copy, raw::UFFDIO, raw::_UFFDIO_COPY, raw::uffdio_copy);
nix::ioctl_readwrite!(uffdio_zeropage, raw::UFFDIO, raw::_UFFDIO_ZEROPAGE, raw::uffdio_zeropage);
nix::ioctl_readwrite!(uffdio_continue, raw::UFFDIO, raw::_UFFDIO_CONTINUE, raw::uffdio_continue);

/// What we need of the kernel, the name operators find it by, and since when there is it.
const FEATURES: [(u64, &str, &str); 5] = [
    (raw::UFFD_FEATURE_EVENT_REMAP, "UFFD_FEATURE_EVENT_REMAP", "4.11"),
    (raw::UFFD_FEATURE_THREAD_ID, "UFFD_FEATURE_THREAD_ID", "4.14"),
    (raw::UFFD_FEATURE_PAGEFAULT_FLAG_WP, "UFFD_FEATURE_PAGEFAULT_FLAG_WP", "5.7"),
    (raw::UFFD_FEATURE_MINOR_SHMEM, "UFFD_FEATURE_MINOR_SHMEM", "5.14"),
    (raw::UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM", "5.19"),
];

/// Events read at once: as many as a guest's threads can have outstanding.
const EVENTS: usize = 64;

/// How long an operation is tried again while the kernel says that the address space is changing under it:
/// until the thread that reads events has got to run, which on a crowded machine takes its time.
const RETRY_LIMIT: Duration = Duration::from_secs(15);
/// The longest pause between two tries.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(1);

/// What one try counts at most: a process that was stopped meanwhile has not tried.
const RETRY_STEP_MAX: Duration = Duration::from_millis(100);

/// Tries left: some, until a time is over.
struct Retries {
    pause: Duration,
    tried: Duration,
    last: Option<Instant>,
}

impl Retries {
    const fn new() -> Retries {
        Retries { pause: Duration::from_micros(1), tried: Duration::ZERO, last: None }
    }

    /// Waits a moment; false when it is time to give up.
    fn again(&mut self) -> bool {
        let last = self.last.unwrap_or_else(Instant::now);
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
        let now = Instant::now();
        self.tried += (now - last).min(RETRY_STEP_MAX);
        self.last = Some(now);
        self.tried < RETRY_LIMIT
    }
}

/// What kind of fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Absent, and the store has nothing there.
    Missing,
    /// Absent, and the store has a page there.
    Minor,
    /// A write to a protected page.
    WriteProtect,
}

/// A thread that waits for a page.
#[derive(Clone, Copy, Debug)]
pub struct FaultEvent {
    /// The address it touched.
    pub address: u64,
    /// What stopped it.
    pub kind: FaultKind,
    /// It wants to write.
    pub write: bool,
    /// Its thread id.
    pub tid: i32,
}

/// Why userfaultfd cannot be used; the message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// no right to serve kernel-mode faults
    #[error(
        "userfaultfd: {0}: serving the faults of a guest needs root, or access to /dev/userfaultfd (where there is no such \
         device: CAP_SYS_PTRACE or sysctl vm.unprivileged_userfaultfd=1)"
    )]
    NotPermitted(io::Error),
    /// there is none
    #[error("userfaultfd: {0}: the kernel was built without CONFIG_USERFAULTFD")]
    Missing(io::Error),
    /// the kernel is too old
    #[error("userfaultfd: this kernel lacks {name}; Linux {since} or later has it")]
    NoFeature {
        /// Its name in the kernel's headers.
        name: &'static str,
        /// First kernel with it.
        since: &'static str,
    },
    /// the kernel is too old
    #[error("pagemap: this kernel lacks PAGEMAP_SCAN ({0}); Linux 6.7 or later has it")]
    NoPagemapScan(io::Error),
}

/// Whether this process may and this kernel can serve a guest's faults.
pub fn probe() -> Result<(), ProbeError> {
    open(0).map_err(|error| match error {
        userfaultfd::Error::OpenDevUserfaultfd(error) => match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => ProbeError::Missing(error),
            _ => ProbeError::NotPermitted(error),
        },
        error => match io_error(error) {
            error if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                ProbeError::NotPermitted(error)
            }
            error => ProbeError::Missing(error),
        },
    })?;
    if let Some(&(_, name, since)) = FEATURES.iter().find(|(feature, ..)| open(*feature).is_err()) {
        return Err(ProbeError::NoFeature { name, since });
    }
    let pagemap = super::pagemap::Pagemap::open().map_err(ProbeError::NoPagemapScan)?;
    pagemap.scan(0, wire::PAGE_BYTES as u64, &mut |_| {}).map_err(ProbeError::NoPagemapScan)
}

/// Opens a userfaultfd with these features: by `/dev/userfaultfd`, or by the system call where there is no
/// such device.
fn open(features: u64) -> Result<userfaultfd::Uffd, userfaultfd::Error> {
    UffdBuilder::new()
        .close_on_exec(true)
        .non_blocking(true)
        // A vCPU faults inside KVM.
        .user_mode_only(false)
        .require_features(FeatureFlags::from_bits_retain(features))
        .create()
}

/// A userfaultfd.
pub struct Uffd(userfaultfd::Uffd);

impl Uffd {
    /// A new one, non-blocking, for kernel-mode faults too.
    pub fn new() -> io::Result<Uffd> {
        open(FEATURES.iter().fold(0, |all, (feature, ..)| all | feature)).map(Uffd).map_err(io_error)
    }

    /// Makes all faults in `start..start + bytes` ours.
    pub fn register(&self, start: u64, bytes: usize) -> io::Result<()> {
        let mode = RegisterMode::MISSING | RegisterMode::MINOR | RegisterMode::WRITE_PROTECT;
        self.0.register_with_mode(start as *mut c_void, bytes, mode).map(drop).map_err(io_error)
    }

    /// Write-protects what is mapped.
    pub fn protect(&self, start: u64, bytes: usize) -> io::Result<()> {
        retry(|| self.0.write_protect(start as *mut c_void, bytes).map_err(io_error))
    }

    /// Undoes [`Uffd::protect`]; wakes nobody.
    pub fn unprotect(&self, start: u64, bytes: usize) -> io::Result<()> {
        retry(|| self.0.remove_write_protection(start as *mut c_void, bytes, false).map_err(io_error))
    }

    /// Wakes threads that wait for pages of the range.
    pub fn wake(&self, start: u64, bytes: usize) {
        // It fails for an invalid range only.
        let _ = self.0.wake(start as *mut c_void, bytes);
    }

    /// Gives absent pages at `target` anonymous pages with the bytes at `source`, and wakes who waits for
    /// them.
    ///
    /// The kernel reads `source` itself: an address that cannot be read is an error, not undefined behaviour.
    pub fn copy(&self, target: u64, source: u64, bytes: usize) -> io::Result<Woken> {
        let step = |done, length| {
            let mut arg = raw::uffdio_copy { dst: target + done, src: source + done, len: length, mode: 0, copy: 0 };
            // SAFETY: `arg` is the structure the ioctl takes; the kernel writes guest pages that are absent
            // only.
            let result = unsafe { uffdio_copy(self.0.as_raw_fd(), &raw mut arg) };
            (result, arg.copy)
        };
        let mut woken = Woken::All;
        advance(bytes, step, |_| {
            woken = Woken::Nobody;
            Ok(Mapped::PassOver)
        })?;
        Ok(woken)
    }

    /// Maps absent pages to the zero page, and wakes who waits for them.
    ///
    /// A page discarded while it was protected has left a mark (a uffd-wp pte marker) that ZEROPAGE takes for
    /// a mapping. Marks are rare, so they are taken away when one is met.
    pub fn zero(&self, start: u64, bytes: usize) -> io::Result<Woken> {
        let step = |done, length| {
            let range = raw::uffdio_range { start: start + done, len: length };
            let mut arg = raw::uffdio_zeropage { range, mode: 0, zeropage: 0 };
            // SAFETY: `arg` is the structure the ioctl takes; the kernel maps pages that are absent only.
            let result = unsafe { uffdio_zeropage(self.0.as_raw_fd(), &raw mut arg) };
            (result, arg.zeropage)
        };
        let (mut woken, mut marked) = (Woken::All, true);
        advance(bytes, step, |done| {
            if !std::mem::take(&mut marked) {
                woken = Woken::Nobody;
                return Ok(Mapped::PassOver);
            }
            self.unprotect(start + done, bytes - done as usize)?;
            Ok(Mapped::TryAgain)
        })?;
        Ok(woken)
    }

    /// Maps absent pages to the file's, if so wanted write-protected. Wakes nobody.
    pub fn map_file(&self, start: u64, bytes: usize, protected: bool) -> io::Result<()> {
        let step = |done, length| {
            let range = raw::uffdio_range { start: start + done, len: length };
            let protect = if protected { raw::UFFDIO_CONTINUE_MODE_WP } else { 0 };
            let mode = protect | raw::UFFDIO_CONTINUE_MODE_DONTWAKE;
            let mut arg = raw::uffdio_continue { range, mode, mapped: 0 };
            // SAFETY: `arg` is the structure the ioctl takes; the kernel maps pages that are absent only.
            let result = unsafe { uffdio_continue(self.0.as_raw_fd(), &raw mut arg) };
            (result, arg.mapped)
        };
        advance(bytes, step, |_| Ok(Mapped::PassOver))
    }

    /// Hands all events that are there to `serve`.
    pub fn read(&self, buffer: &mut EventBuffer, serve: &mut dyn FnMut(FaultEvent)) -> io::Result<()> {
        for event in self.0.read_events(buffer).map_err(io_error)? {
            if let Event::Pagefault { kind, rw, addr, thread_id } = event.map_err(io_error)? {
                let kind = match kind {
                    userfaultfd::FaultKind::Missing => FaultKind::Missing,
                    userfaultfd::FaultKind::Minor => FaultKind::Minor,
                    userfaultfd::FaultKind::WriteProtected => FaultKind::WriteProtect,
                };
                let write = matches!(rw, ReadWrite::Write) || kind == FaultKind::WriteProtect;
                serve(FaultEvent { address: addr as u64, kind, write, tid: thread_id.as_raw() });
            }
        }
        Ok(())
    }

    /// A buffer for [`Uffd::read`].
    pub fn buffer() -> EventBuffer {
        EventBuffer::new(EVENTS)
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What to do about a page that is mapped already.
enum Mapped {
    /// Somebody was faster.
    PassOver,
    /// Something was done about it.
    TryAgain,
}

/// Repeats a ranged ioctl over `bytes` until it got through; `step` gets what is done and how much to try.
/// Where a page is mapped already, `mapped` is asked, with what is done. ENOENT (the range is in several
/// areas, or one is being replaced) makes the steps single pages; EAGAIN and ENOMEM are tried again.
fn advance(
    bytes: usize,
    mut step: impl FnMut(u64, u64) -> (nix::Result<i32>, i64),
    mut mapped: impl FnMut(u64) -> io::Result<Mapped>,
) -> io::Result<()> {
    const PAGE: u64 = wire::PAGE_BYTES as u64;
    let (mut done, mut most, mut retries) = (0, bytes as u64, Retries::new());
    while done < bytes as u64 {
        let (result, progress) = step(done, most.min(bytes as u64 - done));
        match result {
            _ if progress > 0 => done += progress as u64,
            Ok(_) => return Ok(()),
            Err(Errno::EEXIST) => match mapped(done)? {
                Mapped::PassOver => done += PAGE,
                Mapped::TryAgain => {}
            },
            Err(Errno::ENOENT) if most > PAGE => most = PAGE,
            // ENOMEM: the memory cgroup is at its limit, and room is being made.
            Err(Errno::EAGAIN | Errno::ENOENT | Errno::ENOMEM) if retries.again() => {}
            Err(errno) => return Err(super::io_error(errno)),
        }
    }
    Ok(())
}

fn retry(mut step: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut retries = Retries::new();
    loop {
        match step() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && retries.again() => {}
            result => return result,
        }
    }
}

fn io_error(error: userfaultfd::Error) -> io::Error {
    match error {
        userfaultfd::Error::OpenDevUserfaultfd(error) => error,
        userfaultfd::Error::SystemError(errno) | userfaultfd::Error::CopyFailed(errno) => {
            io::Error::from_raw_os_error(errno as i32)
        }
        other => io::Error::other(other),
    }
}
