//! The driver's half of a queue, as honest or dishonest as a test wants it.
//!
//! For tests: what cannot be done panics.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// RAM of the tests.
pub const RAM_BYTES: u64 = 0x40_0000;
/// Where the tests put their buffers; below are the rings.
pub const DATA: u64 = 0x10_0000;
/// Descriptors of the queue.
pub const QUEUE_SIZE: u16 = 128;
/// Another descriptor follows.
pub const NEXT: u16 = wire::virtio::DESC_F_NEXT;
/// The device writes the buffer.
pub const WRITE: u16 = wire::virtio::DESC_F_WRITE;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// Bytes of the used ring: what else the device writes, besides its buffers.
pub const USED_RING: std::ops::Range<u64> = USED..USED + 6 + 8 * QUEUE_SIZE as u64;

/// Memory of a guest, all zero.
pub fn memory() -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES as usize)]).unwrap()
}

/// One queue and its driver.
pub struct Driver {
    /// The guest's memory.
    pub memory: GuestMemoryMmap<()>,
    /// The device's half.
    pub queue: Queue,
    descriptors: u16,
    available: u16,
    used: u16,
}

impl Driver {
    /// A queue of [`QUEUE_SIZE`] in memory of its own.
    pub fn new() -> Self {
        Self::with(memory())
    }

    /// A queue of [`QUEUE_SIZE`] in `memory`.
    pub fn with(memory: GuestMemoryMmap<()>) -> Self {
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        queue.set_desc_table_address(Some(DESCRIPTORS as u32), None);
        queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
        queue.set_used_ring_address(Some(USED as u32), None);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        Driver { memory, queue, descriptors: 0, available: 0, used: 0 }
    }

    /// Writes to the guest's memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// Reads from the guest's memory.
    pub fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.memory.read_slice(&mut read, GuestAddress(address)).unwrap();
        read
    }

    /// Writes a descriptor.
    pub fn set_descriptor(&self, index: u16, address: u64, bytes: u32, flags: u16, next: u16) {
        self.write(DESCRIPTORS + u64::from(index) * 16, &descriptor(address, bytes, flags, next));
    }

    /// Makes the chain that starts at `head` available.
    pub fn make_available(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + u64::from(self.available % QUEUE_SIZE) * 2;
        self.write(slot, &head.to_le_bytes());
        self.set_available_index(self.available.wrapping_add(1));
    }

    /// Claims that this many chains were made available.
    pub fn set_available_index(&mut self, index: u16) {
        self.available = index;
        self.write(AVAILABLE + 2, &index.to_le_bytes());
    }

    /// Makes a chain of `(address, bytes, flags)` available, and returns its head.
    pub fn offer(&mut self, buffers: &[(u64, u32, u16)]) -> u16 {
        let head = self.descriptors % QUEUE_SIZE;
        for (nth, &(address, bytes, flags)) in buffers.iter().enumerate() {
            let index = self.descriptors % QUEUE_SIZE;
            self.descriptors += 1;
            let more = if nth + 1 < buffers.len() { NEXT } else { 0 };
            self.set_descriptor(index, address, bytes, flags | more, self.descriptors % QUEUE_SIZE);
        }
        self.make_available(head);
        head
    }

    /// Takes this many entries of the used ring for seen.
    pub fn skip_used(&mut self, used: u16) {
        self.used = self.used.wrapping_add(used);
    }

    /// What came back since the last call: heads, and how many bytes the device says it wrote.
    pub fn take_used(&mut self) -> Vec<(u16, u32)> {
        let mut used = Vec::new();
        while self.used.to_le_bytes() != *self.read(USED + 2, 2) {
            let element = self.read(USED + 4 + u64::from(self.used % QUEUE_SIZE) * 8, 8);
            let [head, bytes] = [&element[..4], &element[4..]].map(|half| u32::from_le_bytes(half.try_into().unwrap()));
            used.push((u16::try_from(head).unwrap(), bytes));
            self.used = self.used.wrapping_add(1);
        }
        used
    }
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}

/// A descriptor as it lies in memory.
pub fn descriptor(address: u64, bytes: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&address.to_le_bytes());
    descriptor[8..12].copy_from_slice(&bytes.to_le_bytes());
    descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
    descriptor[14..].copy_from_slice(&next.to_le_bytes());
    descriptor
}
