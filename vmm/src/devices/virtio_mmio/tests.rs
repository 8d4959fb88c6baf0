//! A driver's life over the register file, with real rings in guest memory and the real balloon behind it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::balloon::{Balloon, FEATURES, PageSink};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use wire::mmio::*;
use wire::virtio::*;

use super::*;

const RAM_FRAMES: u32 = 256;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const DATA: u64 = 0x8000;
const QUEUE_BYTES: u64 = 0x1_0000;

const SEEN: u32 = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
const AGREED: u32 = SEEN | STATUS_FEATURES_OK;
const LIVE: u32 = AGREED | STATUS_DRIVER_OK;

/// A sink that can be held in the middle of its work.
#[derive(Default)]
struct Inflated {
    ranges: Mutex<Vec<Range<u32>>>,
    entered: AtomicBool,
    gate: Mutex<()>,
}

impl PageSink for Inflated {
    fn inflate(&self, range: Range<u32>) {
        self.entered.store(true, Ordering::Release);
        drop(self.gate.lock());
        self.ranges.lock().unwrap().push(range);
    }
    fn deflate(&self, _: Range<u32>) {}
    fn report_free(&self, _: Range<u32>, _: u32) {}
    fn watch(&self) {}
    fn drop_hinted(&self, range: Range<u32>, _: u32) -> u32 {
        range.end - range.start
    }
    fn unwatch(&self) {}
}

#[derive(Default)]
struct Lines {
    interrupt: AtomicBool,
    notified: Mutex<Vec<usize>>,
}

impl Wires for Arc<Lines> {
    fn set_interrupt(&self, asserted: bool) {
        self.interrupt.store(asserted, Ordering::Relaxed);
    }
    fn notify(&self, index: usize) {
        self.notified.lock().unwrap().push(index);
    }
}

type Memory = Arc<GuestMemoryMmap<()>>;

struct Machine {
    memory: Memory,
    lines: Arc<Lines>,
    inflated: Arc<Inflated>,
    mmio: VirtioMmio<BalloonDevice<Arc<Inflated>>, Memory, Arc<Lines>>,
}

impl Machine {
    fn new() -> Self {
        let ranges = [(GuestAddress(0), RAM_FRAMES as usize * 4096)];
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let (lines, inflated) = (Arc::new(Lines::default()), Arc::new(Inflated::default()));
        let device = BalloonDevice::new(Balloon::new(RAM_FRAMES, inflated.clone()));
        Machine { mmio: VirtioMmio::new(device, memory.clone(), lines.clone()), memory, lines, inflated }
    }

    /// A machine whose driver has come as far as `status`; with FEATURES_OK, queue 0 is set up as well.
    fn at(status: u32) -> Self {
        let machine = Machine::new();
        machine.set(STATUS, status & SEEN);
        if status & STATUS_FEATURES_OK != 0 {
            machine.accept(FEATURES);
            machine.set(STATUS, AGREED);
            machine.set_up_queue(0, 16);
            assert_eq!(machine.get(QUEUE_READY), 1);
        }
        machine.set(STATUS, status);
        assert_eq!((machine.get(STATUS), machine.mmio.refused_total()), (status, 0));
        machine
    }

    fn get(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&self, register: u64, value: u32) {
        self.mmio.write(register, &value.to_le_bytes());
    }

