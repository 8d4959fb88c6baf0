//! What the guest runs on: the bare machine of [`wire::machine`], in KVM or in the VMM's own threads, or
//! somebody else's machine that the image makes look like it.

use core::fmt;
use core::sync::atomic::AtomicU32;

use wire::machine::{BALLOON_BASE, BootInfo, CONSOLE_BASE, Control, DOORBELL_BASE, DOORBELL_PARK, VcpuReport};

/// A bare machine, seen from inside.
pub trait Machine: Sync {
    /// Where guest-physical address 0 is mapped: 0 in the bare image.
    fn ram(&self) -> *mut u8;
    /// What the guest is to do.
    fn boot(&self) -> &BootInfo;
    /// The VMM's word while the guest runs.
    fn control(&self) -> &Control;
    /// This vCPU's counters.
    fn report(&self, vcpu: u32) -> &VcpuReport;
    /// Reads a 32-bit device register.
    fn mmio_read(&self, gpa: u64) -> u32;
    /// Writes a 32-bit device register.
    fn mmio_write(&self, gpa: u64, value: u32);
    /// Writes an 8-bit device register.
    fn mmio_write_byte(&self, gpa: u64, value: u8);

    /// Address of the balloon's registers.
    fn balloon(&self) -> u64 {
        BALLOON_BASE
    }

    /// Waits until an interrupt is pending, a stop is asked for, or so many milliseconds have passed.
    fn park(&self, ms: u32) {
        self.mmio_write(DOORBELL_BASE + DOORBELL_PARK, ms);
    }

    /// Words outside RAM, all zero at the start, for guests that must not write to RAM. There may be none.
    fn scratch(&self) -> &[AtomicU32] {
        &[]
    }

    /// Writes to the console.
    fn console(&self, text: &str) {
        for byte in text.bytes() {
            self.mmio_write_byte(CONSOLE_BASE, byte);
        }
    }
}

/// The processor's clock, read once all loads before are done and before any after begin.
pub fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter, which ring 3 may do. No `nomem`: the compiler moves no access across it.
    unsafe {
        core::arch::asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// The console as a formatter's target.
#[derive(Debug)]
pub struct Console<'a, M>(pub &'a M);

impl<M: Machine> fmt::Write for Console<'_, M> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.console(text);
        Ok(())
    }
}
