//! What the balloon's fuzz targets share: a guest's memory, and a sink that takes nothing that is not RAM.
//!
//! ```text
//!   fuzz_targets/queue.rs      what a driver can put into its rings and buffers
//!   fuzz_targets/registers.rs  what it can do to the register file, work on queues in between
//!   fuzz_targets/devices.rs    the same of the block, network and entropy devices (devices_corpus.rs)
//!   fuzz_targets/kernel.rs     a kernel's file (examples/kernel_corpus.rs)
//!   examples/balloon_corpus.rs writes their corpus: honest drivers, from which libFuzzer goes astray
//! ```
//!
//! `cargo +nightly fuzz run queue` where cargo-fuzz is installed; without it, `fuzz/run queue 600`.

use std::ops::Range;
use std::sync::Arc;

use balloon::PageSink;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// RAM of the fuzzed guest: enough for rings, buffers and pages to name.
pub const RAM_FRAMES: u32 = 32;

/// Guest memory with these bytes at the start.
pub fn memory(bytes: &[u8]) -> Arc<GuestMemoryMmap<()>> {
    let ram = RAM_FRAMES as usize * 4096;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), ram)]).expect("mapping memory");
    memory.write_slice(&bytes[..bytes.len().min(ram)], GuestAddress(0)).expect("memory is there");
    Arc::new(memory)
}

/// Panics when it is handed anything but RAM.
#[derive(Default)]
pub struct Sink;

fn check(range: &Range<u32>) {
    assert!(range.start < range.end && range.end <= RAM_FRAMES, "{range:?} is empty or outside RAM");
}

impl PageSink for Sink {
    fn inflate(&self, range: Range<u32>) {
        check(&range);
    }
    fn deflate(&self, range: Range<u32>) {
        check(&range);
    }
    fn report_free(&self, range: Range<u32>, _: u32) {
        check(&range);
    }
    fn watch(&self) {}
    fn drop_hinted(&self, range: Range<u32>, _: u32) -> u32 {
        check(&range);
        range.end - range.start
    }
    fn unwatch(&self) {}
}
