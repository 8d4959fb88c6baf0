//! The driver's half of a queue, as honest or dishonest as a test wants it, and a sink that checks what it is
//! handed.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::ops::Range;
use std::sync::{Arc, Mutex};

use balloon::{Balloon, PageSink, QUEUE_SIZE_MAX};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// RAM of the tests.
pub const RAM_FRAMES: u32 = 1024;
/// Where the tests put their buffers.
pub const DATA: u64 = 0x10_0000;
pub const NEXT: u16 = wire::virtio::DESC_F_NEXT;
pub const WRITE: u16 = wire::virtio::DESC_F_WRITE;
pub const INDIRECT: u16 = 4;

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
pub const USED: u64 = 0x3000;

/// Has the next turn of the statistics queue ask, whenever it was asked last.
pub fn ask_for_statistics<S: PageSink>(balloon: &Balloon<S>) {
    balloon.set_statistics_interval_ms(1);
    assert!(balloon.poll_statistics(u64::MAX));
}

pub fn memory() -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_FRAMES as usize * 4096)]).unwrap()
}

pub fn write(memory: &GuestMemoryMmap<()>, address: u64, bytes: &[u8]) {
    memory.write_slice(bytes, GuestAddress(address)).unwrap();
}

pub fn read<const N: usize>(memory: &GuestMemoryMmap<()>, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// One queue and its driver.
pub struct Driver {
    pub memory: GuestMemoryMmap<()>,
    pub queue: Queue,
    descriptors: u16,
    available: u16,
    used: u16,
}

impl Driver {
    pub fn new(memory: GuestMemoryMmap<()>) -> Self {
        let mut queue = Queue::new(QUEUE_SIZE_MAX).unwrap();
        queue.set_desc_table_address(Some(DESCRIPTORS as u32), None);
        queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
        queue.set_used_ring_address(Some(USED as u32), None);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        Driver { memory, queue, descriptors: 0, available: 0, used: 0 }
    }

    pub fn set_descriptor(&self, index: u16, address: u64, bytes: u32, flags: u16, next: u16) {
        let at = DESCRIPTORS + u64::from(index) * 16;
        write(&self.memory, at, &address.to_le_bytes());
        write(&self.memory, at + 8, &bytes.to_le_bytes());
        write(&self.memory, at + 12, &flags.to_le_bytes());
        write(&self.memory, at + 14, &next.to_le_bytes());
    }

    /// Makes the chain that starts at `head` available.
    pub fn make_available(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + u64::from(self.available % QUEUE_SIZE_MAX) * 2;
        write(&self.memory, slot, &head.to_le_bytes());
        self.set_available_index(self.available.wrapping_add(1));
    }

    /// Claims that this many chains were made available.
    pub fn set_available_index(&mut self, index: u16) {
        self.available = index;
        write(&self.memory, AVAILABLE + 2, &index.to_le_bytes());
    }

    /// Makes a chain of `(address, bytes, flags)` available, and returns its head.
    pub fn offer(&mut self, buffers: &[(u64, u32, u16)]) -> u16 {
        let head = self.descriptors % QUEUE_SIZE_MAX;
        for (nth, &(address, bytes, flags)) in buffers.iter().enumerate() {
            let index = self.descriptors % QUEUE_SIZE_MAX;
            self.descriptors += 1;
            let more = if nth + 1 < buffers.len() { NEXT } else { 0 };
            self.set_descriptor(index, address, bytes, flags | more, self.descriptors % QUEUE_SIZE_MAX);
        }
        self.make_available(head);
        head
    }

    /// Writes page numbers to [`DATA`] and makes them available in one buffer.
    pub fn offer_numbers(&mut self, numbers: &[u32]) -> u16 {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        write(&self.memory, DATA, &bytes);
        self.offer(&[(DATA, bytes.len() as u32, 0)])
    }

    /// The heads that came back since the last call. The device never writes into a buffer, and says so.
    pub fn take_used(&mut self) -> Vec<u16> {
        let mut heads = Vec::new();
        while self.used != u16::from_le_bytes(read(&self.memory, USED + 2)) {
            let element = USED + 4 + u64::from(self.used % QUEUE_SIZE_MAX) * 8;
            assert_eq!(u32::from_le_bytes(read(&self.memory, element + 4)), 0);
            heads.push(u32::from_le_bytes(read(&self.memory, element)) as u16);
            self.used = self.used.wrapping_add(1);
        }
        heads
    }
}

/// What a sink was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Inflate(u32, u32),
    Deflate(u32, u32),
    Free(u32, u32),
    Watch,
    Hint(u32, u32),
    Unwatch,
}

/// Writes down what it is told, and checks what the device promises.
#[derive(Debug, Default)]
pub struct Recorder {
    told: Mutex<Vec<Told>>,
    fills: Mutex<Vec<u32>>,
}

impl Recorder {
    pub fn shared() -> Arc<Recorder> {
        Arc::default()
    }

    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// What dropped pages are to be filled with.
    pub fn take_fills(&self) -> Vec<u32> {
        std::mem::take(&mut self.fills.lock().unwrap())
    }

    fn record(&self, told: fn(u32, u32) -> Told, range: Range<u32>) {
        assert!(range.start < range.end && range.end <= RAM_FRAMES, "{range:?} is empty or outside RAM");
        self.told.lock().unwrap().push(told(range.start, range.end));
    }
}

impl PageSink for Recorder {
    fn inflate(&self, range: Range<u32>) {
        self.record(Told::Inflate, range);
    }

    fn deflate(&self, range: Range<u32>) {
        self.record(Told::Deflate, range);
    }

    fn report_free(&self, range: Range<u32>, fill: u32) {
        self.fills.lock().unwrap().push(fill);
        self.record(Told::Free, range);
    }

    fn watch(&self) {
        self.told.lock().unwrap().push(Told::Watch);
    }

    fn drop_hinted(&self, range: Range<u32>, fill: u32) -> u32 {
        self.fills.lock().unwrap().push(fill);
        let pages = range.end - range.start;
        self.record(Told::Hint, range);
        pages
    }

    fn unwatch(&self) {
        self.told.lock().unwrap().push(Told::Unwatch);
    }
}
