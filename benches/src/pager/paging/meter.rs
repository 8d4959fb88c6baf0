//! The register that workloads write their times to: single touches by `probe`, latencies by `serve`.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vmm::board::MmioDevice;
use wire::machine::{METER_FRESH, METER_RETURN, METER_WAIT};

/// How long the processor's clock is compared with the system's.
const CALIBRATION: Duration = Duration::from_millis(20);

/// Touches that were timed, nanoseconds each.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Touches {
    /// Of fresh pages.
    pub fresh_ns: Vec<u64>,
    /// Of pages that had been filled, since the meter was armed.
    pub returned_ns: Vec<u64>,
}

/// The device. It counts touches of fresh pages from the beginning, and others once it is armed.
#[derive(Default)]
pub struct Meter {
    ticks: Mutex<Touches>,
    waits: vmm::devices::Meter,
    armed: AtomicBool,
}

impl Meter {
    /// From now on touches of filled pages count.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Latencies so far, by bucket of `control::status::latency_bucket`.
    pub fn waits(&self) -> Vec<u64> {
        self.waits.status().buckets
    }

    /// What was timed.
    pub fn touches(&self) -> Touches {
        let ns_per_tick = ns_per_tick();
        let ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ns = |ticks: Vec<u64>| ticks.into_iter().map(|ticks| (ticks as f64 * ns_per_tick) as u64).collect();
        Touches { fresh_ns: ns(ticks.fresh_ns), returned_ns: ns(ticks.returned_ns) }
    }
}

impl MmioDevice for Meter {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset == METER_WAIT {
            return self.waits.write(offset, data);
        }
        let Ok(bytes) = data.try_into() else { return };
        let mut ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        match offset {
            METER_FRESH => ticks.fresh_ns.push(u32::from_le_bytes(bytes).into()),
            METER_RETURN if self.armed.load(Ordering::Relaxed) => {
                ticks.returned_ns.push(u32::from_le_bytes(bytes).into())
            }
            _ => {}
        }
    }
}

fn ns_per_tick() -> f64 {
    let (begun, ticks) = (Instant::now(), guest_driver::machine::ticks());
    std::thread::sleep(CALIBRATION);
    let ticks = guest_driver::machine::ticks().wrapping_sub(ticks);
    begun.elapsed().as_nanos() as f64 / ticks.max(1) as f64
}
