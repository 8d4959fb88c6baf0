//! One vCPU at work: its view of the guest, its counters, and, on vCPU 0, the balloon.

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use wire::machine::{BootInfo, CONTENTS_RANDOM, CONTENTS_THIRD, VcpuReport};

use crate::allocator::{Allocator, Kind};
use crate::lock::Spinlock;
use crate::machine::{Console, Machine};
use crate::memory::Ram;
use crate::page::Texture;
use crate::rng::Rng;
use crate::shared::Shared;
use crate::virtio::balloon::{Balloon, Progress};
use crate::virtio::transport::Mmio;

/// Polls between two publications of the allocator's counts, which take its lock.
const POLLS_PER_PUBLICATION: u32 = 64;
/// Waits of 1 ms for the balloon to relieve an essential allocation.
const RELIEF_WAITS: u32 = 50;
/// Corrupt pages described on the console; the others are only counted.
const CORRUPT_LINES_MAX: u64 = 4;

/// A vCPU.
#[derive(Debug)]
pub struct Cpu<'a, M: Machine> {
    shared: &'a Shared<M>,
    vcpu: u32,
    ram: Ram,
    balloon: Option<Balloon<Mmio<'a, M>>>,
    polls: u32,
    /// Random numbers, different for each vCPU of each guest.
    pub rng: Rng,
}

impl<'a, M: Machine> Cpu<'a, M> {
    pub(crate) fn new(shared: &'a Shared<M>, vcpu: u32, balloon: Option<Balloon<Mmio<'a, M>>>) -> Self {
        let boot = shared.machine().boot();
        let rng = Rng::new(boot.seed ^ (u64::from(boot.guest) << 32 | u64::from(vcpu)));
        Cpu { shared, vcpu, ram: shared.ram(), balloon, polls: 0, rng }
    }

