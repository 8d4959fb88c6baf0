//! A driver at the register file: steps of eight bytes, and turns of work in between.
//!
//! ```text
//!   byte 0, modulo 8: 0..=3 write, 4 read, 5 a turn of work, 6 the host wishes, 7 memory
//!   bytes 1, 2: offset (modulo 0x120)      byte 3: length or queue      bytes 4..8: value
//! ```

#![no_main]

use std::sync::Arc;

use ballast_fuzz::{RAM_FRAMES, Sink, memory};
use balloon::Balloon;
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};
use vmm::board::MmioDevice;
use vmm::devices::virtio_mmio::{BalloonDevice, TurnEnd, VirtioMmio, Wires};

struct Unconnected;

impl Wires for Unconnected {
    fn set_interrupt(&self, _: bool) {}
    fn notify(&self, _: usize) {}
}

fuzz_target!(|input: &[u8]| {
    let memory = memory(&[]);
    let device = BalloonDevice::new(Balloon::new(RAM_FRAMES, Sink));
    let mmio = VirtioMmio::new(device, Arc::clone(&memory), Unconnected);
    for step in input.as_chunks::<8>().0 {
        let &[what, low, high, short, ref value @ ..] = step;
        let offset = u64::from(u16::from_le_bytes([low, high])) % 0x120;
        let value = u32::from_le_bytes(*value);
        match what % 8 {
            0..=3 => {
                let bytes = value.to_le_bytes();
                // Mostly as the specification has it.
                let length = if short & 7 == 0 { usize::from(short >> 3) % 5 } else { 4 };
                mmio.write(offset & !3, &bytes[..length]);
            }
            4 => {
                let mut data = [0; 8];
                mmio.read(offset, &mut data[..usize::from(short) % 9]);
            }
            5 => {
                let turn = mmio.process(usize::from(short) % 8);
                assert!(matches!(turn, TurnEnd::Done | TurnEnd::More));
            }
            6 => {
                mmio.configure(|device| device.balloon().set_requested_pages(value));
                mmio.device().balloon().set_statistics_interval_ms(1);
                mmio.device().balloon().poll_statistics(u64::MAX);
                match short % 3 {
                    0 if mmio.device().balloon().begin_hinting().is_ok() => {
                        mmio.configure(|device| device.balloon().announce_hinting());
                    }
                    1 => {
                        mmio.device().balloon().end_hinting();
                        mmio.configure(|device| device.balloon().announce_done());
                    }
                    _ => {}
                }
            }
            _ => {
                let address = u64::from(value >> 16) * 2 % (u64::from(RAM_FRAMES) * 4096);
                memory.write_obj(value as u16, GuestAddress(address)).expect("memory is there");
            }
        }
    }
    let status = mmio.device().balloon().status();
    assert!(status.actual_pages <= RAM_FRAMES && status.requested_pages <= RAM_FRAMES);
});
