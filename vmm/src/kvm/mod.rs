//! Machines under KVM: the bare one, here, and a PC for Linux, in `pc`.
//!
//! The bare machine has two memory slots, vCPUs in ring 3, and exits for device registers only.
//!
//! ```text
//!   slot 0  RAM       guest-physical 0, the caller's mapping
//!   slot 1  FIRMWARE  image, stacks, page tables, control and report words
//!   anything else     no slot: an access exits to `vcpu`, which asks the board
//! ```
//!
//! No interrupt controller, no port I/O, no ring 0: what is left runs at full speed on hardware and
//! software-nested KVM alike.

mod cpuid;
mod pc;
mod registers;
mod sregs;
mod vcpu;

use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;
use wire::machine::FIRMWARE_BASE;

pub use self::{pc::SciLine, registers::Registers, vcpu::Vcpu};
use crate::{
    Error,
    board::{Firmware, Start},
    sys::ram::Ram,
};

const RAM_SLOT: u32 = 0;
const FIRMWARE_SLOT: u32 = 1;

const CAPABILITIES: [(Cap, &str); 3] = [
    (Cap::UserMemory, "memory slots (KVM_CAP_USER_MEMORY)"),
    (Cap::ImmediateExit, "immediate exits (KVM_CAP_IMMEDIATE_EXIT, since Linux 4.13)"),
    (Cap::Ioeventfd, "ioeventfd (KVM_CAP_IOEVENTFD)"),
];

/// Opens `/dev/kvm` and checks that it has what all machines need.
pub fn open() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|source| match source.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::KvmMissing,
        libc::EACCES | libc::EPERM => Error::KvmForbidden,
        _ => Error::Kvm { doing: "opening /dev/kvm", source },
    })?;
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION as i32 {
        return Err(Error::KvmVersion(version));
    }
    match CAPABILITIES.iter().find(|(capability, _)| !kvm.check_extension(*capability)) {
        Some((_, name)) => Err(Error::KvmCapability(name)),
        None => Ok(kvm),
    }
}

/// A virtual machine with its memory in place.
pub struct Vm {
    fd: Arc<VmFd>,
    cpuid: CpuId,
    origin: Origin,
}

/// What the machine starts from.
enum Origin {
    /// The bare guest's image; the firmware keeps slot 1's memory mapped.
    Bare { start: Start, firmware: Arc<Firmware> },
    /// A Linux kernel.
    Pc { start: boot::Start, vcpus: u32, deadline_timer: bool },
}

impl Vm {
    /// Builds the bare machine that `start` (of the same `firmware`) begins in.
    pub fn new(ram: Ram, firmware: Arc<Firmware>, start: Start) -> Result<Self, Error> {
        let (address, bytes) = (firmware.memory().address().as_ptr() as u64, firmware.memory().bytes() as u64);
        let vm = Self::create(&open()?, Origin::Bare { start, firmware })?;
        for (slot, gpa, address, bytes) in
            [(RAM_SLOT, 0, ram.address() as u64, ram.bytes()), (FIRMWARE_SLOT, FIRMWARE_BASE, address, bytes)]
        {
            // SAFETY: both mappings outlive the guest's last instruction: RAM by the contract of `Ram`, the
            // firmware by the `Arc` kept here and in every vCPU's board. Rust looks at them through raw
            // pointers and atomics only.
            unsafe { map(&vm.fd, slot, gpa, address, bytes) }?;
        }
        Ok(vm)
    }

    /// A machine without memory.
    fn create(kvm: &Kvm, origin: Origin) -> Result<Self, Error> {
        let fd = kvm.create_vm().map_err(Error::kvm("creating the virtual machine"))?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::kvm("asking for the CPU's features"))?;
        Ok(Self { fd: Arc::new(fd), cpuid, origin })
    }

    /// Has guest writes of `value`, 32 bits, to `gpa` signal `event` without an exit to this process.
    pub fn register_ioevent(&self, gpa: u64, value: u32, event: &EventFd) -> Result<(), Error> {
        let address = IoEventAddress::Mmio(gpa);
        self.fd.register_ioevent(event, &address, value).map_err(Error::kvm("registering an ioeventfd"))
    }

    /// Makes vCPU number `vcpu`, ready to run from the start.
    pub fn vcpu(&self, vcpu: u32) -> Result<Vcpu, Error> {
        let fd = self.fd.create_vcpu(u64::from(vcpu)).map_err(Error::kvm("creating a vCPU"))?;
        match &self.origin {
            Origin::Bare { start, .. } => self.start_bare(&fd, vcpu, *start)?,
            Origin::Pc { start, vcpus, deadline_timer } => {
                let processor = cpuid::Processor { vcpu, vcpus: *vcpus, deadline_timer: *deadline_timer };
                self.start_pc(&fd, start, processor)?;
            }
        }
        Ok(Vcpu::new(vcpu, fd))
    }

    fn start_bare(&self, fd: &VcpuFd, vcpu: u32, start: Start) -> Result<(), Error> {
        fd.set_cpuid2(&self.cpuid).map_err(Error::kvm("setting the CPU's features"))?;
        let initial = fd.get_sregs().map_err(Error::kvm("reading special registers"))?;
        fd.set_sregs(&sregs::special(initial, start)).map_err(Error::kvm("setting special registers"))?;
        fd.set_regs(&sregs::general(vcpu, start)).map_err(Error::kvm("setting registers"))
    }

    /// How many vCPUs the guest was told of.
    pub fn vcpus(&self) -> u32 {
        match &self.origin {
            Origin::Bare { firmware, .. } => firmware.boot().vcpus,
            Origin::Pc { vcpus, .. } => *vcpus,
        }
    }
}

/// Shows the guest `bytes` from `address` at `gpa`.
///
/// # Safety
/// They must be mapped, and untouched by Rust references, until the guest's last instruction.
unsafe fn map(vm: &VmFd, slot: u32, gpa: u64, address: u64, bytes: u64) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: gpa,
        memory_size: bytes,
        userspace_addr: address,
    };
    // SAFETY: as the caller says.
    unsafe { vm.set_user_memory_region(region) }.map_err(Error::kvm("adding guest memory"))
}
