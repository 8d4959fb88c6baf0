//! Frames on their way between drivers, honest ones and others, and a link.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::io;

use chains::driver::{DATA, QUEUE_SIZE, RAM_BYTES, USED_RING, WRITE};
use net::{Error, FEATURES, FRAMES_PER_TURN, Net, Offloads, PACKET_BYTES_MAX};
use proptest::prelude::*;
use rig::{MAC, Rig, Wire, packet};
use virtio_queue::QueueT;
use wire::net::{F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_MRG_RXBUF};

#[test]
fn what_is_sent_arrives_on_the_link() {
    let mut rig = Rig::new();
    let sent = packet(60);
    rig.transmit.write(DATA, &sent);
    // Where a buffer ends means nothing.
    let head = rig.transmit.offer(&[(DATA, 5, 0), (DATA + 5, 20, 0), (DATA + 25, 47, 0)]);
    let progress = rig.transmit().unwrap();
    assert!(progress.used && !progress.more && progress.refused.is_none());
    assert_eq!(rig.transmit.take_used(), [(head, 0)]);
    assert_eq!(*rig.net.link().sent.lock().unwrap(), [sent]);
    assert_eq!((rig.net.counts().sent_frames, rig.net.counts().sent_bytes), (1, 60));
}

#[test]
fn what_is_received_is_in_one_buffer_and_says_so() {
    let mut rig = Rig::new();
    rig.arrives(&packet(100));
    let head = rig.receive.offer(&[(DATA, 50, WRITE), (DATA + 0x1000, 1500, WRITE)]);
    let progress = rig.receive().unwrap();
    assert!(progress.used && !progress.more && progress.refused.is_none());
    assert_eq!(rig.receive.take_used(), [(head, 112)]);
    let mut expected = packet(100);
    expected[10] = 1;
    assert_eq!([rig.receive.read(DATA, 50), rig.receive.read(DATA + 0x1000, 62)].concat(), expected);
    assert_eq!((rig.net.counts().received_frames, rig.net.counts().received_bytes), (1, 100));
}

#[test]
fn a_long_frame_takes_several_buffers_which_appear_together() {
    let mut rig = Rig::new();
    rig.arrives(&packet(3000));
    let heads: Vec<_> = (0..3).map(|nth| rig.receive.offer(&[(DATA + nth * 0x1000, 1024, WRITE)])).collect();
    let progress = rig.receive().unwrap();
    assert!(progress.used);
    assert_eq!(rig.receive.take_used(), [(heads[0], 1024), (heads[1], 1024), (heads[2], 964)]);
    let found: Vec<u8> = (0..3).flat_map(|nth| rig.receive.read(DATA + nth * 0x1000, 1024)).collect();
    assert_eq!((found[10], &found[12..3012]), (3, &packet(3000)[12..]));
}

#[test]
fn a_frame_waits_for_buffers_and_the_link_is_left_alone() {
    let mut rig = Rig::new();
    let short = rig.receive.offer(&[(DATA, 1000, WRITE)]);
    rig.arrives(&packet(3000));
    rig.arrives(&packet(60));
    let progress = rig.receive().unwrap();
    assert!(!progress.used && !progress.more && rig.net.holds_frame());
    assert_eq!((rig.receive.take_used().len(), rig.net.link().incoming.lock().unwrap().len()), (0, 1));

    let long = rig.receive.offer(&[(DATA + 0x1000, 5000, WRITE)]);
    assert!(rig.receive().unwrap().used && rig.net.holds_frame(), "the second has no buffer yet");
    assert_eq!(rig.receive.take_used(), [(short, 1000), (long, 2012)]);
    let next = rig.receive.offer(&[(DATA, 1000, WRITE)]);
    rig.receive().unwrap();
    assert_eq!((rig.receive.take_used(), rig.net.holds_frame()), (vec![(next, 72)], false));
    assert_eq!(rig.net.counts().receive_dropped, 0);
}

#[test]
fn a_driver_is_asked_to_notify_of_the_buffer_that_comes_next() {
    let mut rig = Rig::new();
    rig.receive.queue.set_event_idx(true);
    rig.receive.offer(&[(DATA, 1000, WRITE)]);
    rig.arrives(&packet(3000));
    rig.receive().unwrap();
    // avail_event (2.7.10): one buffer was seen, and it is the second that is waited for.
    let avail_event = USED_RING.start + 4 + 8 * u64::from(QUEUE_SIZE);
    assert_eq!(rig.receive.read(avail_event, 2), 1u16.to_le_bytes());
}