    fn accept(&self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.set(DRIVER_FEATURES_SEL, select);
            self.set(DRIVER_FEATURES, half);
        }
    }

    fn set_up_queue(&self, index: u32, size: u32) {
        let base = u64::from(index) * QUEUE_BYTES;
        self.set(QUEUE_SEL, index);
        self.set(QUEUE_SIZE, size);
        for (low, high, address) in [
            (QUEUE_DESC_LOW, QUEUE_DESC_HIGH, base + DESCRIPTORS),
            (QUEUE_DRIVER_LOW, QUEUE_DRIVER_HIGH, base + AVAILABLE),
            (QUEUE_DEVICE_LOW, QUEUE_DEVICE_HIGH, base + USED),
        ] {
            self.set(low, address as u32);
            self.set(high, (address >> 32) as u32);
        }
        self.set(QUEUE_READY, 1);
    }

    /// Makes the `nth` chain of queue 0 available: one buffer with one page number.
    fn offer_number(&self, nth: u16, number: u32) {
        let put = |address: u64, bytes: &[u8]| self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
        let slot = u64::from(nth);
        put(DATA + slot * 4, &number.to_le_bytes());
        put(DESCRIPTORS + slot * 16, &(DATA + slot * 4).to_le_bytes());
        put(DESCRIPTORS + slot * 16 + 8, &[4, 0, 0, 0, 0, 0, 0, 0]);
        put(AVAILABLE + 4 + slot * 2, &nth.to_le_bytes());
        put(AVAILABLE + 2, &(nth + 1).to_le_bytes());
    }

    fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    fn interrupted(&self) -> bool {
        self.lines.interrupt.load(Ordering::Relaxed)
    }

    fn inflated(&self) -> Vec<Range<u32>> {
        self.inflated.ranges.lock().unwrap().drain(..).collect()
    }

    fn notified(&self) -> Vec<usize> {
        self.lines.notified.lock().unwrap().drain(..).collect()
    }
}

#[test]
fn a_driver_lives_from_discovery_to_reset() {
    let machine = Machine::new();
    assert_eq!((machine.get(MAGIC_VALUE), machine.get(VERSION), machine.get(DEVICE_ID)), (MAGIC, VERSION_2, 5));

    machine.set(STATUS, STATUS_ACKNOWLEDGE);
    machine.set(STATUS, SEEN);
    let offered = [0, 1].map(|select| {
        machine.set(DEVICE_FEATURES_SEL, select);
        u64::from(machine.get(DEVICE_FEATURES))
    });
    assert_eq!(offered[0] | offered[1] << 32, FEATURES);
    machine.accept(FEATURES);
    machine.set(STATUS, AGREED);
    assert_eq!(machine.get(STATUS), AGREED);

    machine.set(QUEUE_SEL, 0);
    assert_eq!(machine.get(QUEUE_SIZE_MAX), 128);
    machine.set_up_queue(0, 16);
    assert_eq!(machine.get(QUEUE_READY), 1);
    machine.set(STATUS, LIVE);
    assert_eq!(machine.notified(), [0, 1, 2, 3, 4], "buffers may have been waiting");

    machine.offer_number(0, 7);
    machine.set(QUEUE_NOTIFY, 0);
    assert_eq!(machine.notified(), [0]);
    assert_eq!(machine.mmio.process(0), TurnEnd::Done);
    assert_eq!((machine.inflated(), machine.used()), (vec![Range { start: 7, end: 8 }], 1));

    assert!(machine.interrupted());
    assert_eq!(machine.get(INTERRUPT_STATUS), INTERRUPT_USED_BUFFER);
    machine.set(INTERRUPT_ACK, INTERRUPT_USED_BUFFER);
    assert!(!machine.interrupted());
    assert_eq!(machine.mmio.refused_total(), 0);

    machine.set(STATUS, 0);
    assert_eq!((machine.get(STATUS), machine.get(QUEUE_READY)), (0, 0));
    assert!(!machine.mmio.device().balloon().status().driver_ok);
    machine.offer_number(1, 8);
    machine.mmio.process(0);
    assert_eq!((machine.inflated(), machine.used()), (vec![], 1), "a reset device leaves the rings alone");
}

