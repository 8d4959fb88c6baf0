//! The register that workloads write to what they have timed, in ticks of the processor's clock: gaps of
//! `clock`, latencies of `serve`.
//!
//! A histogram in the status is all that becomes of it. What the guest writes is believed in nothing else,
//! and a guest that writes all the time costs itself exits.

use std::{sync::Mutex, time::Instant};

use control::status::{LATENCY_BUCKETS, LatencyStatus, latency_bucket};
use wire::machine::METER_WAIT;

use crate::{board::MmioDevice, sync::lock};

/// The device.
pub struct Meter {
    begun: Instant,
    begun_ticks: u64,
    times: Mutex<LatencyStatus>,
}

impl Default for Meter {
    fn default() -> Meter {
        let times = LatencyStatus { buckets: vec![0; LATENCY_BUCKETS], ..LatencyStatus::default() };
        Meter { begun: Instant::now(), begun_ticks: guest_driver::machine::ticks(), times: Mutex::new(times) }
    }
}

impl Meter {
    /// What was timed so far.
    pub fn status(&self) -> LatencyStatus {
        lock(&self.times).clone()
    }

    /// Calibrated by all the time since the machine was built.
    fn ns(&self, ticks: u32) -> u64 {
        let all = guest_driver::machine::ticks().wrapping_sub(self.begun_ticks).max(1);
        (f64::from(ticks) * self.begun.elapsed().as_nanos() as f64 / all as f64) as u64
    }
}

impl MmioDevice for Meter {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (METER_WAIT, Ok(bytes)) = (offset, data.try_into()) else { return };
        let ns = self.ns(u32::from_le_bytes(bytes));
        let mut times = lock(&self.times);
        times.buckets[latency_bucket(ns)] += 1;
        times.ns_total = times.ns_total.saturating_add(ns);
        times.ns_max = times.ns_max.max(ns);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ticks_become_nanoseconds_and_everything_else_is_ignored() {
        let meter = Meter::default();
        // Longer than reading both clocks takes.
        while meter.begun.elapsed() < Duration::from_millis(5) {}
        let least = meter.begun.elapsed().as_nanos() as u64;
        let ticks = guest_driver::machine::ticks().wrapping_sub(meter.begun_ticks);
        let most = meter.begun.elapsed().as_nanos() as u64;
        meter.write(METER_WAIT, &(ticks as u32).to_le_bytes());
        meter.write(METER_WAIT, &[1]);
        meter.write(METER_WAIT + 4, &[1; 4]);
        let status = meter.status();
        // Whoever takes the CPU between two readings of the clocks spoils the calibration by as much.
        assert!((least / 2..most * 2).contains(&status.ns_max) && status.ns_total == status.ns_max, "{status:?}");
        assert_eq!(status.buckets.iter().sum::<u64>(), 1);
    }
}
