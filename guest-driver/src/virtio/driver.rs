//! The virtio-balloon driver (VIRTIO 1.3, 5.5): says to the device what the guest gives and takes.
//!
//! Each queue has one request under way at most. The driver never waits: whoever calls it looks at
//! [`Driver::is_idle`] when it suits, interrupts are only a hint. It knows nothing of the allocator;
//! [`crate::virtio::balloon`] decides what to give.
//!
//! ```no_run
//! # use guest_driver::virtio::{driver::{Driver, Options, Purpose}, transport::Transport};
//! # use guest_driver::memory::Span;
//! # fn example<T: Transport>(registers: T, seven_pages: Span, my_free_pages: &[u32]) {
//! // `registers`: the device's register file; `seven_pages`: memory of the driver's own, at an address that
//! // the device knows.
//! let mut driver = Driver::start(registers, seven_pages, Options::default()).expect("a balloon device");
//! if driver.requested_pages() as usize >= my_free_pages.len() {
//!     driver.inflate(my_free_pages);
//!     while !driver.is_idle(Purpose::Inflate) { /* run something else, or wait for an interrupt */ }
//!     driver.set_actual_pages(my_free_pages.len() as u32);
//! }
//! # }
//! ```

use core::ops::Range;

use wire::PAGE_BYTES;
use wire::balloon::{
    CONFIG_ACTUAL, CONFIG_FREE_PAGE_HINT_CMD_ID, CONFIG_NUM_PAGES, CONFIG_POISON_VAL, DEVICE_ID, F_DEFLATE_ON_OOM,
    F_FREE_PAGE_HINT, F_MUST_TELL_HOST, F_PAGE_POISON, F_REPORTING, F_STATS_VQ, STAT_BYTES,
};
use wire::mmio;
use wire::virtio::{
    F_VERSION_1, STATUS_ACKNOWLEDGE, STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_FAILED, STATUS_FEATURES_OK,
};

use crate::memory::Span;
use crate::virtio::queue::{Access, Queue};
use crate::virtio::transport::Transport;

/// Page numbers in one buffer: what Linux sends (`VIRTIO_BALLOON_ARRAY_PFNS_MAX`), and what other devices
/// take at most.
const BUFFER_PAGES: usize = 256;
/// Page numbers in one request: a page full of buffers.
pub const REQUEST_PAGES_MAX: usize = PAGE_BYTES / 4;
/// Ranges in one report: what Linux sends (`PAGE_REPORTING_CAPACITY`).
pub const REPORT_RANGES_MAX: usize = 32;
/// Statistics in one answer: what fits in the spare part of the queue's page, and more than there are tags.
pub const STATISTICS_MAX: usize = 64;

/// Why there is no balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The registers are not those of a virtio-mmio device, version 2, of the balloon's kind.
    NoBalloon,
    /// The device does not offer VERSION_1, or refused the features chosen.
    Features,
    /// The device lacks the queue with this index.
    Queue(u32),
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Giving pages.
    Inflate,
    /// Taking pages back.
    Deflate,
    /// Answering for statistics.
    Statistics,
    /// Naming pages whose content is not needed, in rounds that the host asks for.
    Hinting,
    /// Naming free pages.
    Reporting,
}

/// A page list and the queue it goes through.
#[derive(Debug)]
struct PageQueue {
    queue: Queue,
    list: Span,
    listed: usize,
}

#[derive(Debug)]
struct Queues {
    inflate: PageQueue,
    deflate: PageQueue,
    statistics: Option<Queue>,
    hinting: Option<Queue>,
    reporting: Option<Queue>,
}

/// A balloon device under way.
#[derive(Debug)]
pub struct Driver<T> {
    transport: T,
    features: u64,
    queues: Queues,
}

/// Pages of memory a driver needs: five queues and two page lists.
pub const DRIVER_PAGES: u32 = 7;

/// What a guest does that its host is to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Free pages are filled with this: pages that come back from the host, reported or hinted at, are found
    /// so too. Whoever says this must fill pages before they are reported, and pages from the balloon before
    /// they are used (5.5.6.6.1). `None`: free pages hold anything.
    pub poison: Option<u32>,
}

impl<T: Transport> Driver<T> {
    /// Initialises the device (3.1.1), with [`DRIVER_PAGES`] of `memory` for queues and page lists.
    pub fn start(transport: T, memory: Span, options: Options) -> Result<Self, Error> {
        let identity = [mmio::MAGIC_VALUE, mmio::VERSION, mmio::DEVICE_ID].map(|register| transport.read(register));
        if identity != [mmio::MAGIC, mmio::VERSION_2, DEVICE_ID] {
            return Err(Error::NoBalloon);
        }
        match bring_up(&transport, memory, options) {
            Ok((features, queues)) => Ok(Driver { transport, features, queues }),
            Err(error) => {
                transport.write(mmio::STATUS, STATUS_FAILED);
                Err(error)
            }
        }
    }

