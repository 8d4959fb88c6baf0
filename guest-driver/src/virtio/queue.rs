//! The driver's side of a split virtqueue (VIRTIO 1.3, 2.7) in one page of memory that the caller supplies.
//!
//! ```text
//!   0      descriptor table, 64 × 16 bytes
//!   1024   available ring:  flags, index, 64 × head                 (driver writes)
//!   2048   used ring:       flags, index, 64 × (head, length)       (device writes)
//!   3072   1 KiB that the queue's owner may use for buffers
//! ```
//!
//! A *request* is one or several chains made available together; it is done when all of them came back, which
//! the used index alone says. There is one request at a time, so every request starts at descriptor 0.

use core::sync::atomic::{Ordering::SeqCst, fence};

use wire::mmio;
use wire::virtio::{DESC_F_NEXT, DESC_F_WRITE};

use crate::memory::Span;
use crate::virtio::transport::Transport;

/// Largest queue that fits the page's layout; more than a report of 32 ranges or four page lists need.
pub const SIZE_MAX: u16 = 64;

const AVAILABLE: usize = 1024;
const USED: usize = 2048;
const SPARE: usize = 3072;
const SPARE_BYTES: usize = 1024;

/// Who reads and who writes a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The device reads it.
    DeviceReads,
    /// The device may write it.
    DeviceWrites,
}

/// One virtqueue.
#[derive(Debug)]
pub struct Queue {
    page: Span,
    index: u32,
    size: u16,
    descriptors: u16,
    available: u16,
}

impl Queue {
    /// Tells the device where queue `index` is and that it is ready. `None` if the device has no such queue.
    pub fn set_up<T: Transport>(transport: &T, index: u32, page: Span) -> Option<Queue> {
        transport.write(mmio::QUEUE_SEL, index);
        let size_max = transport.read(mmio::QUEUE_SIZE_MAX).min(u32::from(SIZE_MAX));
        if size_max == 0 {
            return None;
        }
        let size = 1u16 << size_max.ilog2();
        page.clear();
        transport.write(mmio::QUEUE_SIZE, u32::from(size));
        for (low, high, offset) in [
            (mmio::QUEUE_DESC_LOW, mmio::QUEUE_DESC_HIGH, 0),
            (mmio::QUEUE_DRIVER_LOW, mmio::QUEUE_DRIVER_HIGH, AVAILABLE),
            (mmio::QUEUE_DEVICE_LOW, mmio::QUEUE_DEVICE_HIGH, USED),
        ] {
            let gpa = page.gpa() + offset as u64;
            transport.write(low, gpa as u32);
            transport.write(high, (gpa >> 32) as u32);
        }
        transport.write(mmio::QUEUE_READY, 1);
        Some(Queue { page, index, size, descriptors: 0, available: 0 })
    }

    /// Descriptors a request may have.
    pub fn size(&self) -> usize {
        usize::from(self.size)
    }

    /// The part of the page that the queue does not need.
    pub fn spare(&self) -> Span {
        self.page.part(SPARE, SPARE_BYTES)
    }

    /// Whether everything made available came back.
    pub fn is_idle(&self) -> bool {
        let idle = self.page.u16(USED / 2 + 1) == self.available;
        fence(SeqCst); // What the device did before it moved the index is seen after this.
        idle
    }

    /// Adds one chain of `(gpa, bytes)` buffers to the request that [`Queue::submit`] will make.
    pub fn add(&mut self, access: Access, buffers: impl ExactSizeIterator<Item = (u64, u32)>) {
        let (head, count) = (self.descriptors, buffers.len());
        assert!(count > 0 && usize::from(head) + count <= self.size(), "request longer than the queue");
        let write = if access == Access::DeviceWrites { DESC_F_WRITE } else { 0 };
        for (position, (gpa, bytes)) in buffers.enumerate() {
            let at = usize::from(self.descriptors);
            let next = if position + 1 < count { DESC_F_NEXT } else { 0 };
            self.page.set_u64(at * 2, gpa);
            self.page.set_u32(at * 4 + 2, bytes);
            self.page.set_u16(at * 8 + 6, write | next);
            self.page.set_u16(at * 8 + 7, self.descriptors + 1);
            self.descriptors += 1;
        }
        self.page.set_u16(AVAILABLE / 2 + 2 + usize::from(self.available % self.size), head);
        self.available = self.available.wrapping_add(1);
    }

    /// Hands the chains added to the device.
    pub fn submit<T: Transport>(&mut self, transport: &T) {
        fence(SeqCst); // Descriptors and ring entries are in place before the index says so (2.7.13.3).
        self.page.set_u16(AVAILABLE / 2 + 1, self.available);
        fence(SeqCst);
        self.descriptors = 0;
        transport.write(mmio::QUEUE_NOTIFY, self.index);
    }
}
