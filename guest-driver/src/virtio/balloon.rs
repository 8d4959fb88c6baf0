//! The guest's side of ballooning: what to give, what to take back, and when.
//!
//! ```text
//!   requested > actual:  free pages from the top, then clean ones, never below the floor    (inflate)
//!   requested < actual:  the lowest ballooned pages                                         (deflate)
//!   out of memory:       a few pages back although nobody asked, if DEFLATE_ON_OOM          (relieve)
//!   between times:       runs of free pages are named to the host                           (report)
//!   a round of hinting:  all free pages are named, and kept apart until the host is done    (hint)
//! ```
//!
//! [`Balloon::poll`] does one bounded piece of each and never waits. Whose pages they are it does not know:
//! that is a [`PageSupply`], which is asked to move pages, and never while a register is touched, so it may
//! take a lock in each call.
//!
//! ```no_run
//! use guest_driver::virtio::balloon::Balloon;
//! use guest_driver::memory::Span;
//! use guest_driver::virtio::supply::PageSupply;
//! use guest_driver::virtio::transport::Transport;
//!
//! /// All a small kernel needs: a stack of free pages, and one of pages in the balloon.
//! struct Stacks {
//!     free: [u32; 4096],
//!     free_count: usize,
//!     ballooned: [u32; 4096],
//!     ballooned_count: usize,
//! }
//!
//! impl PageSupply for Stacks {
//!     fn take_for_balloon(&mut self, floor_pages: u32, gfns: &mut [u32]) -> usize {
//!         let count = gfns.len().min(self.free_count.saturating_sub(floor_pages as usize));
//!         for gfn in &mut gfns[..count] {
//!             self.free_count -= 1;
//!             *gfn = self.free[self.free_count];
//!             self.ballooned[self.ballooned_count] = *gfn;
//!             self.ballooned_count += 1;
//!         }
//!         count
//!     }
//!
//!     fn pick_ballooned(&mut self, gfns: &mut [u32]) -> usize {
//!         let count = gfns.len().min(self.ballooned_count);
//!         let last = self.ballooned_count - count..self.ballooned_count;
//!         gfns[..count].copy_from_slice(&self.ballooned[last]);
//!         count
//!     }
//!
//!     fn return_ballooned(&mut self, gfns: impl Iterator<Item = u32>) {
//!         // The ones picked last, and only those.
//!         for gfn in gfns {
//!             self.ballooned_count -= 1;
//!             self.free[self.free_count] = gfn;
//!             self.free_count += 1;
//!         }
//!     }
//!
//!     fn statistics(&mut self, into: &mut [(u16, u64)]) -> usize {
//!         into[0] = (wire::balloon::stat::MEMFREE, self.free_count as u64 * 4096);
//!         1
//!     }
//! }
//!
//! /// `registers`: the device; `seven_pages`: the driver's own memory; `now_ms`: any clock; `interrupted`: a
//! /// hint, or never.
//! fn run<T: Transport>(
//!     registers: T,
//!     seven_pages: Span,
//!     mut pages: Stacks,
//!     now_ms: fn() -> u64,
//!     interrupted: fn() -> bool,
//! ) {
//!     let mut balloon = Balloon::start(registers, seven_pages, &mut pages, 64).expect("a balloon device");
//!     loop {
//!         if interrupted() {
//!             balloon.interrupt(now_ms());
//!         }
//!         balloon.poll(&mut pages, now_ms());
//!         // ... whatever else there is to do
//!     }
//! }
//! ```

use core::ops::Range;

use wire::balloon::{F_DEFLATE_ON_OOM, HINT_CMD_ID_DONE, HINT_CMD_ID_FIRST, HINT_CMD_ID_STOP};

use crate::memory::Span;
use crate::virtio::driver::{Driver, Error, Options, Purpose, REPORT_RANGES_MAX, REQUEST_PAGES_MAX, STATISTICS_MAX};
use crate::virtio::supply::PageSupply;
use crate::virtio::transport::Transport;

/// Pages taken back each time memory runs out: as many as Linux takes (`VIRTIO_BALLOON_OOM_NR_PAGES`).
const RELIEF_PAGES: usize = 256;
/// How long after such a relief the balloon does not grow: else it would take the pages right back.
const RELIEF_HOLD_MS: u64 = 1000;
/// Time between reports. Linux waits 2 s; the sooner, the more is given back, and the more of it is faulted
/// in again.
const REPORT_INTERVAL_MS: u64 = 250;
/// Shortest run of free pages worth reporting: each range costs the host a system call or two.
pub const REPORT_RUN_MIN: u32 = 16;
/// Most pages out of reach in one report, 16 MiB.
const REPORT_PAGES_MAX: u32 = 4096;
/// How often the request is read although no interrupt said so: interrupts may get lost, this is the net
/// below.
const REQUEST_INTERVAL_MS: u64 = 500;