#[test]
fn the_driver_learns_of_a_changed_wish() {
    let machine = Machine::at(LIVE);
    let generation = machine.get(CONFIG_GENERATION);
    machine.mmio.configure(|device| device.balloon().set_requested_pages(17));
    assert_ne!(machine.get(CONFIG_GENERATION), generation);
    assert_eq!((machine.get(INTERRUPT_STATUS), machine.interrupted()), (INTERRUPT_CONFIG_CHANGE, true));
    assert_eq!(machine.get(CONFIG), 17);

    machine.set(INTERRUPT_ACK, u32::MAX);
    machine.mmio.configure(|device| device.balloon().set_requested_pages(17));
    assert!(!machine.interrupted(), "the same wish is no news");

    machine.set(CONFIG + 4, 16);
    machine.mmio.write(CONFIG + 6, &[1, 0]);
    let mut byte = [0];
    machine.mmio.read(CONFIG + 6, &mut byte);
    assert_eq!((machine.get(CONFIG + 4), byte), (0x1_0010, [1]));
}

#[test]
fn a_wish_before_the_start_is_told_at_the_start() {
    let machine = Machine::at(AGREED);
    machine.mmio.configure(|device| device.balloon().set_requested_pages(17));
    assert!(!machine.interrupted());
    machine.set(STATUS, LIVE);
    assert!(machine.interrupted());
}

#[test]
fn features_that_are_not_offered_or_lack_version_1_are_not_agreed_to() {
    for features in [FEATURES | 1 << 6, 1 << 5, 1 << F_VERSION_1 | 1 << 63] {
        let machine = Machine::at(SEEN);
        machine.accept(features);
        machine.set(STATUS, AGREED);
        assert_eq!(machine.get(STATUS), SEEN, "{features:#x}");
    }
    let machine = Machine::at(AGREED);
    machine.accept(0);
    machine.set(STATUS, LIVE);
    assert_eq!(machine.get(STATUS), LIVE, "features are settled once");
}

#[test]
fn the_status_takes_no_step_out_of_order_and_none_back() {
    let machine = Machine::new();
    for status in [STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_ACKNOWLEDGE | STATUS_FEATURES_OK] {
        machine.set(STATUS, status);
        assert_eq!(machine.get(STATUS) & !STATUS_ACKNOWLEDGE, 0);
    }
    let machine = Machine::at(SEEN);
    machine.accept(FEATURES);
    machine.set(STATUS, LIVE);
    assert_eq!(machine.get(STATUS), SEEN, "FEATURES_OK is to be read back first");

    let machine = Machine::at(LIVE);
    machine.set(STATUS, AGREED);
    assert_eq!(machine.get(STATUS), LIVE);

    machine.set(STATUS, LIVE | STATUS_FAILED);
    machine.offer_number(0, 7);
    machine.mmio.process(0);
    assert_eq!(machine.used(), 0, "a device given up does no work");
    machine.set(STATUS, 0);
    assert_eq!(machine.get(STATUS), 0);
}

#[test]
fn queues_of_the_wrong_shape_are_never_ready() {
    let beyond = RAM_FRAMES * 4096;
    for (register, value) in [
        (QUEUE_SIZE, 0),
        (QUEUE_SIZE, 12),
        (QUEUE_SIZE, 256),
        (QUEUE_SIZE, 0x1_0010),
        (QUEUE_DESC_LOW, 0x1008),
        (QUEUE_DRIVER_LOW, 0x2001),
        (QUEUE_DEVICE_LOW, 0x3002),
        (QUEUE_DESC_LOW, beyond - 16),
        (QUEUE_DRIVER_LOW, beyond - 2),
        (QUEUE_DEVICE_LOW, beyond),
        (QUEUE_DESC_HIGH, 1),
        (QUEUE_DEVICE_HIGH, u32::MAX),
        (QUEUE_DRIVER_LOW, 0),
        (QUEUE_SEL, 5),
    ] {
        let machine = Machine::at(AGREED);
        machine.set(QUEUE_READY, 0);
        machine.set(register, value);
        machine.set(QUEUE_READY, 1);
        assert_eq!(machine.get(QUEUE_READY), 0, "{register:#x} = {value:#x}");
        assert_eq!(machine.mmio.refused_total(), 1);
    }
}

