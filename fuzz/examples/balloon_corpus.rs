//! Writes the first inputs of `queue` and `registers` into the folder given: a request for each queue, and a
//! driver's life at the register file.
//!
//!     cargo run --example balloon-corpus -- corpus

use std::fs;

/// Memory with one chain: a buffer of this length and direction, at 0x3000, that holds `data`.
fn queue(which: u8, also: u8, bytes: u32, writable: bool, data: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x3000];
    image[..8].copy_from_slice(&0x3000u64.to_le_bytes());
    image[8..12].copy_from_slice(&bytes.to_le_bytes());
    image[12] = if writable { 2 } else { 0 };
    image[0x1002] = 1;
    [&[which, 4, also], &image[..], data].concat()
}

/// One step of the `registers` target.
fn step(what: u8, offset: u16, short: u8, value: u32) -> Vec<u8> {
    let [low, high] = offset.to_le_bytes();
    [&[what, low, high, short][..], &value.to_le_bytes()].concat()
}

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("the folder of the corpus");
    let numbers: Vec<u8> = [7u32, 8, 9, 31, 32, u32::MAX].iter().flat_map(|number| number.to_le_bytes()).collect();
    let statistics: Vec<u8> = [(4u16, 77u64), (5, 99), (60000, 1)]
        .iter()
        .flat_map(|(t, v)| [&t.to_le_bytes()[..], &v.to_le_bytes()].concat())
        .collect();
    for (name, input) in [
        ("inflate", queue(0, 0, 24, false, &numbers)),
        ("deflate", queue(1, 0, 24, false, &numbers)),
        ("statistics", queue(2, 2, 30, false, &statistics)),
        ("hint-command", queue(3, 1, 4, false, &2u32.to_le_bytes())),
        ("hint-pages", queue(3, 1, 0x4000, true, &[])),
        ("report", queue(4, 4, 0x4000, true, &[])),
    ] {
        fs::write(format!("{folder}/queue/{name}"), input)?;
    }
    let write = |offset, value| step(0, offset, 1, value);
    let mut life =
        [write(0x70, 1), write(0x70, 3), write(0x24, 0), write(0x20, 0x3f), write(0x24, 1), write(0x20, 1)].concat();
    life.extend([write(0x70, 11), step(4, 0x70, 4, 0)].concat());
    for queue in 0..5u32 {
        let base = queue * 0x3000;
        for (offset, value) in
            [(0x30, queue), (0x38, 16), (0x80, base), (0x90, base + 0x1000), (0xa0, base + 0x2000), (0x44, 1)]
        {
            life.extend(write(offset, value));
        }
    }
    life.extend(write(0x10c, 0xaaaa_aaaa));
    life.extend(write(0x70, 15));
    // One chain on queue 0: a buffer of 4 bytes at 0, one entry in the available ring.
    life.extend([step(7, 0, 0, 4 << 16 | 4), step(7, 0, 0, (0x1002 / 2) << 16 | 1), step(5, 0, 0, 0)].concat());
    life.extend([step(6, 0, 0, 9), write(0x64, 3), write(0x104, 9), step(6, 0, 1, 3), write(0x70, 0)].concat());
    fs::write(format!("{folder}/registers/life"), life)
}
