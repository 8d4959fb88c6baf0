//! A driver's rings and buffers before the devices with requests: block, network and entropy.
//!
//! ```text
//!   byte 0   device and queue (modulo 5): disk, disk that may only be read, send, receive, randomness
//!   byte 1   log2 of the queue's size (modulo 9)      byte 2   bit 0: event_idx, 1: no optional features
//!   byte 3.. memory: descriptors at 0, available ring at 0x1000, used ring at 0x2000, anything behind
//! ```

#![no_main]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use ballast_fuzz::memory;
use block::{Access, Block, Disk, Geometry};
use libfuzzer_sys::fuzz_target;
use net::{Link, Net, Offloads, PACKET_BYTES_MAX};
use rng::{Rng, Source};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

/// Chains that a ring can hold, and one turn more to see that it is empty.
const TURNS_MAX: usize = 260;
const SECTORS: u64 = 128;
const VERSION_1: u64 = 1 << 32;

/// A disk that takes nothing outside of itself.
struct Checked(Access);

impl Checked {
    fn check(&self, bytes: &Range<u64>) -> io::Result<()> {
        assert!(bytes.start < bytes.end && bytes.end <= SECTORS * 512 && bytes.start % 512 == 0, "{bytes:?}");
        Ok(())
    }

    fn check_write(&self, bytes: &Range<u64>) -> io::Result<()> {
        assert_eq!(self.0, Access::ReadWrite);
        self.check(bytes)
    }
}

impl Disk for Checked {
    fn geometry(&self) -> Geometry {
        Geometry { sectors: SECTORS, block_bytes: 512 }
    }
    fn access(&self) -> Access {
        self.0
    }
    fn read_at(&self, at_byte: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0xd1);
        self.check(&(at_byte..at_byte + into.len() as u64))
    }
    fn write_at(&self, at_byte: u64, from: &[u8]) -> io::Result<()> {
        self.check_write(&(at_byte..at_byte + from.len() as u64))
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, bytes: Range<u64>) -> io::Result<()> {
        self.check_write(&bytes)
    }
    fn write_zeroes(&self, bytes: Range<u64>, _: bool) -> io::Result<()> {
        self.check_write(&bytes)
    }
}

/// A link with frames of growing length, that takes only what is a header and a frame.
#[derive(Default)]
struct Growing(AtomicU32);

impl Link for Growing {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        assert!((26..=PACKET_BYTES_MAX).contains(&packet.len()));
        assert!(packet[0] <= 1 && packet[10..12] == [0, 0], "only what was agreed on");
        Ok(())
    }
    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let nth = self.0.fetch_add(1, Ordering::Relaxed) as usize;
        let bytes = 26 + nth * nth * 7;
        if bytes > PACKET_BYTES_MAX || nth > 200 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        into[..bytes].fill(0);
        Ok(bytes)
    }
    fn set_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }
}

struct Fives;

impl Source for Fives {
    fn fill(&self, into: &mut [u8]) -> io::Result<()> {
        into.fill(5);
        Ok(())
    }
}

/// Calls `turn` until it says that there is no more, or that the ring is broken: `None`.
fn work(mut turn: impl FnMut() -> Option<bool>) {
    // A device that is told to write over its available ring may find new chains in it.
    for _ in 0..TURNS_MAX {
        if turn() != Some(true) {
            break;
        }
    }
}

fn serve(which: u8, queue: &mut Queue, memory: &GuestMemoryMmap<()>, plain: bool) {
    match which % 5 {
        which @ (0 | 1) => {
            let block = Block::new(Checked(if which == 0 { Access::ReadWrite } else { Access::ReadOnly }), "fuzzed");
            block.set_features(if plain { VERSION_1 } else { block.features() });
            work(|| Some(block.process(queue, memory).ok()?.more));
            assert_eq!(block.counts().failed, 0, "the disk takes everything");
        }
        which @ (2 | 3) => {
            let net = Net::new(Growing::default(), [2; 6], None);
            net.set_features(if plain { VERSION_1 } else { net.features() }).expect("the link takes everything");
            let turn = if which == 2 { Net::transmit } else { Net::receive };
            work(|| Some(turn(&net, queue, memory).ok()?.more));
        }
        _ => {
            let rng = Rng::new(Fives);
            work(|| Some(rng.process(queue, memory).ok()?.more));
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [which, size, also, image @ ..] = input else { return };
    let memory = memory(image);
    let mut queue = Queue::new(256).expect("a power of two");
    queue.set_size(1 << (size % 9));
    queue.set_desc_table_address(Some(0), None);
    queue.set_avail_ring_address(Some(0x1000), None);
    queue.set_used_ring_address(Some(0x2000), None);
    queue.set_event_idx(also & 1 != 0);
    queue.set_ready(true);
    serve(*which, &mut queue, &memory, also & 2 != 0);
});