#[test]
fn a_driver_that_does_not_merge_gets_one_buffer_a_frame() {
    let mut rig = Rig::new();
    rig.net.set_features(FEATURES & !(1 << F_MRG_RXBUF)).unwrap();
    let heads = [0, 1].map(|nth| rig.receive.offer(&[(DATA + nth * 0x1000, 1526, WRITE)]));
    rig.arrives(&packet(1515));
    rig.arrives(&packet(1514));
    rig.receive().unwrap();
    assert_eq!(rig.receive.take_used(), [(heads[0], 1526)], "the longer one is dropped, and takes no buffer");
    assert_eq!((rig.receive.read(DATA + 10, 2), rig.net.counts().receive_dropped), (vec![1, 0], 1));
}

#[test]
fn a_frame_that_all_buffers_together_cannot_hold_is_dropped() {
    let mut rig = Rig::new();
    (0..QUEUE_SIZE).for_each(|_| _ = rig.receive.offer(&[(DATA, 20, WRITE)]));
    rig.arrives(&packet(20 * usize::from(QUEUE_SIZE)));
    rig.arrives(&packet(60));
    rig.receive().unwrap();
    assert_eq!(rig.net.counts().receive_dropped, 1);
    assert_eq!(rig.receive.take_used().len(), 4, "those of the second frame");
}

#[test]
fn what_was_agreed_on_is_what_the_link_may_do() {
    let rig = Rig::new();
    let offloads = || *rig.net.link().offloads.lock().unwrap();
    assert_eq!(offloads(), Offloads { checksum: true, tcp4: true, tcp6: true, ecn: true });
    rig.net.set_features(FEATURES & !(1 << F_GUEST_CSUM)).unwrap();
    assert_eq!(offloads(), Offloads::default(), "all need the checksum");
    rig.net.set_features(1 << F_GUEST_CSUM | 1 << F_GUEST_TSO4).unwrap();
    assert_eq!(offloads(), Offloads { checksum: true, tcp4: true, ..Offloads::default() });
}

#[test]
fn a_frame_that_the_driver_cannot_take_is_dropped() {
    let mut rig = Rig::new();
    rig.net.set_features(FEATURES & !(1 << F_GUEST_CSUM)).unwrap();
    let head = rig.receive.offer(&[(DATA, 2000, WRITE)]);
    let mut unfinished = packet(100);
    (unfinished[0], unfinished[6], unfinished[8]) = (1, 34, 16);
    rig.arrives(&unfinished);
    rig.arrives(&packet(60));
    let progress = rig.receive().unwrap();
    assert!(matches!(progress.refused, Some(Error::NotAgreed { .. })));
    assert_eq!((rig.receive.take_used(), rig.net.counts().receive_dropped), (vec![(head, 72)], 1));
}

#[test]
fn headers_that_ask_for_too_much_are_refused_and_nothing_is_sent() {
    let mut rig = Rig::new();
    rig.net.set_features(FEATURES & !(1 << F_CSUM)).unwrap();
    let mut checksum = packet(60);
    checksum[0] = 1;
    rig.transmit.write(DATA, &checksum);
    rig.transmit.offer(&[(DATA, 72, 0)]);
    assert!(matches!(rig.transmit().unwrap().refused, Some(Error::NotAgreed { .. })));
    rig.net.set_features(FEATURES).unwrap();
    checksum[6] = 59;
    rig.transmit.write(DATA, &checksum);
    rig.transmit.offer(&[(DATA, 72, 0)]);
    assert!(matches!(rig.transmit().unwrap().refused, Some(Error::Checksum { start: 59, frame_bytes: 60, .. })));
    assert_eq!(
        (rig.transmit.take_used().len(), rig.net.counts().rejected, rig.net.link().sent.lock().unwrap().len()),
        (2, 2, 0)
    );
}

