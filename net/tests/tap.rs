//! A real tap: the kernel's network stack at the other end answers what our driver sends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use chains::driver::{DATA, WRITE};
use net::{Tap, TapError};
use nix::sched::{CloneFlags, unshare};
use rig::{MAC, Rig};

const HOST: [u8; 4] = [192, 0, 2, 1];
const GUEST: [u8; 4] = [192, 0, 2, 2];
const MAC_ALL: [u8; 6] = [0xff; 6];

/// Runs `test` on a thread with a network of its own, in which there is a tap called `guest`.
fn with_tap(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        let ip = |arguments: &str| {
            Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
        };
        // The commands inherit the thread's network.
        if unshare(CloneFlags::CLONE_NEWNET).is_err() || !ip("tuntap add dev guest mode tap") {
            eprintln!("SKIPPED: a tap takes root, /dev/net/tun and iproute2");
            return;
        }
        assert!(ip("addr add 192.0.2.1/24 dev guest") && ip("link set guest up"));
        test();
    });
    thread.join().unwrap();
}

/// Sends a packet as the guest would.
fn send(rig: &mut Rig<Tap>, packet: &[u8]) {
    rig.transmit.write(DATA, packet);
    rig.transmit.offer(&[(DATA, packet.len() as u32, 0)]);
    let progress = rig.transmit().unwrap();
    assert!(progress.refused.is_none(), "{:?}", progress.refused);
}

/// Sends a packet until there is a frame that `is_wanted`: an interface that has just come up drops what it
/// sends. The kernel sends of its own accord, too.
fn ask(rig: &mut Rig<Tap>, packet: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        send(rig, packet);
        let patience = Instant::now() + Duration::from_millis(100);
        while Instant::now() < patience {
            if !rig.net.holds_frame() {
                rig.receive.offer(&[(DATA, 2048, WRITE)]);
            }
            rig.receive().unwrap();
            for (_, bytes) in rig.receive.take_used() {
                let frame = rig.receive.read(DATA + 12, bytes as usize - 12);
                if is_wanted(&frame) {
                    return frame;
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    panic!("no answer");
}

/// Asks for the host's address.
fn ask_arp(rig: &mut Rig<Tap>) -> [u8; 6] {
    let request =
        [&[0; 12][..], &MAC_ALL, &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC, &GUEST, &[0; 6], &HOST].concat();
    let answer = ask(rig, &request, |frame| frame[12..14] == [8, 6] && frame[21] == 2);
    assert_eq!((&answer[..6], &answer[28..32]), (&MAC[..], &HOST[..]));
    answer[22..28].try_into().unwrap()
}

/// A header of IPv4 before this many bytes of this protocol.
fn ip(protocol: u8, bytes: u8) -> Vec<u8> {
    let mut ip = [&[0x45, 0, 0, 20 + bytes, 0, 1, 0, 0, 64, protocol, 0, 0][..], &GUEST, &HOST].concat();
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    ip
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16 + (sum >> 16) as u16)).to_be_bytes()
}

#[test]
fn the_kernel_answers_arp_and_ping() {
    with_tap(|| {
        let mut rig = Rig::with(Tap::open("guest").unwrap());
        let host = ask_arp(&mut rig);
        let mut echo = [&[8, 0, 0, 0, 0x12, 0x34, 0, 1][..], &[0x5a; 56]].concat();
        let sum = checksum(&echo);
        echo[2..4].copy_from_slice(&sum);
        let packet = [&[0; 12][..], &host, &MAC, &[8, 0], &ip(1, 64), &echo].concat();
        let answer = ask(&mut rig, &packet, |frame| frame[12..14] == [8, 0] && frame[23] == 1);
        assert_eq!((answer[34], &answer[38..98]), (0, &echo[4..]), "an echo reply with what was sent");
        assert_eq!((rig.net.counts().send_dropped, rig.net.counts().rejected), (0, 0));
    });
}

#[test]
fn the_kernel_believes_a_checksum_that_is_left_to_it() {
    with_tap(|| {
        let mut rig = Rig::with(Tap::open("guest").unwrap());
        let host = ask_arp(&mut rig);
        // To a port where nobody is. A wrong checksum would be dropped in silence; one that is to be
        // completed is as good as right.
        let udp = [0, 9, 0x9c, 0x40, 0, 12, 0xbe, 0xef, 1, 2, 3, 4];
        let unfinished = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
        let packet = [&unfinished[..], &host, &MAC, &[8, 0], &ip(17, 12), &udp].concat();
        let answer = ask(&mut rig, &packet, |frame| frame[12..14] == [8, 0] && frame[23] == 1);
        assert_eq!(answer[34..36], [3, 3], "port unreachable");
    });
}

#[test]
fn a_tap_that_cannot_be_had_is_named_with_the_reason() {
    with_tap(|| {
        let missing = Tap::open("nosuchtap").unwrap_err();
        assert!(matches!(missing, TapError::Missing { .. }));
        assert!(missing.to_string().contains("ip tuntap add dev nosuchtap mode tap"), "{missing}");
        assert!(matches!(Tap::open("lo").unwrap_err(), TapError::NotATap { .. }));
        let _held = Tap::open("guest").unwrap();
        assert_eq!(Tap::open("guest").unwrap_err().to_string(), "tap guest is in use");
    });
    for name in ["", "sixteen-letters-", "a\0b"] {
        assert!(matches!(Tap::open(name).unwrap_err(), TapError::Name { .. }));
    }
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(Tap::new(file).unwrap_err(), TapError::Descriptor { .. }));
}
