//! Writes the first inputs of `devices` into the folder given: an honest request for each device and queue.
//!
//!     cargo run --example devices-corpus -- corpus

use std::fs;

/// Memory with one chain of `(bytes, writable)`, whose buffers are 0x1000 apart from 0x4000 on, the first
/// with `data`.
fn input(which: u8, also: u8, buffers: &[(u32, bool)], data: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x4000];
    for (nth, &(bytes, writable)) in buffers.iter().enumerate() {
        let descriptor = &mut image[nth * 16..][..16];
        descriptor[..8].copy_from_slice(&(0x4000 + nth as u64 * 0x1000).to_le_bytes());
        descriptor[8..12].copy_from_slice(&bytes.to_le_bytes());
        let more = nth + 1 < buffers.len();
        descriptor[12] = u8::from(more) | u8::from(writable) << 1;
        descriptor[14] = nth as u8 + 1;
    }
    image[0x1002] = 1;
    [&[which, 4, also], &image[..], data].concat()
}

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("the folder of the corpus");
    let header = |number: u32, sector: u64| [&number.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let segment = [&8u64.to_le_bytes()[..], &8u32.to_le_bytes(), &[0; 4]].concat();
    let with_segment = |number| [header(number, 0), segment.clone()].concat();
    let packet = [&[1, 1, 54, 0, 0x40, 0, 34, 0, 16, 0, 0, 0][..], &[0x55; 300]].concat();
    for (name, input) in [
        ("read", input(0, 0, &[(16, false), (1024, true), (1, true)], &header(0, 3))),
        ("write", input(0, 1, &[(16, false), (512, false), (1, true)], &header(1, 3))),
        ("write-through", input(0, 2, &[(16, false), (512, false), (1, true)], &header(1, 0))),
        ("flush", input(0, 0, &[(16, false), (1, true)], &header(4, 0))),
        ("id", input(1, 0, &[(16, false), (20, true), (1, true)], &header(8, 0))),
        ("discard", input(0, 0, &[(32, false), (1, true)], &with_segment(11))),
        ("write-zeroes", input(0, 0, &[(32, false), (1, true)], &with_segment(13))),
        ("read-only", input(1, 0, &[(16, false), (512, false), (1, true)], &header(1, 3))),
        ("send", input(2, 0, &[(312, false)], &packet)),
        ("receive", input(3, 0, &[(1526, true)], &[])),
        ("receive-large", input(3, 3, &[(0x8000, true), (0x8000, true), (0x2000, true)], &[])),
        ("random", input(4, 0, &[(64, true)], &[])),
    ] {
        fs::write(format!("{folder}/devices/{name}"), input)?;
    }
    Ok(())
}