#[test]
fn packets_of_the_wrong_shape_are_refused() {
    let refusal = |buffers: &[(u64, u32, u16)]| {
        let mut rig = Rig::new();
        rig.transmit.offer(buffers);
        let refused = rig.transmit().unwrap().refused.unwrap();
        assert_eq!((rig.transmit.take_used().len(), rig.net.counts().rejected), (1, 1));
        assert!(rig.net.link().sent.lock().unwrap().is_empty());
        refused
    };
    assert!(matches!(refusal(&[(DATA, 25, 0)]), Error::PacketLength { bytes: 25 }));
    let long = PACKET_BYTES_MAX as u32 + 1;
    assert!(matches!(refusal(&[(DATA, long, 0)]), Error::PacketLength { .. }));
    assert!(matches!(refusal(&[(DATA, 60, 0), (DATA, 1, WRITE)]), Error::Direction { bytes: 1 }));
    assert!(matches!(refusal(&[(RAM_BYTES, 60, 0)]), Error::Chain(_)));
}

#[test]
fn a_wrong_buffer_to_receive_into_goes_back_with_those_before_it() {
    for wrong in [(DATA, 11, WRITE), (DATA, 100, 0), (RAM_BYTES, 100, WRITE)] {
        let mut rig = Rig::new();
        let good = rig.receive.offer(&[(DATA, 100, WRITE)]);
        let bad = rig.receive.offer(&[wrong]);
        rig.arrives(&packet(200));
        let progress = rig.receive().unwrap();
        assert!(progress.used && progress.refused.is_some());
        assert_eq!(rig.receive.take_used(), [(good, 0), (bad, 0)]);
        assert_eq!((rig.net.counts().rejected, rig.net.counts().receive_dropped), (1, 1));
        // And the next frame finds the next buffer.
        let next = rig.receive.offer(&[(DATA, 100, WRITE)]);
        rig.arrives(&packet(60));
        rig.receive().unwrap();
        assert_eq!(rig.receive.take_used(), [(next, 72)]);
    }
}

#[test]
fn a_link_that_fails_drops_frames_and_nothing_else() {
    let mut rig = Rig::new();
    for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::Other] {
        *rig.net.link().failing.lock().unwrap() = Some(kind);
        rig.transmit.offer(&[(DATA, 72, 0)]);
        let progress = rig.transmit().unwrap();
        assert!(progress.used && matches!(progress.refused, Some(Error::Link { doing: "send", .. })));
        let progress = rig.receive().unwrap();
        assert!(!progress.more, "a link that fails is not asked again and again");
    }
    *rig.net.link().failing.lock().unwrap() = None;
    assert_eq!((rig.transmit.take_used().len(), rig.net.counts().send_dropped), (2, 2));
    rig.transmit.offer(&[(DATA, 72, 0)]);
    assert!(rig.transmit().unwrap().refused.is_none());
}

#[test]
fn floods_in_both_directions_take_bounded_turns() {
    let mut rig = Rig::new();
    for _ in 0..QUEUE_SIZE {
        rig.arrives(&packet(60));
        rig.receive.offer(&[(DATA, 2000, WRITE)]);
        rig.transmit.offer(&[(DATA, 72, 0)]);
    }
    let mut turns = 1;
    while rig.transmit().unwrap().more {
        assert!(rig.transmit.take_used().len() <= FRAMES_PER_TURN);
        turns += 1;
    }
    while rig.receive().unwrap().more {
        assert!(rig.receive.take_used().len() <= FRAMES_PER_TURN);
        turns += 1;
    }
    let counts = rig.net.counts();
    assert_eq!((counts.sent_frames, counts.received_frames), (QUEUE_SIZE.into(), QUEUE_SIZE.into()));
    assert_eq!(turns, 1 + 2 * usize::from(QUEUE_SIZE).div_ceil(FRAMES_PER_TURN));
    // Of the longest frames fewer.
    (0..60).for_each(|_| _ = rig.transmit.offer(&[(DATA, PACKET_BYTES_MAX as u32, 0)]));
    assert!(rig.transmit().unwrap().more);
    assert!((16..=17).contains(&rig.transmit.take_used().len()));
}

#[test]
fn the_configuration_space_has_address_and_mtu() {
    let read = |net: &Net<Wire>, offset, bytes| {
        let mut data = vec![0xff; bytes];
        net.read_config(offset, &mut data);
        data
    };
    let net = Net::new(Wire::default(), MAC, Some(9000));
    assert_eq!((read(&net, 0, 6), read(&net, 10, 2)), (MAC.to_vec(), 9000u16.to_le_bytes().to_vec()));
    assert_eq!((read(&net, 8, 8), read(&net, u64::MAX, 1)), (vec![0, 0, 0x28, 0x23, 0, 0, 0, 0], vec![0]));
    net.write_config(0, &[1; 6]);
    assert_eq!((read(&net, 0, 6), net.counts().rejected), (MAC.to_vec(), 1));
    assert_eq!(Net::new(Wire::default(), MAC, None).features(), FEATURES);
}

