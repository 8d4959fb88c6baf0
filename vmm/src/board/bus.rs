//! Device registers by guest-physical address.
//!
//! A handful of windows, found by bisection. The guest decides address and length, so anything may come: what
//! no device claims reads as all ones, as on a real bus, and is counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::Error;

/// A device with registers. Called by any vCPU thread, with accesses of 1 to 8 bytes.
pub trait MmioDevice: Send + Sync {
    /// Fills `data` from `offset` in the window.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes `data` at `offset` in the window.
    fn write(&self, offset: u64, data: &[u8]);
}

struct Window {
    base: u64,
    bytes: u64,
    device: Arc<dyn MmioDevice>,
}

impl Window {
    fn end(&self) -> u64 {
        self.base + self.bytes
    }
}

/// All device windows of a machine.
#[derive(Default)]
pub struct Bus {
    /// Sorted by address, disjoint.
    windows: Vec<Window>,
    unclaimed: AtomicU64,
}

impl Bus {
    /// Puts `device` at `base`.
    pub fn attach(&mut self, base: u64, bytes: u64, device: Arc<dyn MmioDevice>) -> Result<(), Error> {
        let place = self.windows.partition_point(|window| window.base < base);
        let end = base.checked_add(bytes).filter(|_| bytes > 0).ok_or(Error::Window { base, bytes })?;
        let overlaps_left = place > 0 && self.windows[place - 1].end() > base;
        let overlaps_right = self.windows.get(place).is_some_and(|right| right.base < end);
        if overlaps_left || overlaps_right {
            return Err(Error::Window { base, bytes });
        }
        self.windows.insert(place, Window { base, bytes, device });
        Ok(())
    }

    /// A guest reads.
    pub fn read(&self, gpa: u64, data: &mut [u8]) {
        match self.find(gpa, data.len()) {
            Some(window) => window.device.read(gpa - window.base, data),
            None => {
                data.fill(0xff);
                self.count_unclaimed("read", gpa);
            }
        }
    }

    /// A guest writes.
    pub fn write(&self, gpa: u64, data: &[u8]) {
        match self.find(gpa, data.len()) {
            Some(window) => window.device.write(gpa - window.base, data),
            None => self.count_unclaimed("write", gpa),
        }
    }

    fn find(&self, gpa: u64, bytes: usize) -> Option<&Window> {
        let window = &self.windows[self.windows.partition_point(|window| window.base <= gpa).checked_sub(1)?];
        (gpa.checked_add(bytes as u64)? <= window.end()).then_some(window)
    }

    /// Logs the first, second, fourth, ... one: a guest that makes a million of them gets twenty lines.
    fn count_unclaimed(&self, access: &str, gpa: u64) {
        let total = self.unclaimed.fetch_add(1, Ordering::Relaxed) + 1;
        if total.is_power_of_two() {
            tracing::warn!(gpa = format_args!("{gpa:#x}"), total, "guest {access} where there is no device");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Reads its number; remembers what was written.
    struct Probe(u8, Mutex<Vec<(u64, Vec<u8>)>>);

    impl MmioDevice for Probe {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(self.0);
        }

        fn write(&self, offset: u64, data: &[u8]) {
            self.1.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn probe(number: u8) -> Arc<Probe> {
        Arc::new(Probe(number, Mutex::default()))
    }

    fn read(bus: &Bus, gpa: u64) -> u32 {
        let mut data = [0; 4];
        bus.read(gpa, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn an_access_reaches_the_device_at_its_address() {
        let (low, high) = (probe(1), probe(2));
        let mut bus = Bus::default();
        bus.attach(0x2000, 0x1000, high.clone()).unwrap();
        bus.attach(0x1000, 0x1000, low).unwrap();
        assert_eq!((read(&bus, 0x1ffc), read(&bus, 0x2000)), (0x0101_0101, 0x0202_0202));
        bus.write(0x2010, &[7, 8]);
        assert_eq!(*high.1.lock().unwrap(), [(0x10, vec![7, 8])]);
        assert_eq!(bus.unclaimed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_access_no_window_holds_whole_reads_ones_and_is_counted() {
        let mut bus = Bus::default();
        bus.attach(0x1000, 0x1000, probe(1)).unwrap();
        for gpa in [0, 0xffe, 0x1ffe, 0x2000, u64::MAX] {
            assert_eq!(read(&bus, gpa), u32::MAX, "{gpa:#x}");
        }
        bus.write(0x5000, &[1]);
        assert_eq!(bus.unclaimed.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn windows_that_overlap_or_wrap_or_are_empty_are_refused() {
        let mut bus = Bus::default();
        bus.attach(0x1000, 0x1000, probe(1)).unwrap();
        for (base, bytes) in [(0x1800, 8), (0x800, 0x801), (0x1000, 0x1000), (0x3000, 0), (u64::MAX, 2)] {
            assert!(matches!(bus.attach(base, bytes, probe(2)), Err(Error::Window { .. })), "{base:#x}");
        }
    }
}