/// Where the balloon stands with the host's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do, or a request is under way.
    Moving,
    /// As large as requested.
    Settled,
    /// Too small, and nothing more can be given now.
    Refused,
}

/// A balloon and what is under way in it.
#[derive(Debug)]
pub struct Balloon<T> {
    driver: Driver<T>,
    floor_pages: u32,
    requested_pages: u32,
    request_read_ms: u64,
    actual_pages: u32,
    inflating: bool,
    deflating: bool,
    no_growth_before_ms: u64,
    report: [Range<u32>; REPORT_RANGES_MAX],
    report_ranges: usize,
    next_report_ms: u64,
    hint_command: u32,
    hinting: Hinting,
}

/// Where the guest is in a round of hinting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hinting {
    /// In none.
    Idle,
    /// In the round of this number: pages are being named.
    Naming(u32),
    /// Through with the round of this number.
    Named(u32),
}

impl<T: Transport> Balloon<T> {
    /// Starts the device, with [`crate::virtio::driver::DRIVER_PAGES`] of `memory` for its queues. The
    /// balloon leaves `floor_pages` to the guest.
    pub fn start(transport: T, memory: Span, supply: &mut impl PageSupply, floor_pages: u32) -> Result<Self, Error> {
        let mut driver = Driver::start(transport, memory, Options::default())?;
        send_statistics(&mut driver, supply);
        let (requested_pages, hint_command) = (driver.requested_pages(), driver.hint_command());
        Ok(Balloon {
            driver,
            floor_pages,
            requested_pages,
            request_read_ms: 0,
            actual_pages: 0,
            inflating: false,
            deflating: false,
            no_growth_before_ms: 0,
            report: [const { 0..0 }; REPORT_RANGES_MAX],
            report_ranges: 0,
            next_report_ms: 0,
            hint_command,
            hinting: Hinting::Idle,
        })
    }

    /// Whether [`Balloon::poll`] has something to look at that no interrupt or clock announces.
    pub fn is_moving(&self) -> bool {
        self.inflating || self.deflating || self.report_ranges > 0 || matches!(self.hinting, Hinting::Naming(_))
    }

    /// Handles an interrupt.
    pub fn interrupt(&mut self, now_ms: u64) {
        self.driver.acknowledge_interrupt();
        self.read_request(now_ms);
    }

    /// Does what can be done now without waiting.
    pub fn poll(&mut self, supply: &mut impl PageSupply, now_ms: u64) -> Progress {
        if now_ms >= self.request_read_ms + REQUEST_INTERVAL_MS {
            self.read_request(now_ms);
        }
        self.complete(supply);
        self.answer_statistics(supply);
        self.hint(supply);
        if now_ms >= self.next_report_ms {
            self.report(supply, now_ms);
        }
        if self.inflating || self.deflating {
            return Progress::Moving;
        }
        let gap = i64::from(self.requested_pages) - i64::from(self.actual_pages);
        match gap {
            0 => Progress::Settled,
            1.. if now_ms < self.no_growth_before_ms => Progress::Refused,
            1.. => self.inflate(supply, gap as usize),
            _ => self.deflate(supply, gap.unsigned_abs() as usize),
        }
    }

    /// Starts to take a few pages back for a guest that has run out, if host and guest agreed that it may.
    pub fn relieve(&mut self, supply: &mut impl PageSupply, now_ms: u64) {
        if self.driver.has(F_DEFLATE_ON_OOM) && !self.inflating && !self.deflating {
            self.no_growth_before_ms = now_ms + RELIEF_HOLD_MS;
            self.deflate(supply, RELIEF_PAGES);
        }
    }

    fn read_request(&mut self, now_ms: u64) {
        self.request_read_ms = now_ms;
        self.requested_pages = self.driver.requested_pages();
        self.hint_command = self.driver.hint_command();
    }

    fn inflate(&mut self, supply: &mut impl PageSupply, gap: usize) -> Progress {
        let mut gfns = [0; REQUEST_PAGES_MAX];
        let wanted = gap.min(REQUEST_PAGES_MAX);
        let taken = supply.take_for_balloon(self.floor_pages, &mut gfns[..wanted]);
        if taken == 0 {
            return Progress::Refused;
        }
        self.driver.inflate(&gfns[..taken]);
        self.actual_pages += taken as u32;
        self.inflating = true;
        Progress::Moving
    }

