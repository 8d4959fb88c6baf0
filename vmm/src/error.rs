//! What can go wrong in a VMM, each in the words the user reads.

use std::io;

use crate::kvm::Registers;

/// Why a guest could not be built, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no KVM on this machine.
    #[error("no /dev/kvm: load the kvm module of this CPU, or run with --vcpu hosted")]
    KvmMissing,
    /// KVM is there, for others.
    #[error("no permission to open /dev/kvm: join its group (often `kvm`), or run with --vcpu hosted")]
    KvmForbidden,
    /// KVM speaks another language.
    #[error("/dev/kvm has API version {0}; version 12 is needed")]
    KvmVersion(i32),
    /// KVM lacks something.
    #[error("/dev/kvm lacks {0}")]
    KvmCapability(&'static str),
    /// A KVM request failed.
    #[error("kvm: {doing}: {source}")]
    Kvm {
        /// What was asked of KVM.
        doing: &'static str,
        /// Its answer.
        source: kvm_ioctls::Error,
    },
    /// A system call failed.
    #[error("{doing}: {source}")]
    System {
        /// What was asked of the kernel.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Not a size a bare machine can have.
    #[error("{0} bytes of guest memory: must be a multiple of 4096, above 0 and at most 256 GiB")]
    RamSize(u64),
    /// Not a number of vCPUs a bare machine can have.
    #[error("{0} vCPUs: must be from 1 to {max}", max = wire::machine::VCPUS_MAX)]
    VcpuCount(u32),
    /// More vCPUs than KVM runs.
    #[error("{vcpus} vCPUs: must be from 1 to {most}, which is what this machine's KVM runs")]
    VcpuLimit {
        /// How many were wanted.
        vcpus: u32,
        /// How many there may be.
        most: u32,
    },
    /// What is to be started is no kernel, or does not fit.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// The guest image is not what the machine can start.
    #[error("guest image: {0}")]
    Image(&'static str),
    /// Guest memory could not be built, or loaded.
    #[error(transparent)]
    Memory(pager::Failure),
    /// The image that RAM is to start from cannot be read.
    #[error("image {}: {source}", path.display())]
    Ram {
        /// Its file.
        path: std::path::PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// An address outside guest RAM.
    #[error("guest RAM: {0}")]
    Address(vm_memory::GuestMemoryError),
    /// RAM cannot be shown to the devices.
    #[error("guest RAM: {0}")]
    Region(String),
    /// The host and this VMM do not understand each other.
    #[error("control socket: {0}")]
    Control(String),
    /// Two devices want the same addresses.
    #[error("device window at {base:#x} of {bytes:#x} bytes is empty, too long or overlaps another")]
    Window {
        /// Guest-physical address.
        base: u64,
        /// Its length.
        bytes: u64,
    },
    /// A descriptor is not what it was said to be.
    #[error("{0}: {1}")]
    Device(String, String),
    /// More devices than a PC has interrupts for.
    #[error("a guest can have {most} devices, its balloon and its source of random numbers among them")]
    DeviceCount {
        /// How many there may be.
        most: usize,
    },
    /// The guest did something that ends it.
    #[error("vcpu {vcpu}: {reason}; {registers}")]
    VcpuStopped {
        /// Number of the vCPU.
        vcpu: u32,
        /// What happened.
        reason: String,
        /// Where it happened.
        registers: Box<Registers>,
    },
    /// A vCPU was told to end before the guest was done.
    #[error("vcpu {0}: killed")]
    VcpuKilled(u32),
    /// A vCPU thread died of a bug in the VMM or in a hosted guest.
    #[error("vcpu {0}: its thread panicked")]
    VcpuPanicked(u32),
    /// A vCPU did not leave the guest in time.
    #[error("{inside} of the vCPUs still ran {waited_ms} ms after they were to pause")]
    PauseTimeout {
        /// How many.
        inside: usize,
        /// How long they were waited for.
        waited_ms: u128,
    },
}

impl Error {
    /// For `map_err`: a KVM request failed.
    pub(crate) fn kvm(doing: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
        move |source| Error::Kvm { doing, source }
    }

    /// For `map_err`: a system call failed.
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { doing, source }
    }
}
