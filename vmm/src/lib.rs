//! One guest: KVM, memory, devices, and the control socket; what `ballast vmm` runs.
//!
//! Where to look: `process` is the life of the process and its half of the control protocol; `machine` wires one guest together
//! (its picture shows every thread); [`vcpus`] runs it, on [`kvm`] or [`hosted`]; [`board`] and [`bus`] carry its register
//! accesses to the devices ([`virtio_mmio`], [`console`], [`doorbell`]); [`firmware`] is what it shares with the guest.
//!
//! **Never in here:** a guest page that changes state other than by a transition of `pager`; a device that believes a number of
//! the guest's before it has checked it; a second guest; an end of the guest without a reason for the host.

pub mod board;
pub mod bus;
pub mod console;
mod control_thread;
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
pub mod meter;
mod process;
mod report_pace;
pub mod sys;
pub mod vcpus;
pub mod virtio_mmio;

pub use error::Error;
pub use failure::Failures;
pub use machine::{BARE_GUEST, Machine, TABLE_BYTES_PER_PAGE};
pub use memory::GuestPages;
pub use process::run_process;
