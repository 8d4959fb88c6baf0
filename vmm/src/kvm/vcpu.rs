//! One KVM vCPU: runs the guest on the calling thread, and serves its exits.

use std::{ops::ControlFlow, thread};

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::Registers;
use crate::{
    Error,
    board::{Leave, Surroundings},
    shortage::{self, LIMIT, PAUSE},
    sys::kick::Kickable,
};

/// A vCPU that has not started yet.
pub struct Vcpu {
    vcpu: u32,
    fd: VcpuFd,
}

impl Vcpu {
    pub(super) fn new(vcpu: u32, fd: VcpuFd) -> Self {
        Self { vcpu, fd }
    }

    /// Runs the guest until it exits with a code. The calling thread must be inside the board's gate; a
    /// [`crate::sys::kick::kick`] brings it back there.
    pub fn run(self, board: &dyn Surroundings) -> Result<u32, Error> {
        let Self { vcpu, fd } = self;
        let mut fd = Kickable::new(fd);
        let mut refused = 0;
        loop {
            fd.clear();
            if !board.gate().is_open() {
                board.gate().pass().map_err(|_| Error::VcpuKilled(vcpu))?;
                // Its watchdogs are not to take the pause for a hang. Refused by guests without KVM's clock.
                let _ = fd.vcpu().kvmclock_ctrl();
            }
            let exit = fd.vcpu().run();
            // EFAULT, as for a page that is not there.
            let has_no_memory = exit.as_ref().is_err_and(|error| shortage::is_one(error.errno()));
            refused = if has_no_memory { refused + 1 } else { 0 };
            let outcome = match exit {
                Ok(VcpuExit::MmioRead(gpa, data)) => {
                    board.read(gpa, data);
                    continue;
                }
                Ok(VcpuExit::MmioWrite(gpa, data)) => board.write(gpa, data),
                Ok(VcpuExit::IoIn(port, data)) => board.read_port(port, data),
                Ok(VcpuExit::IoOut(port, data)) => board.write_port(port, data),
                // A signal (maybe in a page fault that is not served yet), or a vCPU not quite ready.
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => continue,
                Err(_) if has_no_memory && PAUSE * refused < LIMIT => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Ok(VcpuExit::Shutdown) => board.shutdown(),
                Ok(VcpuExit::InternalError) => failed("KVM could not emulate an instruction"),
                Ok(VcpuExit::FailEntry(reason, _)) => failed(format!("KVM could not enter the guest ({reason:#x})")),
                Ok(exit) => failed(format!("unexpected exit {exit:?}")),
                Err(error) if has_no_memory => {
                    failed(format!("KVM_RUN: {error}, for {} s: has the kernel no memory for it?", LIMIT.as_secs()))
                }
                Err(error) => failed(format!("KVM_RUN: {error}")),
            };
            match outcome {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Leave::Exit(code)) => return Ok(code),
                ControlFlow::Break(Leave::Failure(reason)) => {
                    let registers = Box::new(Registers::of(fd.vcpu()));
                    return Err(Error::VcpuStopped { vcpu, reason, registers });
                }
            }
        }
    }
}

fn failed(reason: impl Into<String>) -> ControlFlow<Leave> {
    ControlFlow::Break(Leave::Failure(reason.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        board::{Firmware, elf, firmware},
        kvm::{self, Vm},
        sys::{kick, mapping::Mapping, ram::Ram},
    };
    use std::sync::Arc;
    use wire::machine::{IMAGE_BASE, Workload};

    /// `mov [0], eax` and `ud2`: a guest that soon exits if it gets to run.
    const CODE: [u8; 9] = [0x89, 0x04, 0x25, 0, 0, 0, 0, 0x0f, 0x0b];

    /// Says so past the test harness's capture, or nobody would see it.
    fn skipped(why: &str) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    }

    #[test]
    fn a_kick_just_before_the_entry_is_not_lost() {
        if let Err(error @ Error::KvmMissing) = kvm::open() {
            skipped(&error.to_string());
            return;
        }
        let memory = Mapping::anonymous(4096).unwrap();
        // SAFETY: the vCPU runs on this thread only, and `memory` lives to the end of this function.
        let ram = unsafe { Ram::new(memory.address(), 4096) };
        let mut firmware = Firmware::new(firmware::tests::boot(4096, 1, Workload::Idle)).unwrap();
        let start = firmware.load(&elf::tests::image(IMAGE_BASE, &CODE)).unwrap();
        let vm = Vm::new(ram, Arc::new(firmware), start).unwrap();
        kick::install().unwrap();
        let mut fd = Kickable::new(vm.vcpu(0).unwrap().fd);

        fd.clear();
        kick::kick(kick::thread_id());
        assert_eq!(fd.vcpu().run().unwrap_err().errno(), libc::EINTR);
        fd.clear();
        assert!(matches!(fd.vcpu().run(), Ok(VcpuExit::Shutdown)));
    }
}
