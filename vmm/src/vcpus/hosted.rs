//! The bare guest's code as host threads, for machines without KVM: everything but the CPU is real.
//!
//! The guest sees RAM where the host has it mapped, and its register accesses are calls. Nothing can stop it
//! in between, so a pause is cooperative. It takes effect when the guest touches a register or looks at its
//! control words, as it does between any two operations. A vCPU's end in mid-call (a kill, or the exit
//! doorbell) unwinds its thread.

use std::{
    ops::ControlFlow,
    panic,
    sync::{Arc, atomic::AtomicU32},
};

use guest_driver::Machine;
use wire::{
    PAGE_BYTES,
    machine::{BootInfo, Control, VcpuReport, Workload},
};

use crate::{board::Board, sys::ram::Ram};

/// Why a hosted vCPU's thread unwinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwound {
    /// It rang the exit doorbell.
    Exit(u32),
    /// It was told to end.
    Killed,
}

/// A machine whose CPU is the host's own.
pub struct HostedMachine {
    ram: Ram,
    board: Arc<Board>,
    scratch: Vec<AtomicU32>,
}

impl HostedMachine {
    /// The machine with this memory around it.
    pub fn new(ram: Ram, board: Arc<Board>) -> Self {
        // A guest that may not write to RAM gets a word a page of it.
        let is_image = board.firmware.boot().workload == Workload::Image as u32;
        let words = if is_image { ram.bytes() / PAGE_BYTES as u64 } else { 0 };
        Self { ram, board, scratch: (0..words).map(|_| AtomicU32::new(0)).collect() }
    }

    fn pass(&self) {
        if self.board.gate.pass().is_err() {
            unwind(Unwound::Killed);
        }
    }

    fn write(&self, gpa: u64, data: &[u8]) {
        self.pass();
        if let ControlFlow::Break(code) = self.board.write(gpa, data) {
            unwind(Unwound::Exit(code));
        }
        self.pass();
    }
}

/// Not a panic: no message, no hook.
fn unwind(why: Unwound) -> ! {
    panic::resume_unwind(Box::new(why))
}

impl Machine for HostedMachine {
    fn ram(&self) -> *mut u8 {
        self.ram.address()
    }

    fn boot(&self) -> &BootInfo {
        self.board.firmware.boot()
    }

    fn control(&self) -> &Control {
        self.pass();
        self.board.firmware.control()
    }

    fn report(&self, vcpu: u32) -> &VcpuReport {
        self.board.firmware.report(vcpu)
    }

    fn mmio_read(&self, gpa: u64) -> u32 {
        self.pass();
        let mut data = [0; 4];
        self.board.read(gpa, &mut data);
        u32::from_le_bytes(data)
    }

    fn mmio_write(&self, gpa: u64, value: u32) {
        self.write(gpa, &value.to_le_bytes());
    }

    fn mmio_write_byte(&self, gpa: u64, value: u8) {
        self.write(gpa, &[value]);
    }

    fn scratch(&self) -> &[AtomicU32] {
        &self.scratch
    }
}