    /// Whether this feature was agreed on.
    pub fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 == 1
    }

    /// Acknowledges an interrupt.
    pub fn acknowledge_interrupt(&self) {
        let causes = self.transport.read(mmio::INTERRUPT_STATUS);
        self.transport.write(mmio::INTERRUPT_ACK, causes);
    }

    /// Pages that the host wants.
    pub fn requested_pages(&self) -> u32 {
        self.transport.read(mmio::CONFIG + CONFIG_NUM_PAGES)
    }

    /// Tells the host how many pages the balloon has (5.5.6.1).
    pub fn set_actual_pages(&self, pages: u32) {
        self.transport.write(mmio::CONFIG + CONFIG_ACTUAL, pages);
    }

    /// Whether a queue exists and has no request under way.
    pub fn is_idle(&self, purpose: Purpose) -> bool {
        let queue = match purpose {
            Purpose::Inflate => Some(&self.queues.inflate.queue),
            Purpose::Deflate => Some(&self.queues.deflate.queue),
            Purpose::Statistics => self.queues.statistics.as_ref(),
            Purpose::Hinting => self.queues.hinting.as_ref(),
            Purpose::Reporting => self.queues.reporting.as_ref(),
        };
        queue.is_some_and(Queue::is_idle)
    }

    /// Gives at most [`REQUEST_PAGES_MAX`] pages.
    pub fn inflate(&mut self, gfns: &[u32]) {
        self.queues.inflate.send(&self.transport, gfns);
    }

    /// Asks for at most [`REQUEST_PAGES_MAX`] pages back. They may be used once the queue is idle again,
    /// whether MUST_TELL_HOST was agreed on or not.
    pub fn deflate(&mut self, gfns: &[u32]) {
        self.queues.deflate.send(&self.transport, gfns);
    }

    /// The pages of the last deflate request.
    pub fn deflated(&self) -> impl Iterator<Item = u32> + use<T> {
        let list = self.queues.deflate.list;
        (0..self.queues.deflate.listed).map(move |index| list.u32(index))
    }

    /// Hands the device 1 to [`STATISTICS_MAX`] statistics, `(tag, value)`: once at the start, and then
    /// whenever the queue is idle, which is how the device asks for them (5.5.6.3).
    pub fn send_statistics(&mut self, statistics: &[(u16, u64)]) {
        let Some(queue) = &mut self.queues.statistics else { return };
        let buffer = queue.spare();
        let halves = |&(tag, value): &(u16, u64)| {
            let value = [0, 16, 32, 48].map(|shift| (value >> shift) as u16);
            [tag, value[0], value[1], value[2], value[3]]
        };
        let count = statistics.len().min(STATISTICS_MAX);
        for (index, half) in statistics[..count].iter().flat_map(halves).enumerate() {
            buffer.set_u16(index, half);
        }
        let bytes = (count * STAT_BYTES) as u32;
        queue.add(Access::DeviceReads, [(buffer.gpa(), bytes)].into_iter());
        queue.submit(&self.transport);
    }

    /// The host's word on hinting: a round's number, or one of the `HINT_CMD_ID`s that name none.
    pub fn hint_command(&self) -> u32 {
        if self.has(F_FREE_PAGE_HINT) { self.transport.read(mmio::CONFIG + CONFIG_FREE_PAGE_HINT_CMD_ID) } else { 0 }
    }

    /// Begins or ends a round of hinting with `command` (5.5.6.5), if there is one, then names at most
    /// [`REPORT_RANGES_MAX`] ranges of pages whose content is not needed. They may be used again at any time,
    /// if they are written to before they are read.
    pub fn hint(&mut self, command: Option<u32>, ranges: &[Range<u32>]) {
        let Some(queue) = &mut self.queues.hinting else { return };
        if let Some(command) = command {
            let buffer = queue.spare();
            buffer.set_u32(0, command);
            queue.add(Access::DeviceReads, [(buffer.gpa(), size_of::<u32>() as u32)].into_iter());
        }
        if !ranges.is_empty() {
            queue.add(Access::DeviceWrites, buffers(ranges));
        }
        queue.submit(&self.transport);
    }

    /// Names at most [`REPORT_RANGES_MAX`] ranges of free pages, none of which may be used until the queue is
    /// idle again.
    pub fn report(&mut self, ranges: &[Range<u32>]) {
        let Some(queue) = &mut self.queues.reporting else { return };
        queue.add(Access::DeviceWrites, buffers(ranges));
        queue.submit(&self.transport);
    }
}

