//! Guest memory: what backs each page, and every way that can change.
//!
//! | state        | what backs the page                                    | a guest access costs                |
//! |--------------|--------------------------------------------------------|-------------------------------------|
//! | `Private`    | its own anonymous page                                 | nothing                             |
//! | `Shared`     | a frame of the store                                   | read: nothing; write: a copy        |
//! | `Zero`       | the zero page, or nothing                              | the zero page                       |
//! | `Ballooned`  | nothing: the guest gave it up                          | the zero page                       |
//! | `Compressed` | a slot of the pool, or a repeated pattern in the entry | decompression                       |
//! | `Swapped`    | a slot of the swap file                                | a read of the disk                  |
//! | `Clean`      | the image that the guest started from                  | a read of that file                 |
//!
//! A guest's RAM is one `MAP_PRIVATE` mapping of the frame store, registered with userfaultfd for every kind of fault. Where to look:
//!
//! * [`transition`]: every transition, and the order of steps that makes it safe against running vCPUs;
//! * [`open`]: pages that the kernel may copy without us; [`sample`]: which pages the guest uses;
//! * [`share`]: how a page comes to share a frame, at home or as an alias; [`rehome`]: how aliases end;
//! * [`entry`], [`table`]: one word a page, its lock, and the sums;
//! * [`memory`]: the threads that serve faults and evict; [`evict`]: who evicts; [`victims`]: which page goes;
//! * [`credit`]: why resident bytes never exceed the allocation; [`frames`]: why a frame in use is never released;
//! * [`pool`]: compressed pages; [`library`]: which frames they resemble; [`swap`]: pages on disk; [`image`]: pages that need not be kept; `sys`: all the `unsafe`, every ioctl.
//!
//! **Never in here:** a page that changes state without its lock; a page made private without a credit; a merge without this
//! process's own comparison of the protected page; a fault thread that waits, allocates or touches guest memory.

mod accounts;
mod digest;
mod entry;
mod mapping;
mod memory;
mod open;
mod probe;
mod rehome;
pub mod rules;
mod share;
mod sync;
mod sys;
mod table;
pub mod tiers;
mod transition;

#[cfg(test)]
mod model;

pub use entry::State;
pub use memory::{Config, Failure, GuestMemory, Threads};
pub use sys::{MmapArena, ProbeError, SlotFile, StoreView, SwapFile, SwapFileError, probe};
pub use tiers::image::ImageFile;
pub use transition::{Error, Evicted, Noise, Pages, Staging};
pub use wire::{Frame, Gfn, PAGE_BYTES, PageBytes, Run, Sharing};
