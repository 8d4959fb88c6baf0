//! QEMU's `microvm`, or any PC that starts the image by its PVH entry: what the VMM would do for the guest,
//! the guest does for itself.
//!
//! | the VMM's machine | here |
//! |---|---|
//! | boot information | made of the memory map and the command line |
//! | clock | the time stamp counter, measured against the 8254; read once a millisecond, waiting ten times |
//! | interrupt line | the balloon's register, read as often |
//! | stop | a byte on the serial port |
//! | console | the serial port |
//! | doorbell | waiting in a loop; the exit code is a line on the console, `exit 0` |
//!
//! `quiet` on the command line means: do not touch the serial port, as on KVM that is nested in software,
//! where ring 3 has no I/O.

use core::arch::asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use guest_driver::Machine;
use guest_driver::command_line::CommandLine;
use wire::PAGE_BYTES;
use wire::machine::{ACTIVE_OWN, BOOT_MAGIC, BootInfo, CONTENTS_OWN, FIRMWARE_BASE, FIRMWARE_BYTES, PVH_FIRMWARE_BASE};
use wire::{balloon, mmio};

use super::BareMachine;

/// How long the 8254 counts while the ticks of the time stamp counter are counted, ms.
pub const TIMER_MS: u64 = 10;
/// First serial port: data, and the status of its line.
const SERIAL: u16 = 0x3f8;
const SERIAL_STATUS: u16 = SERIAL + 5;
const SERIAL_RECEIVED: u8 = 1 << 0;
const SERIAL_EMPTY: u8 = 1 << 5;

/// `hvm_start_info` of Xen's `public/arch-x86/hvm/start_info.h`: magic, and where the fields lie.
const START_MAGIC: u32 = 0x336e_c578;
const START_COMMAND_LINE: u64 = 24;
const START_MEMORY_MAP: u64 = 40;
const START_MEMORY_ENTRIES: u64 = 48;
/// `hvm_memmap_table_entry`: address, bytes, type.
const MEMORY_ENTRY_BYTES: u64 = 24;
const MEMORY_RAM: u32 = 1;
/// Longest command line read, and most memory ranges.
const COMMAND_LINE_MAX: usize = 2048;
const MEMORY_ENTRIES_MAX: u32 = 32;
/// Looks at the machine in a millisecond of waiting: an interrupt is noticed so much sooner.
const LOOKS_PER_MS: u64 = 10;
/// What is identity-mapped (`pvh.rs`).
const MAPPED_END: u64 = 4 << 30;

/// Ticks of the time stamp counter a millisecond; 0 on the VMM's machine.
static TICKS_PER_MS: AtomicU64 = AtomicU64::new(0);
/// When ring 3 looked at the clock for the first time, and for the last.
static BEGAN: AtomicU64 = AtomicU64::new(0);
static LOOKED: AtomicU64 = AtomicU64::new(0);
static BALLOON: AtomicU64 = AtomicU64::new(0);
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether this is the machine.
pub fn is_here() -> bool {
    TICKS_PER_MS.load(Relaxed) != 0
}

/// Address of the balloon's registers.
pub fn balloon() -> u64 {
    BALLOON.load(Relaxed)
}

/// Brings clock, interrupt line and stop up to date, at most once a millisecond.
pub fn look() {
    look_after(TICKS_PER_MS.load(Relaxed));
}

/// The same, unless the last time was less than so many ticks ago.
fn look_after(interval: u64) {
    let now = ticks();
    if now.wrapping_sub(LOOKED.load(Relaxed)) < interval {
        return;
    }
    LOOKED.store(now, Relaxed);
    if BEGAN.load(Relaxed) == 0 {
        BEGAN.store(now, Relaxed);
    }
    let control = BareMachine.control_words();
    control.now_ms.store((now - BEGAN.load(Relaxed)) / TICKS_PER_MS.load(Relaxed), Relaxed);
    if balloon() != 0 {
        control.interrupt.store(BareMachine.mmio_read(balloon() + mmio::INTERRUPT_STATUS), Relaxed);
    }
    if !QUIET.load(Relaxed) && port_read(SERIAL_STATUS) & SERIAL_RECEIVED != 0 {
        port_read(SERIAL);
        control.stop.store(1, Relaxed);
    }
}

/// Waits as the doorbell would.
pub fn park(ms: u32) {
    let control = BareMachine.control_words();
    look();
    let end = control.now_ms.load(Relaxed) + u64::from(ms);
    while control.now_ms.load(Relaxed) < end && control.interrupt.load(Relaxed) == 0 && control.stop.load(Relaxed) == 0
    {
        spin_loop();
        look_after(TICKS_PER_MS.load(Relaxed) / LOOKS_PER_MS);
    }
}