#[test]
fn a_reset_forgets_the_frame_that_waited() {
    let mut rig = Rig::new();
    rig.arrives(&packet(60));
    rig.receive().unwrap();
    assert!(rig.net.holds_frame());
    rig.net.reset();
    assert!(!rig.net.holds_frame());
}

/// Buffers from near-honest to absurd.
fn any_buffer(start: u64) -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![8 => start..start + 0x4000, 1 => any::<u64>()];
    let bytes = prop_oneof![4 => 0u32..2000, 1 => 60000u32..70000, 1 => any::<u32>()];
    (address, bytes, 0u16..4, prop_oneof![12 => 0u16..16, 1 => any::<u16>()])
}

proptest! {
    /// Whatever the buffers: those of the device's direction change, or are read, and no other byte does.
    #[test]
    fn no_byte_outside_of_the_writable_buffers_changes(
        descriptors in prop::collection::vec(any_buffer(DATA), 16),
        heads in prop::collection::vec(0u16..16, 1..40),
        frames in prop::collection::vec(prop_oneof![3 => 14usize..200, 1 => 200usize..65000], 0..20),
        merges: bool,
    ) {
        let mut rig = Rig::new();
        rig.net.set_features(if merges { FEATURES } else { FEATURES & !(1 << F_MRG_RXBUF) }).unwrap();
        frames.iter().for_each(|&bytes| rig.arrives(&packet(bytes)));
        let mut writable = vec![USED_RING];
        for driver in [&mut rig.receive, &mut rig.transmit] {
            for (index, &(address, bytes, flags, next)) in descriptors.iter().enumerate() {
                driver.set_descriptor(index as u16, address, bytes, flags, next);
                if flags & WRITE != 0 {
                    writable.push(address..address.saturating_add(bytes.into()));
                }
            }
            heads.iter().for_each(|&head| driver.make_available(head));
        }
        let before = [&rig.receive, &rig.transmit].map(|driver| driver.read(0, RAM_BYTES as usize));
        while rig.receive().unwrap().more {}
        while rig.transmit().unwrap().more {}
        let after = [&rig.receive, &rig.transmit].map(|driver| driver.read(0, RAM_BYTES as usize));
        for at in (0..RAM_BYTES).filter(|&at| before[0][at as usize] != after[0][at as usize]) {
            prop_assert!(writable.iter().any(|range| range.contains(&at)), "byte {:#x} changed", at);
        }
        for at in (0..RAM_BYTES).filter(|&at| before[1][at as usize] != after[1][at as usize]) {
            prop_assert!(USED_RING.contains(&at), "sending changed byte {:#x}", at);
        }
        prop_assert_eq!(rig.transmit.take_used().len(), heads.len());
        let counts = rig.net.counts();
        let seen = counts.received_frames + counts.receive_dropped + u64::from(rig.net.holds_frame());
        let waiting = rig.net.link().incoming.lock().unwrap().len();
        prop_assert_eq!(seen as usize + waiting, frames.len(), "each frame is somewhere");
    }

    /// Rings and buffers may be anywhere, also in each other.
    #[test]
    fn no_ring_makes_the_device_panic(
        descriptors in prop::collection::vec((0u64..0x4000, any::<u32>(), any::<u16>(), 0u16..20), 16),
        heads in prop::collection::vec(prop_oneof![30 => 0u16..16, 1 => any::<u16>()], 1..40),
        available in prop_oneof![Just(None), any::<u16>().prop_map(Some)],
        event_idx: bool,
    ) {
        let mut rig = Rig::new();
        (0..50).for_each(|nth| rig.arrives(&packet(60 + nth * 100)));
        for driver in [&mut rig.receive, &mut rig.transmit] {
            driver.queue.set_event_idx(event_idx);
            for (index, &(address, bytes, flags, next)) in descriptors.iter().enumerate() {
                driver.set_descriptor(index as u16, address, bytes, flags, next);
            }
            heads.iter().for_each(|&head| driver.make_available(head));
            available.inspect(|&index| driver.set_available_index(index));
        }
        for turn in [Rig::receive, Rig::transmit] {
            for _ in 0..256 {
                match turn(&mut rig) {
                    Ok(progress) if progress.more => {}
                    _ => break,
                }
            }
        }
    }
}
