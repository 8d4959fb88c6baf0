//! A line in the log for what a guest does wrong, but not for each time.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

/// Refused requests of a device, after which one is logged again: it doubles, so a guest can cause 64 lines
/// in its life.
pub struct Refusals {
    device: &'static str,
    log_at: AtomicU64,
}

impl Refusals {
    /// None so far of this device.
    pub fn of(device: &'static str) -> Self {
        Refusals { device, log_at: AtomicU64::new(1) }
    }

    /// Logs the last of `refused` ones, if it is time.
    pub fn log(&self, refused: u64, error: &(dyn Error + 'static)) {
        // Relaxed: only the device's thread comes here.
        if refused >= self.log_at.load(Ordering::Relaxed) {
            self.log_at.store(refused.saturating_mul(2), Ordering::Relaxed);
            tracing::warn!(device = self.device, refused, error, "request refused");
        }
    }
}