    fn deflate(&mut self, supply: &mut impl PageSupply, gap: usize) -> Progress {
        let mut gfns = [0; REQUEST_PAGES_MAX];
        let wanted = gap.min(REQUEST_PAGES_MAX);
        let picked = supply.pick_ballooned(&mut gfns[..wanted]);
        if picked == 0 {
            return Progress::Settled;
        }
        self.driver.deflate(&gfns[..picked]);
        self.actual_pages -= picked as u32;
        self.deflating = true;
        Progress::Moving
    }

    /// Ends the requests that the device is done with.
    fn complete(&mut self, supply: &mut impl PageSupply) {
        let inflated = self.inflating && self.driver.is_idle(Purpose::Inflate);
        let deflated = self.deflating && self.driver.is_idle(Purpose::Deflate);
        if deflated {
            supply.return_ballooned(self.driver.deflated());
            self.deflating = false;
        }
        if inflated {
            self.inflating = false;
        }
        if inflated || deflated {
            self.driver.set_actual_pages(self.actual_pages);
        }
        if self.report_ranges > 0 && self.driver.is_idle(Purpose::Reporting) {
            supply.report_done(&self.report[..self.report_ranges]);
            self.report_ranges = 0;
        }
    }

    fn report(&mut self, supply: &mut impl PageSupply, now_ms: u64) {
        if self.report_ranges > 0 || !self.driver.is_idle(Purpose::Reporting) {
            return;
        }
        // Half of what is free stays within reach of allocations.
        let pages_max = (supply.free_pages() / 2).clamp(REPORT_RUN_MIN, REPORT_PAGES_MAX);
        self.report_ranges = supply.take_for_report(pages_max, &mut self.report);
        if self.report_ranges > 0 {
            self.driver.report(&self.report[..self.report_ranges]);
        }
        // A full batch means that there is more: go on as soon as it is done.
        let pages: u32 = self.report[..self.report_ranges].iter().map(|range| range.end - range.start).sum();
        let full = self.report_ranges == REPORT_RANGES_MAX || pages + REPORT_RUN_MIN > REPORT_PAGES_MAX;
        self.next_report_ms = if full { now_ms } else { now_ms + REPORT_INTERVAL_MS };
    }

    /// The next step of a round of hinting.
    fn hint(&mut self, supply: &mut impl PageSupply) {
        let command = self.hint_command;
        match self.hinting {
            // 5.5.6.5.1: "The driver SHOULD release all previously hinted pages once free_page_hint_cmd_id
            // specifies a value of VIRTIO_BALLOON_CMD_ID_DONE."
            Hinting::Named(_) if command == HINT_CMD_ID_DONE => {
                supply.release_hinted();
                self.hinting = Hinting::Idle;
            }
            _ if !self.driver.is_idle(Purpose::Hinting) => {}
            Hinting::Naming(round) if round == command && supply.has_hints() => {
                self.name_pages(supply, None);
            }
            // No more pages, or no more wish for them: "it MUST complete hinting by adding an output buffer
            // containing the command ID VIRTIO_BALLOON_CMD_ID_STOP".
            Hinting::Naming(round) => {
                self.driver.hint(Some(HINT_CMD_ID_STOP), &[]);
                self.hinting = Hinting::Named(round);
            }
            Hinting::Idle | Hinting::Named(_) if command < HINT_CMD_ID_FIRST => {}
            Hinting::Named(round) if round == command => {}
            Hinting::Idle | Hinting::Named(_) => {
                supply.begin_hints();
                self.name_pages(supply, Some(command));
                self.hinting = Hinting::Naming(command);
            }
        }
    }

    fn name_pages(&mut self, supply: &mut impl PageSupply, command: Option<u32>) {
        let mut ranges = [const { 0..0 }; REPORT_RANGES_MAX];
        let taken = supply.take_for_hint(&mut ranges);
        if taken > 0 || command.is_some() {
            self.driver.hint(command, &ranges[..taken]);
        }
    }

    fn answer_statistics(&mut self, supply: &mut impl PageSupply) {
        if self.driver.is_idle(Purpose::Statistics) {
            send_statistics(&mut self.driver, supply);
        }
    }
}

fn send_statistics<T: Transport>(driver: &mut Driver<T>, supply: &mut impl PageSupply) {
    let mut statistics = [(0, 0); STATISTICS_MAX];
    let count = supply.statistics(&mut statistics);
    driver.send_statistics(&statistics[..count]);
}
