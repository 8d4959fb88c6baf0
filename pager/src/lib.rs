//! Guest memory: what backs each page, and every way that can change.
//!
//! | state | what backs the page | a guest access costs |
//! |---|---|---|
//! | `Private` | its own anonymous page | nothing, or a swap-in where the kernel has swapped it out |
//! | `Shared` | a frame of the store | read: nothing; write: a copy |
//! | `Zero` | the zero page, or nothing | the zero page |
//! | `Ballooned` | nothing: the guest gave it up | the zero page |
//! | `Compressed` | a slot of the pool, or a repeated pattern in the entry | decompression |
//! | `Swapped` | a slot of the swap file | a read of the disk |
//! | `Clean` | the image that the guest started from | a read of that file |
//!
//! A guest's RAM is one `MAP_PRIVATE` mapping of the frame store, registered with userfaultfd for every kind
//! of fault. Where to look:
//!
//! ```text
//!   memory      the threads that serve faults, evict, read the disk, bring back in bulk; what a VMM calls
//!   pages       every change of a page's state: the table, its locks, all that touches the mapping
//!   tiers       where content is kept that is not in memory: the kernel's swap, image, pool, swap file
//!   accounts    credits, references to frames, counters, stall
//!   rules       what to do when: which page goes, how far to read ahead; told figures, they touch no page
//!   sys         all the `unsafe`, every ioctl, behind `mapping`: what the kernel does for us
//!   model       the kernel in small, for the model checker
//! ```
//!
//! A room imports from those below it only. What is public is what a VMM needs, and the parts of tiers and
//! rules that are measured by themselves.
//!
//! **Never in here:** a page that changes state without its lock; a page made private without a credit; a
//! merge without this process's own comparison of the protected page; a fault thread that waits, allocates or
//! touches guest memory.

mod accounts;
mod digest;
mod mapping;
mod memory;
mod pages;
pub mod rules;
mod sync;
mod sys;
pub mod tiers;

#[cfg(test)]
mod model;

/// What a guest page costs in tables, at most: its state, its placement, and the references to the two frames
/// that a store has for it. Less while it is not shared: a table costs nothing where nothing was written.
pub const TABLE_BYTES_PER_PAGE: u64 =
    (pages::table::PageTable::BYTES_PER_PAGE + PLACEMENT_BYTES + 2 * References::BYTES_PER_FRAME) as u64;

use accounts::references::References;
use sys::PLACEMENT_BYTES;

pub use memory::{Config, Failure, GuestMemory, Threads};
pub use pages::{Error, Evicted, Noise, Pages, Staging, table::State};
pub use sys::{MmapArena, ProbeError, SlotFile, StoreView, SwapFile, SwapFileError, probe};
pub use tiers::image::ImageFile;
pub use wire::{Frame, Gfn, PAGE_BYTES, PageBytes, Run, Sharing};
