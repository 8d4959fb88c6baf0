//! Where a vCPU was when something went wrong.

use std::fmt;

use kvm_ioctls::VcpuFd;

/// Where a CPU starts after a reset.
const RESET_RIP: u64 = 0xfff0;

/// The registers worth a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Next instruction.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// Address of the last page fault, if the CPU had one.
    pub cr2: u64,
    /// Accumulator.
    pub rax: u64,
    /// First argument.
    pub rdi: u64,
    /// Second argument.
    pub rsi: u64,
    /// Code segment: its low bits are the privilege level.
    pub cs: u16,
}

impl Registers {
    /// What `vcpu` has now; zeros for what KVM will not say.
    pub fn of(vcpu: &VcpuFd) -> Self {
        let general = vcpu.get_regs().unwrap_or_default();
        let special = vcpu.get_sregs().unwrap_or_default();
        Self {
            rip: general.rip,
            rsp: general.rsp,
            rflags: general.rflags,
            cr2: special.cr2,
            rax: general.rax,
            rdi: general.rdi,
            rsi: general.rsi,
            cs: special.cs.selector,
        }
    }
}

impl Registers {
    /// The vCPU was reset before it could be asked. KVM does that on AMD hardware when a guest shuts down
    /// (triple fault), as the CPU leaves its state undefined then.
    pub fn are_lost(&self) -> bool {
        self.rip == RESET_RIP
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_lost() {
            return f.write_str("the CPU does not say where");
        }
        let Self { rip, rsp, rflags, cr2, rax, rdi, rsi, cs } = self;
        write!(
            f,
            "rip {rip:#x} rsp {rsp:#x} rflags {rflags:#x} cr2 {cr2:#x} rax {rax:#x} rdi {rdi:#x} rsi {rsi:#x} cs {cs:#x}"
        )
    }
}