    /// What the guest was told at its start.
    pub fn boot(&self) -> &'a BootInfo {
        self.shared.machine().boot()
    }

    /// This vCPU's counters.
    pub fn report(&self) -> &'a VcpuReport {
        self.shared.machine().report(self.vcpu)
    }

    /// The guest's RAM.
    pub fn ram(&self) -> Ram {
        self.ram
    }

    /// This vCPU's part of so many thousandths of RAM, in pages.
    pub fn share(&self, permille: u32) -> u32 {
        let pages = u64::from(self.ram.pages()) * u64::from(permille) / 1000;
        (pages / u64::from(self.boot().vcpus.max(1))) as u32
    }

    /// A name for page `index` of a space, that no other page of this guest has.
    pub fn address(&self, space: u16, index: u32) -> u64 {
        u64::from(space) << 48 | u64::from(self.vcpu) << 32 | u64::from(index)
    }

    /// What pages are to be like: the workload's own texture, unless the guest was told otherwise.
    pub fn texture(&self, own: Texture) -> Texture {
        match self.boot().contents {
            CONTENTS_RANDOM => Texture::Random,
            CONTENTS_THIRD => Texture::Third,
            _ => own,
        }
    }

    /// A key for clean page `index`, that no other vCPU uses.
    pub fn key(&self, index: u32) -> u32 {
        self.vcpu << 24 | index
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.shared.machine().control().now_ms.load(Relaxed)
    }

    /// Whether the workload is to end.
    pub fn stopping(&self) -> bool {
        self.shared.machine().control().stop.load(Relaxed) != 0
    }

    /// Serves the balloon if there is anything to serve. Cheap when there is not; to be called between any
    /// two operations.
    pub fn poll(&mut self) -> Progress {
        self.polls = self.polls.wrapping_add(1);
        if self.vcpu != 0 {
            return Progress::Settled;
        }
        let due = self.polls.is_multiple_of(POLLS_PER_PUBLICATION);
        if due {
            self.publish();
        }
        let Some(balloon) = &mut self.balloon else { return Progress::Settled };
        let control = self.shared.machine().control();
        let interrupted = control.interrupt.load(Relaxed) != 0;
        if !(interrupted || due || balloon.is_moving()) {
            return Progress::Settled;
        }
        let now_ms = control.now_ms.load(Relaxed);
        if interrupted {
            balloon.interrupt(now_ms);
        }
        if self.shared.take_relief_wish() {
            balloon.relieve(&mut self.shared.allocator(), now_ms);
        }
        balloon.poll(&mut self.shared.allocator(), now_ms)
    }

    /// Serves the balloon until it has nothing under way, then waits for an interrupt, the stop, or `ms`
    /// milliseconds.
    pub fn park(&mut self, ms: u32) {
        self.polls = self.polls.next_multiple_of(POLLS_PER_PUBLICATION).wrapping_sub(1);
        self.poll();
        self.shared.machine().park(ms);
    }

    /// Inflates the balloon to what the host asked for before the start.
    pub(crate) fn settle_balloon(&mut self) {
        self.polls = 0;
        while self.balloon.is_some() && !self.stopping() {
            self.polls = POLLS_PER_PUBLICATION - 1;
            match self.poll() {
                Progress::Moving => self.shared.machine().park(1),
                Progress::Settled | Progress::Refused => return,
            }
        }
    }

    /// A page of unknown content. Workloads must do without if there is none.
    pub fn allocate(&mut self) -> Option<u32> {
        self.with(Allocator::allocate)
    }

    /// Contiguous pages that the workload cannot do without: for these the balloon gives some back, if it
    /// may.
    pub fn allocate_essential_run(&mut self, pages: u32) -> Option<u32> {
        for _ in 0..RELIEF_WAITS {
            let run = self.with(|all| all.allocate_run(pages, Kind::Anonymous));
            if run.is_some() || self.boot().balloon == 0 || self.stopping() {
                return run;
            }
            self.shared.wish_relief();
            self.park(1);
        }
        None
    }

    /// Has the balloon give some pages back, if it may; false if none came.
    pub fn relief(&mut self) -> bool {
        let free = |cpu: &mut Self| cpu.with(|all| all.count(Kind::Free));
        let before = free(self);
        for _ in 0..RELIEF_WAITS {
            if self.boot().balloon == 0 || self.stopping() {
                return false;
            }
            self.shared.wish_relief();
            self.park(1);
            if free(self) > before {
                return true;
            }
        }
        false
    }

    /// A clean page of unknown content, pinned.
    pub fn allocate_clean(&mut self, key: u32) -> Option<u32> {
        self.with(|all| all.allocate_clean(key))
    }

    /// Holds a clean page, if it is still there.
    pub fn pin(&mut self, gfn: u32, key: u32) -> bool {
        self.with(|all| all.pin(gfn, key))
    }

    /// Lets a clean page go.
    pub fn unpin(&mut self, gfn: u32) {
        self.with(|all| all.unpin(gfn));
    }

    /// Frees a page.
    pub fn free(&mut self, gfn: u32) {
        self.with(|all| all.free(gfn));
    }

    /// The processor's clock.
    pub fn ticks(&self) -> u64 {
        crate::machine::ticks()
    }

    /// Writes a device register.
    pub fn mmio_write(&self, gpa: u64, value: u32) {
        self.shared.machine().mmio_write(gpa, value);
    }

    /// Counts operations of the workload.
    pub fn operated(&self, operations: u64) {
        bump(&self.report().operations, operations);
    }

    /// Counts a page that was read whole, and speaks up if it was wrong.
    pub fn checked(&mut self, gfn: u32, right: bool) {
        let report = self.report();
        if right {
            bump(&report.pages_verified, 1);
            if self.stopping() {
                bump(&report.pages_verified_at_end, 1);
            }
            return;
        }
        let gpa = u64::from(gfn) * wire::PAGE_BYTES as u64;
        let before = report.pages_corrupt.load(Relaxed);
        if before == 0 {
            report.first_corrupt_gpa.store(gpa, Relaxed);
        }
        bump(&report.pages_corrupt, 1);
        if before < CORRUPT_LINES_MAX {
            let guest = self.boot().guest;
            let vcpu = self.vcpu;
            let mut console = Console(self.shared.machine());
            // The console's writes cannot fail.
            let _ = writeln!(console, "guest {guest} vcpu {vcpu}: page at {gpa:#x} is not what was written there");
        }
    }

    /// Copies the allocator's counts to the report of vCPU 0, which speaks for the guest.
    pub(crate) fn publish(&mut self) {
        if self.vcpu != 0 {
            return;
        }
        let report = self.report();
        let lock: &Spinlock<Option<Allocator>> = self.shared.allocator();
        if let Some(all) = lock.lock().as_ref() {
            let free = all.count(Kind::Free) + all.count(Kind::Reporting) + all.count(Kind::Hinted);
            for (counter, value) in [
                (&report.pages_free, u64::from(free)),
                (&report.pages_anonymous, u64::from(all.count(Kind::Anonymous))),
                (&report.pages_clean, u64::from(all.count(Kind::Clean))),
                (&report.pages_ballooned, u64::from(all.count(Kind::Ballooned))),
                (&report.allocation_failures, all.failures),
                (&report.clean_drops, all.clean_drops),
                (&report.pages_reported, all.reported_total),
            ] {
                counter.store(value, Relaxed);
            }
        }
    }

    fn with<R>(&mut self, body: impl FnOnce(&mut Allocator) -> R) -> R {
        body(self.shared.allocator().lock().as_mut().expect("the allocator precedes the workload"))
    }
}

/// Adds to a counter that only this vCPU writes.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}
