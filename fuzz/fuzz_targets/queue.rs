//! A driver's rings and buffers: three bytes say which queue, of what size, and what else happens; the rest
//! is guest memory.
//!
//! ```text
//!   byte 0   queue (modulo 5)
//!   byte 1   log2 of its size (modulo 8)
//!   byte 2   bit 0: a hinting round, 1: statistics, 2: poison
//!   byte 3.. memory: descriptors at 0, available ring at 0x1000, used ring at 0x2000, anything behind
//! ```

#![no_main]

use ballast_fuzz::{RAM_FRAMES, Sink, memory};
use balloon::{Balloon, BalloonQueue, FEATURES, STATISTICS_MAX};
use libfuzzer_sys::fuzz_target;
use virtio_queue::{Queue, QueueT};

const QUEUES: [BalloonQueue; 5] = [
    BalloonQueue::Inflate,
    BalloonQueue::Deflate,
    BalloonQueue::Statistics,
    BalloonQueue::Hinting,
    BalloonQueue::Reporting,
];
/// Chains that a ring can hold, and one turn more to see that it is empty.
const TURNS_MAX: usize = 130;

fuzz_target!(|input: &[u8]| {
    let [which, size, also, image @ ..] = input else { return };
    let memory = memory(image);
    let balloon = Balloon::new(RAM_FRAMES, Sink);
    balloon.set_features(FEATURES);
    if also & 4 != 0 {
        balloon.write_config(12, &[0xaa; 4]);
    }
    balloon.set_driver_ok(&[0, 1, 2, 3, 4]);
    if also & 1 != 0 {
        balloon.begin_hinting().expect("nobody hints yet");
        assert!(balloon.announce_hinting());
    }
    if also & 2 != 0 {
        balloon.set_statistics_interval_ms(1);
        assert!(balloon.poll_statistics(0));
    }
    let mut queue = Queue::new(128).expect("a power of two");
    queue.set_size(1 << (size % 8));
    queue.set_desc_table_address(Some(0), None);
    queue.set_avail_ring_address(Some(0x1000), None);
    queue.set_used_ring_address(Some(0x2000), None);
    queue.set_ready(true);
    let which = QUEUES[usize::from(*which) % QUEUES.len()];
    for turn in 0.. {
        // Each turn serves at least one chain. A device that writes its used ring over the available one may
        // find new ones in it.
        match balloon.process(which, &mut queue, &*memory) {
            Ok(progress) if progress.more && turn < TURNS_MAX => {}
            _ => break,
        }
    }
    let status = balloon.status();
    assert!(status.statistics.len() <= STATISTICS_MAX && status.actual_pages <= RAM_FRAMES);
});