/// Ranges of pages as buffers.
fn buffers(ranges: &[Range<u32>]) -> impl ExactSizeIterator<Item = (u64, u32)> {
    let buffer = |range: &Range<u32>| {
        (u64::from(range.start) * PAGE_BYTES as u64, (range.end - range.start) * PAGE_BYTES as u32)
    };
    ranges.iter().map(buffer)
}

impl PageQueue {
    fn send<T: Transport>(&mut self, transport: &T, gfns: &[u32]) {
        for (index, &gfn) in gfns.iter().enumerate() {
            self.list.set_u32(index, gfn);
        }
        self.listed = gfns.len();
        for (position, part) in gfns.chunks(BUFFER_PAGES).enumerate() {
            let gpa = self.list.gpa() + (position * BUFFER_PAGES * 4) as u64;
            self.queue.add(Access::DeviceReads, [(gpa, part.len() as u32 * 4)].into_iter());
        }
        self.queue.submit(transport);
    }
}

fn bring_up<T: Transport>(transport: &T, memory: Span, options: Options) -> Result<(u64, Queues), Error> {
    transport.write(mmio::STATUS, 0);
    add_status(transport, STATUS_ACKNOWLEDGE);
    add_status(transport, STATUS_DRIVER);
    let features = negotiate(transport, options)?;
    let has = |feature: u32| features >> feature & 1 == 1;

    // Queues are numbered without gaps: one whose feature was not agreed on has no number. (So do Linux and
    // QEMU; 5.5.2.)
    let page = |number: usize| memory.part(number * PAGE_BYTES, PAGE_BYTES);
    let mut next = 0;
    let mut queue = || {
        let index = next;
        next += 1;
        Queue::set_up(transport, index, page(index as usize)).ok_or(Error::Queue(index))
    };
    let queues = Queues {
        inflate: PageQueue { queue: queue()?, list: page(5), listed: 0 },
        deflate: PageQueue { queue: queue()?, list: page(6), listed: 0 },
        statistics: has(F_STATS_VQ).then(&mut queue).transpose()?,
        hinting: has(F_FREE_PAGE_HINT).then(&mut queue).transpose()?,
        reporting: has(F_REPORTING).then(&mut queue).transpose()?,
    };
    // 5.5.6.6.1: "The driver MUST populate the poison_val configuration data before setting the DRIVER_OK
    // bit."
    if let Some(poison) = options.poison.filter(|_| has(F_PAGE_POISON)) {
        transport.write(mmio::CONFIG + CONFIG_POISON_VAL, poison);
    }
    add_status(transport, STATUS_DRIVER_OK);
    Ok((features, queues))
}

/// Takes what is offered of what this driver can do (3.1.1, steps 4 to 6).
fn negotiate<T: Transport>(transport: &T, options: Options) -> Result<u64, Error> {
    let mut understood = [F_VERSION_1, F_MUST_TELL_HOST, F_STATS_VQ, F_DEFLATE_ON_OOM, F_FREE_PAGE_HINT, F_REPORTING]
        .into_iter()
        .fold(0, |all, feature| all | 1u64 << feature);
    // 5.5.3.1: the flag is for drivers that fill deflated pages.
    if options.poison.is_some() {
        understood |= 1 << F_PAGE_POISON;
    }
    let mut offered = 0;
    for half in 0..2 {
        transport.write(mmio::DEVICE_FEATURES_SEL, half);
        offered |= u64::from(transport.read(mmio::DEVICE_FEATURES)) << (32 * half);
    }
    let mut features = offered & understood;
    // 5.5.3.1: "If the driver is expecting the pages to retain some initialized value, it MUST NOT accept
    // VIRTIO_BALLOON_F_PAGE_REPORTING unless it also negotiates VIRTIO_BALLOON_F_PAGE_POISON."
    if options.poison.is_some() && features >> F_PAGE_POISON & 1 == 0 {
        features &= !(1 << F_REPORTING | 1 << F_FREE_PAGE_HINT);
    }
    if features >> F_VERSION_1 & 1 == 0 {
        return Err(Error::Features);
    }
    for half in 0..2 {
        transport.write(mmio::DRIVER_FEATURES_SEL, half);
        transport.write(mmio::DRIVER_FEATURES, (features >> (32 * half)) as u32);
    }
    add_status(transport, STATUS_FEATURES_OK);
    let accepted = transport.read(mmio::STATUS) & STATUS_FEATURES_OK != 0;
    if accepted { Ok(features) } else { Err(Error::Features) }
}

fn add_status<T: Transport>(transport: &T, bit: u32) {
    transport.write(mmio::STATUS, transport.read(mmio::STATUS) | bit);
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
