//! One guest: KVM, memory, devices, and the control socket; what `ballast vmm` runs.

pub mod board;
pub mod bus;
pub mod console;
pub mod doorbell;
pub mod elf;
mod error;
pub mod firmware;
pub mod gate;
pub mod hosted;
pub mod kvm;
pub mod sys;
pub mod vcpus;
pub mod virtio_mmio;

pub use error::Error;
