//! One guest: KVM, memory, devices, and the control socket; what `ballast vmm` runs.

pub mod board;
pub mod bus;
pub mod console;
mod device_thread;
pub mod doorbell;
pub mod elf;
mod error;
mod failure;
pub mod firmware;
pub mod gate;
pub mod hosted;
mod image;
pub mod kvm;
mod machine;
mod memory;
mod process;
pub mod sys;
pub mod vcpus;
pub mod virtio_mmio;

pub use error::Error;
pub use failure::Failures;
pub use memory::GuestPages;
pub use process::run_process;
