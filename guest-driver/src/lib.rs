//! The guest's side: a virtio-balloon driver and, on it, a self-checking workload machine that needs no
//! kernel.
//!
//! ```text
//!   workload/*    what the guest does                 one file each
//!      |
//!   set, table    pages, and what must be in them     page: content that checks itself
//!      |
//!    cpu          one vCPU at work
//!      |
//!   allocator  --- supply: what there is to give --->  balloon   what to give to the host
//!      |                                       |
//!   memory        the bytes                 driver, queue, transport
//! ```
//!
//! The same code runs freestanding in a KVM guest (`src/bin/bare-guest/main.rs`) and, *hosted*, in threads of
//! the VMM; a [`Machine`] is all that differs.
//!
//! The driver can be taken without all that: [`balloon`] needs a [`transport::Transport`], seven pages of
//! memory, a [`supply::PageSupply`], which is what a kernel writes, and a clock; its page has an example.
//! Nothing in it allocates or waits. Who wants to decide alone what to give and when takes [`driver`].
//!
//! **Invariants:** free and ballooned pages are never touched. Every page that is read is checked, against an
//! identity kept elsewhere; a wrong page is counted and said, never ignored. No allocation but from the
//! guest's own RAM; no lock over a register access.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod allocator;
pub mod command_line;
pub mod cpu;
pub mod guest;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod page;
pub mod rng;
pub mod set;
mod shared;
pub mod table;
#[cfg(test)]
mod testing;
pub mod virtio;
pub mod workload;

pub use guest::BareGuest;
pub use machine::Machine;
