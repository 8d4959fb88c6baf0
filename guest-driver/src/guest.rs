//! The guest: how its vCPUs start and end.
//!
//! ```text
//!   vcpu 0:   allocator -> balloon -> builds its pages -+              +-> workload -> verify all -> exit
//!   vcpu 1:   waits ----------------------------------> builds its pages +
//! ```
//!
//! vCPUs build in turn, so that every guest of a run gets the same pages for the same purposes.

use core::fmt::Write;
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use wire::PAGE_BYTES;
use wire::machine::{BOOT_MAGIC, RAM_BYTES_MAX, VCPUS_MAX, Workload};

use crate::allocator::{Allocator, Kind};
use crate::cpu::Cpu;
use crate::machine::{Console, Machine};
use crate::shared::Shared;
use crate::virtio::balloon::Balloon;
use crate::virtio::driver::{DRIVER_PAGES, Error};
use crate::virtio::transport::Mmio;
use crate::workload;

/// Exit code: everything verified.
pub const EXIT_OK: u32 = 0;
/// Exit code: some page was not what it had to be.
pub const EXIT_CORRUPT: u32 = 1;
/// Exit code: the boot information makes no sense, or RAM is too small.
pub const EXIT_UNUSABLE: u32 = 2;
/// Exit code of a guest that panicked.
pub const EXIT_PANIC: u32 = 101;

/// A guest on its machine. All vCPUs share one.
#[derive(Debug)]
pub struct BareGuest<M> {
    shared: Shared<M>,
    /// Number of the vCPU whose turn it is to build, plus 1; more than the last when all have.
    turn: AtomicU32,
    unusable: AtomicBool,
}

impl<M: Machine> BareGuest<M> {
    /// A guest that has not started.
    pub const fn new(machine: M) -> Self {
        BareGuest { shared: Shared::new(machine), turn: AtomicU32::new(0), unusable: AtomicBool::new(false) }
    }

    /// Runs one vCPU until the machine says stop; every vCPU must be run, each on a thread of its own. Says
    /// the exit code.
    pub fn run(&self, vcpu: u32) -> u32 {
        let boot = self.machine().boot();
        let usable = boot.magic == BOOT_MAGIC
            && (1..=VCPUS_MAX as u32).contains(&boot.vcpus)
            && vcpu < boot.vcpus
            && boot.ram_bytes <= RAM_BYTES_MAX
            && boot.ram_bytes.is_multiple_of(PAGE_BYTES as u64);
        let Some(workload) = Workload::from_number(boot.workload).filter(|_| usable) else {
            return self.refuse(format_args!("boot information makes no sense: {boot:?}"));
        };
        self.machine().report(vcpu).phase.store(u64::from(boot.workload), Relaxed);
        if workload == Workload::Image {
            workload::image::run(self.machine(), self.shared.ram(), vcpu);
        } else {
            let mut cpu = match self.start(vcpu) {
                Ok(cpu) => cpu,
                Err(exit_code) => return exit_code,
            };
            workload::run(&mut cpu, workload, |cpu| self.built(cpu));
            cpu.publish();
        }
        if self.machine().report(vcpu).pages_corrupt.load(Relaxed) == 0 { EXIT_OK } else { EXIT_CORRUPT }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        self.shared.machine()
    }

    /// Readies the guest, if this is vCPU 0, and waits for this vCPU's turn to build.
    pub(crate) fn start(&self, vcpu: u32) -> Result<Cpu<'_, M>, u32> {
        if vcpu > 0 {
            self.wait_for_turn(vcpu);
            return match self.turn.load(Acquire) {
                // The stop came before the guest was ready.
                0 => Err(EXIT_OK),
                _ if self.unusable.load(Relaxed) => Err(EXIT_UNUSABLE),
                _ => Ok(Cpu::new(&self.shared, vcpu, None)),
            };
        }
        let boot = self.machine().boot();
        let reserved = (boot.reserved_bytes / PAGE_BYTES as u64).min(u64::from(u32::MAX)) as u32;
        let Some(mut allocator) = Allocator::new(self.shared.ram(), reserved) else {
            return Err(self.refuse(format_args!("{} bytes of RAM are too few", boot.ram_bytes)));
        };
        let wanted = boot.balloon != 0;
        let own_pages = wanted.then(|| allocator.allocate_run(DRIVER_PAGES, Kind::Reserved)).flatten();
        *self.shared.allocator().lock() = Some(allocator);
        let balloon = own_pages.ok_or(Error::NoBalloon).and_then(|first| {
            let transport = Mmio { machine: self.machine(), base: self.machine().balloon() };
            let floor_pages = (boot.floor_bytes / PAGE_BYTES as u64).min(u64::from(u32::MAX)) as u32;
            Balloon::start(
                transport,
                self.shared.ram().span(first, DRIVER_PAGES),
                &mut self.shared.allocator(),
                floor_pages,
            )
        });
        if let (true, Err(error)) = (wanted, &balloon) {
            self.say(format_args!("no balloon: {error:?}"));
        }
        let balloon = balloon.ok();
        let mut cpu = Cpu::new(&self.shared, 0, balloon);
        cpu.settle_balloon();
        cpu.publish();
        self.turn.store(1, Release);
        Ok(cpu)
    }

    fn refuse(&self, why: core::fmt::Arguments<'_>) -> u32 {
        self.say(why);
        self.unusable.store(true, Relaxed);
        // Release pairs with the Acquire of those who wait for their turn: they see `unusable`.
        self.turn.store(u32::MAX, Release);
        EXIT_UNUSABLE
    }

    fn say(&self, what: core::fmt::Arguments<'_>) {
        // The console's writes cannot fail.
        let _ = writeln!(Console(self.machine()), "guest {}: {what}", self.machine().boot().guest);
    }

    /// Waits until the vCPUs before this one have built. Acquire pairs with the Release of the one before.
    fn wait_for_turn(&self, vcpu: u32) {
        while self.turn.load(Acquire) <= vcpu && self.machine().control().stop.load(Relaxed) == 0 {
            self.machine().park(1);
        }
    }

    /// This vCPU has built; waits until all have.
    fn built(&self, cpu: &mut Cpu<'_, M>) {
        self.turn.fetch_add(1, Release);
        while self.turn.load(Acquire) <= cpu.boot().vcpus && !cpu.stopping() {
            cpu.park(1);
        }
    }
}
