//! A kernel's file: one byte says how it is to be started, the rest is the file.
//!
//! ```text
//!   byte 0   bit 0: in 64 bits      bits 1, 2: RAM      bits 3, 4: initial RAM disk
//! ```

#![no_main]

use boot::{Config, Protocol, VirtioMmio, prepare, ram_ranges};
use libfuzzer_sys::fuzz_target;

static INITRD: [u8; 1 << 20] = [7; 1 << 20];

fuzz_target!(|input: &[u8]| {
    let [how, kernel @ ..] = input else { return };
    let ram_bytes = [64 << 20, 16 << 20, 3 << 30, 5 << 30][usize::from(how >> 1 & 3)];
    let initrd = [None, Some(4096), Some(4097), Some(INITRD.len())][usize::from(how >> 3 & 3)];
    let config = Config {
        kernel,
        initrd: initrd.map(|bytes| &INITRD[..bytes]),
        command_line: "console=ttyS0",
        ram_bytes,
        vcpus: 2,
        devices: &[VirtioMmio { base: 0xd000_0000, interrupt: 16 }],
        prefer: if how & 1 == 0 { Protocol::Pvh } else { Protocol::Linux64 },
    };
    if let Ok(boot) = prepare(&config) {
        assert!(boot.writes.windows(2).all(|pair| pair[0].end() <= pair[1].gpa), "two writes to one place");
        for write in &boot.writes {
            assert!(
                ram_ranges(ram_bytes).any(|ram| write.gpa >= ram.start && write.end() <= ram.end),
                "{:#x}",
                write.gpa
            );
        }
        assert!(boot.writes.iter().any(|write| (write.gpa..write.end()).contains(&boot.start.rip)));
    }
});