#[test]
fn a_ready_queue_does_not_change() {
    let machine = Machine::at(AGREED);
    machine.set(QUEUE_DESC_LOW, 0x5000);
    machine.set(QUEUE_READY, 1);
    assert_eq!((machine.mmio.refused_total(), machine.get(QUEUE_READY)), (2, 1));
    machine.set(STATUS, LIVE);
    machine.set(QUEUE_READY, 0);
    machine.set(QUEUE_READY, 1);
    assert_eq!(machine.get(QUEUE_READY), 0, "queues are set up before the start");
}

#[test]
fn a_broken_ring_stops_the_device_until_it_is_reset() {
    let machine = Machine::at(LIVE);
    machine.memory.write_obj(1000u16, GuestAddress(AVAILABLE + 2)).unwrap();
    assert_eq!(machine.mmio.process(0), TurnEnd::Done);
    assert_eq!(machine.get(STATUS), LIVE | STATUS_NEEDS_RESET);
    assert_eq!((machine.get(INTERRUPT_STATUS), machine.interrupted()), (INTERRUPT_CONFIG_CHANGE, true));

    machine.offer_number(0, 7);
    machine.mmio.process(0);
    assert_eq!(machine.used(), 0);
    machine.set(STATUS, 0);
    assert_eq!((machine.get(STATUS), machine.interrupted()), (0, false));
}

#[test]
fn nothing_is_processed_before_the_start() {
    let machine = Machine::at(AGREED);
    machine.offer_number(0, 7);
    machine.mmio.process(0);
    assert_eq!(machine.used(), 0);
    machine.set(STATUS, LIVE);
    for index in machine.notified() {
        machine.mmio.process(index);
    }
    assert_eq!(machine.used(), 1);
    assert_eq!(machine.mmio.process(usize::MAX), TurnEnd::Done);
}

#[test]
fn accesses_of_the_wrong_kind_read_0_and_are_counted() {
    let machine = Machine::new();
    for (offset, bytes) in
        [(0, 1), (0, 2), (0, 8), (2, 4), (1, 4), (CONFIG + 1, 4), (CONFIG, 8), (CONFIG, 3), (CONFIG, 0)]
    {
        let mut data = vec![0xff; bytes];
        machine.mmio.read(offset, &mut data);
        assert!(data.iter().all(|&byte| byte == 0), "{bytes} at {offset:#x}");
        machine.mmio.write(offset, &data);
    }
    // Unknown, only to be read, only to be written.
    assert_eq!((machine.get(0x0f0), machine.get(QUEUE_NOTIFY)), (0, 0));
    machine.set(MAGIC_VALUE, 1);
    machine.set(QUEUE_NOTIFY, 5);
    assert_eq!(machine.mmio.refused_total(), 18 + 4);
    assert!(machine.notified().is_empty());
}

/// Once STATUS 0 is written the rings are the driver's alone, even if the device was in the middle of a
/// request.
#[test]
fn a_reset_waits_for_the_turn_under_way_and_none_follows() {
    const PATTERN: [u8; 4] = [0x5a; 4];
    let machine = Machine::at(LIVE);
    machine.offer_number(0, 7);
    let gate = machine.inflated.gate.lock().unwrap();
    let reset = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| machine.mmio.process(0));
        assert!(within(Duration::from_secs(10), || machine.inflated.entered.load(Ordering::Acquire)));
        scope.spawn(|| {
            machine.set(STATUS, 0);
            machine.memory.write_slice(&PATTERN, GuestAddress(USED)).unwrap();
            reset.store(true, Ordering::Release);
        });
        // A reset that did not wait would be over at once. Other registers do not wait.
        let returned = within(Duration::from_millis(50), || reset.load(Ordering::Acquire));
        let status = machine.get(STATUS);
        drop(gate);
        assert_eq!((returned, status), (false, LIVE));
    });
    machine.mmio.process(0);
    assert_eq!(machine.memory.read_obj::<[u8; 4]>(GuestAddress(USED)).unwrap(), PATTERN);
    assert!(!machine.interrupted());
}

fn within(time: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !condition() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    condition()
}
