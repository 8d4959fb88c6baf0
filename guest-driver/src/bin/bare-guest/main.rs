//! The bare guest image: the guest of [`guest_driver`], freestanding, for the machine of [`wire::machine`]
//! and, by its other entry ([`pvh`]), for QEMU's [`microvm`].
//!
//! Runs in ring 3 with identity page tables and a stack of the VMM's making. No kernel, no system calls, no
//! interrupts, no port I/O: device registers are reached by plain 32-bit (and, for the console, 8-bit)
//! `mov`s, which is what KVM's emulator decodes everywhere. `vmm/build.rs` builds it, with panics that abort;
//! without them this file is an empty program, so that checks of all targets need no linker arguments.

#![cfg_attr(panic = "abort", no_std, no_main)]

#[cfg(not(panic = "abort"))]
fn main() {}

#[cfg(panic = "abort")]
mod microvm;
#[cfg(panic = "abort")]
mod pvh;

#[cfg(panic = "abort")]
use image::BareMachine;

#[cfg(panic = "abort")]
mod image {
    use core::arch::{asm, global_asm, naked_asm};
    use core::fmt::Write;
    use core::panic::PanicInfo;
    use core::sync::atomic::AtomicU32;

    use super::microvm;
    use guest_driver::guest::EXIT_PANIC;
    use guest_driver::machine::Console;
    use guest_driver::{BareGuest, Machine};
    use wire::machine::{
        BALLOON_BASE, BootInfo, CONSOLE_BASE, CONTROL_BASE, Control, DOORBELL_BASE, DOORBELL_EXIT, DOORBELL_PARK,
        FIRMWARE_BASE, REPORT_BASE, VCPUS_MAX, VcpuReport,
    };

    /// Checksums of image guests: half of the image's room, enough for RAM of 512 MiB.
    const SCRATCH_WORDS: usize = 1 << 17;

    static SCRATCH: [AtomicU32; SCRATCH_WORDS] = [const { AtomicU32::new(0) }; SCRATCH_WORDS];
    static GUEST: BareGuest<BareMachine> = BareGuest::new(BareMachine);

    /// The machine as it is mapped: every address is its own.
    pub struct BareMachine;

    impl BareMachine {
        /// The control words as they are.
        pub fn control_words(&self) -> &'static Control {
            // SAFETY: firmware memory, for ever; all fields are atomic.
            unsafe { &*(CONTROL_BASE as *const Control) }
        }
    }

    impl Machine for BareMachine {
        fn ram(&self) -> *mut u8 {
            core::ptr::null_mut()
        }

        fn boot(&self) -> &BootInfo {
            // SAFETY: the VMM put it there before the start, and changes it no more.
            unsafe { &*(FIRMWARE_BASE as *const BootInfo) }
        }

        fn control(&self) -> &Control {
            if microvm::is_here() {
                microvm::look();
            }
            self.control_words()
        }

        fn report(&self, vcpu: u32) -> &VcpuReport {
            assert!((vcpu as usize) < VCPUS_MAX, "no such vCPU");
            let reports = REPORT_BASE as *const VcpuReport;
            // SAFETY: firmware memory, for ever, with room for `VCPUS_MAX`; all fields are atomic.
            unsafe { &*reports.wrapping_add(vcpu as usize) }
        }

        fn mmio_read(&self, gpa: u64) -> u32 {
            let value;
            // SAFETY: the VMM serves every access to the device window; outside it, the worst is a triple
            // fault of this guest.
            unsafe {
                asm!("mov {0:e}, dword ptr [{1}]", out(reg) value, in(reg) gpa, options(nostack, preserves_flags))
            };
            value
        }

        fn mmio_write(&self, gpa: u64, value: u32) {
            // SAFETY: as above.
            unsafe {
                asm!("mov dword ptr [{1}], {0:e}", in(reg) value, in(reg) gpa, options(nostack, preserves_flags))
            };
        }

        fn mmio_write_byte(&self, gpa: u64, value: u8) {
            // SAFETY: as above.
            unsafe {
                asm!("mov byte ptr [{1}], {0}", in(reg_byte) value, in(reg) gpa, options(nostack, preserves_flags))
            };
        }

        fn balloon(&self) -> u64 {
            if microvm::is_here() { microvm::balloon() } else { BALLOON_BASE }
        }

        fn park(&self, ms: u32) {
            if microvm::is_here() {
                microvm::park(ms);
            } else {
                self.mmio_write(DOORBELL_BASE + DOORBELL_PARK, ms);
            }
        }

        fn console(&self, text: &str) {
            if microvm::is_here() {
                microvm::say(text);
            } else {
                text.bytes().for_each(|byte| self.mmio_write_byte(CONSOLE_BASE, byte));
            }
        }

        fn scratch(&self) -> &[AtomicU32] {
            &SCRATCH
        }
    }

    /// The VMM starts every vCPU here, its number in `rdi`, `rsp` at the top of its stack.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    extern "C" fn _start() -> ! {
        naked_asm!("xor ebp, ebp", "cld", "call {main}", "ud2", main = sym main)
    }

    extern "C" fn main(vcpu: u32) -> ! {
        exit(GUEST.run(vcpu))
    }

    fn exit(code: u32) -> ! {
        if microvm::is_here() {
            // The console's writes cannot fail.
            let _ = writeln!(Console(&BareMachine), "exit {code}");
        }
        loop {
            if microvm::is_here() {
                microvm::park(1);
            } else {
                BareMachine.mmio_write(DOORBELL_BASE + DOORBELL_EXIT, code);
            }
        }
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        // The console's writes cannot fail.
        let _ = writeln!(Console(&BareMachine), "{info}");
        exit(EXIT_PANIC)
    }

    // What the compiler takes for granted; the C library's names and contracts.
    global_asm!(
        ".globl memcpy",
        "memcpy:",
        "    mov rax, rdi",
        "    mov rcx, rdx",
        "    rep movsb",
        "    ret",
        ".globl memmove",
        "memmove:",
        "    mov rax, rdi",
        "    mov rcx, rdx",
        "    sub rdi, rsi",
        "    cmp rdi, rdx", // unsigned: below only if the target starts inside the source
        "    mov rdi, rax",
        "    jb 2f",
        "    rep movsb",
        "    ret",
        "2:  lea rdi, [rdi + rdx - 1]",
        "    lea rsi, [rsi + rdx - 1]",
        "    std",
        "    rep movsb",
        "    cld",
        "    ret",
        ".globl memset",
        "memset:",
        "    mov r8, rdi",
        "    mov eax, esi",
        "    mov rcx, rdx",
        "    rep stosb",
        "    mov rax, r8",
        "    ret",
        ".globl bcmp",
        ".globl memcmp",
        "bcmp:",
        "memcmp:",
        "    xor eax, eax",
        "    mov rcx, rdx",
        "    cmp rcx, rcx", // equal, should there be no bytes at all
        "    repe cmpsb",
        "    je 3f",
        "    movzx eax, byte ptr [rdi - 1]",
        "    movzx ecx, byte ptr [rsi - 1]",
        "    sub ecx, eax",
        "    mov eax, ecx",
        "3:  ret",
    );
}
