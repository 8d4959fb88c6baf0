//! Drivers and devices that we did not write, for tests and benchmarks.
//!
//! ```text
//!   uml     a Linux kernel as a process, with its own virtio_balloon   <-- vhost-user --> `device`
//!   device  `ballast vhost-user-balloon`, and its HTTP interface
//!   qemu    our bare guest, with our driver, on QEMU's `microvm`      <-- QMP --> tests of QEMU's device
//!   zram    the kernel's compressed memory
//! ```
//!
//! All but the last is somebody's process: started with a deadline on each answer, and gone when its owner is
//! dropped. A peer that is not installed is `None`, and the caller says so aloud.

#![forbid(unsafe_code)]

mod console;
pub mod device;
pub mod qemu;
pub mod uml;
pub mod zram;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for anything: peers without hardware virtualisation are slow, and machines busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The first of these files that there is.
pub(crate) fn find(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(Path::new).find(|path| path.exists()).map(Path::to_owned)
}

/// Waits until there is something, and panics with `what` if there never is.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