/// Writes to the serial port.
pub fn say(text: &str) {
    if QUIET.load(Relaxed) {
        return;
    }
    for byte in text.bytes() {
        while port_read(SERIAL_STATUS) & SERIAL_EMPTY == 0 {
            spin_loop();
        }
        port_write(SERIAL, byte);
    }
}

/// Reads what the loader left at `start_info`, and leaves what the guest looks for. The time stamp counter
/// made `ticks` in [`TIMER_MS`].
pub extern "C" fn boot(start_info: u64, ticks: u64) {
    // SAFETY: the loader's, by the protocol; checked by its first word before anything else of it is
    // believed.
    let magic = unsafe { word(start_info) };
    let text = if magic == START_MAGIC { command_line(start_info) } else { "" };
    let line = CommandLine::new(text);
    let balloon = line.virtio_mmio().find(|&base| is_balloon(base)).unwrap_or(0);
    BALLOON.store(balloon, Relaxed);
    QUIET.store(line.has("quiet"), Relaxed);
    TICKS_PER_MS.store((ticks / TIMER_MS).max(1), Relaxed);
    let info = BootInfo {
        // Without it the guest refuses to start, and says so.
        magic: if magic == START_MAGIC { BOOT_MAGIC } else { 0 },
        ram_bytes: ram_end(start_info) / PAGE_BYTES as u64 * PAGE_BYTES as u64,
        seed: line.number("seed"),
        guest: 0,
        vcpus: 1,
        workload: line.workload().map_or(u32::MAX, |workload| workload as u32),
        balloon: u32::from(balloon != 0),
        floor_bytes: line.number("floor") << 20,
        contents: CONTENTS_OWN,
        active: ACTIVE_OWN,
        reserved_bytes: PVH_FIRMWARE_BASE + FIRMWARE_BYTES,
    };
    // SAFETY: firmware memory, which nobody uses yet.
    unsafe { (FIRMWARE_BASE as *mut BootInfo).write(info) };
}

fn is_balloon(base: u64) -> bool {
    let register = |offset| BareMachine.mmio_read(base + offset);
    base < MAPPED_END && register(mmio::MAGIC_VALUE) == mmio::MAGIC && register(mmio::DEVICE_ID) == balloon::DEVICE_ID
}

fn command_line(start_info: u64) -> &'static str {
    // SAFETY: a field of the start information.
    let at = unsafe { double_word(start_info + START_COMMAND_LINE) };
    let bytes = at as *const u8;
    if at == 0 || at + COMMAND_LINE_MAX as u64 > MAPPED_END {
        return "";
    }
    // SAFETY: mapped, and followed by mapped memory.
    let end = (0..COMMAND_LINE_MAX).find(|&index| unsafe { bytes.wrapping_add(index).read() } == 0);
    // SAFETY: so many bytes are there, outside of everything that is written to from here on.
    core::str::from_utf8(unsafe { core::slice::from_raw_parts(bytes, end.unwrap_or(0)) }).unwrap_or("")
}

/// End of the RAM that the image lies in, 0 if nobody says.
fn ram_end(start_info: u64) -> u64 {
    // SAFETY: fields of the start information.
    let map = unsafe { double_word(start_info + START_MEMORY_MAP) };
    // SAFETY: as above.
    let entries = unsafe { word(start_info + START_MEMORY_ENTRIES) }.min(MEMORY_ENTRIES_MAX);
    let ranges = (0..u64::from(entries)).map(|index| {
        let entry = map + index * MEMORY_ENTRY_BYTES;
        // SAFETY: an entry of the memory map, as are the next two.
        let start = unsafe { double_word(entry) };
        // SAFETY: as above.
        let bytes = unsafe { double_word(entry + 8) };
        // SAFETY: as above.
        let kind = unsafe { word(entry + 16) };
        (start, start.saturating_add(bytes), kind)
    });
    let holds_us = |&(start, end, kind): &(u64, u64, u32)| {
        kind == MEMORY_RAM && start <= PVH_FIRMWARE_BASE && end >= PVH_FIRMWARE_BASE + FIRMWARE_BYTES
    };
    ranges.filter(holds_us).map(|(_, end, _)| end.min(MAPPED_END)).max().unwrap_or(0)
}

/// # Safety
/// There must be four bytes of memory at `at`.
unsafe fn word(at: u64) -> u32 {
    // SAFETY: by this function's contract; below 4 GiB, so mapped.
    unsafe { (at as *const u32).read_unaligned() }
}

/// # Safety
/// There must be eight bytes of memory at `at`.
unsafe fn double_word(at: u64) -> u64 {
    // SAFETY: as above.
    unsafe { (at as *const u64).read_unaligned() }
}

fn ticks() -> u64 {
    // SAFETY: every 64-bit CPU has the counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn port_read(port: u16) -> u8 {
    let value;
    // SAFETY: the ports named above, whose devices write to no memory.
    unsafe { asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
    value
}

fn port_write(port: u16, value: u8) {
    // SAFETY: as above.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
}
