//! This process among others: its signals, its end, its memory as the kernel counts it.

use std::{ffi::c_void, fs, io, ptr::NonNull};

use nix::errno::Errno;
use nix::sys::{
    prctl,
    signal::{SigHandler, Signal, signal},
};

/// Has the kernel end this process when the host process ends, however that comes.
pub fn die_with_parent() -> io::Result<()> {
    Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Leaves Ctrl-C to the host process, which asks its guests to stop.
pub fn ignore_interrupts() -> io::Result<()> {
    // SAFETY: ignoring a signal runs no code.
    unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
    Ok(())
}

/// Keeps what this process has mapped in memory, but for these bytes of guest memory. Without that, a system
/// call that needs a page the kernel has swapped out fails while the memory cgroup is at its limit.
pub fn keep_own_memory(ram: NonNull<c_void>, bytes: usize) -> io::Result<()> {
    // SAFETY: locking changes no byte.
    Errno::result(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) })?;
    // SAFETY: nor does unlocking.
    Errno::result(unsafe { libc::munlock(ram.as_ptr(), bytes) })?;
    Ok(())
}

/// Anonymous memory of this process, here or swapped out by the kernel, bytes: `RssAnon` and `VmSwap` of
/// `/proc/self/status` (`Documentation/filesystems/proc.rst`). 0 where the kernel does not say.
pub fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
    };
    ["RssAnon:", "VmSwap:"].into_iter().filter_map(kib).sum::<u64>() * 1024
}
