//! One guest: KVM, memory, devices, and the control socket; what `ballast vmm` runs.
//!
//! | room | what is in it |
//! |---|---|
//! | `process`, `control_thread` | the life of the process, its half of the control protocol |
//! | `machine` | one guest wired together, with a picture of its threads; orders, status |
//! | [`board`] | what surrounds the vCPUs: bus, interrupt lines, gate; firmware, doorbell; a PC's ports |
//! | [`devices`] | what is on the bus: console, meter, virtio devices, and their thread |
//! | [`kvm`], [`vcpus`] | what runs the guest: vCPUs of KVM, or host threads |
//! | `memory` | guest memory as devices, scanner and images want it |
//! | [`sys`] | system calls and raw memory |
//!
//! **Never in here:**
//!
//! * a guest page that changes state other than by a transition of `pager`;
//! * a device that believes a number of the guest's before it has checked it;
//! * a second guest;
//! * an end of the guest without a reason for the host.

pub mod board;
mod control_thread;
pub mod devices;
mod error;
mod failure;
pub mod kvm;
mod machine;
mod memory;
mod process;
mod shortage;
pub mod sys;
pub mod vcpus;

use control::sync;

pub use error::Error;
pub use failure::Failures;
pub use machine::{BARE_GUEST, Inherited, Machine};
pub use memory::{GuestPages, Layout};
pub use process::run_process;
