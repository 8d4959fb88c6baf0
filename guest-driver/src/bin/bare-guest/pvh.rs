//! The image's other entry: PVH (Xen's `docs/misc/pvh.pandoc`), by which QEMU starts a kernel that is an ELF
//! file.
//!
//! ```text
//!   PVH loader: 32-bit protected mode, no paging, ebx = hvm_start_info;
//!     segments at their *physical* addresses (image.ld)
//!     -> identity page tables for 4 GiB; FIRMWARE_BASE is mapped to PVH_FIRMWARE_BASE
//!     -> 64-bit mode, ring 0: how many ticks the time stamp counter makes while the 8254 counts TIMER_MS
//!     -> ring 3: `boot` reads the start information and makes the boot information of it
//!     -> `_start`, as on the VMM's own machine; the I/O privilege level lets it reach the serial port
//! ```
//!
//! Ring 3 as early as can be, because a KVM that is nested in software emulates ring 0 instruction by
//! instruction, and not all of them. Page tables and stack lie where the VMM would have put them, so this
//! machine's firmware memory looks like the other's.

use core::arch::global_asm;

use wire::machine::{FIRMWARE_BASE, FIRMWARE_BYTES, PAGE_TABLE_BASE, PVH_FIRMWARE_BASE, STACK_BASE, STACK_BYTES};

/// From addresses in firmware memory to where a PVH loader puts them; `image.ld` subtracts it, too.
const DELTA: u64 = FIRMWARE_BASE - PVH_FIRMWARE_BASE;
const PML4: u64 = PAGE_TABLE_BASE - DELTA;
const PDPT: u64 = PML4 + 0x1000;
/// Four for the identity, one for firmware memory.
const DIRECTORIES: u64 = PML4 + 0x2000;
const TABLE_WORDS: u64 = (2 + 5) * 1024;
const FIRMWARE_DIRECTORY: u64 = DIRECTORIES + 4 * 0x1000;
/// Entry of the PDPT, and first one of its directory, that firmware memory starts with.
const FIRMWARE_GIB: u64 = FIRMWARE_BASE >> 30;
const FIRMWARE_ENTRY: u64 = FIRMWARE_DIRECTORY + (FIRMWARE_BASE >> 21) % 512 * 8;
const STACK_TOP: u64 = STACK_BASE + STACK_BYTES;

/// The 8254's first counter, 1 193 182 ticks a second.
const TIMER: u16 = 0x40;
const TIMER_MODE: u16 = 0x43;
/// What [`super::microvm::TIMER_MS`] takes.
const TIMER_TICKS: u16 = 11932;

const _: () = {
    assert!(DELTA == 0x40_00e0_0000, "image.ld has this number, too");
    assert!(FIRMWARE_BASE.is_multiple_of(2 << 20) && PVH_FIRMWARE_BASE.is_multiple_of(2 << 20));
    assert!(FIRMWARE_BYTES == 2 * (2 << 20), "two large pages");
    assert!(PML4 + TABLE_WORDS * 4 <= PVH_FIRMWARE_BASE + FIRMWARE_BYTES);
    assert!(FIRMWARE_GIB < 512);
};

global_asm!(
    // XEN_ELFNOTE_PHYS32_ENTRY
    ".section .note.pvh, \"a\", @note",
    "    .balign 4",
    "    .long 4, 8, 18",
    "    .asciz \"Xen\"",
    "    .quad pvh_entry - {delta}",
    "",
    ".section .rodata.pvh, \"a\"",
    "    .balign 8",
    // Ring 0 has the first code and data segments; ring 3 those that the VMM would have loaded.
    "pvh_gdt:",
    "    .quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0x00cff3000000ffff, 0x00affb000000ffff",
    "pvh_gdt_pointer:",
    "    .word 7 * 8 - 1",
    "    .long pvh_gdt - {delta}",
    "",
    ".section .text.pvh, \"ax\"",
    ".code32",
    "pvh_entry:",
    "    cli",
    "    cld",
    "    mov edi, {pml4}",
    "    xor eax, eax",
    "    mov ecx, {table_words}",
    "    rep stosd",
    // Tables: present, writable, user. Pages: large, besides.
    "    mov dword ptr [{pml4}], {pdpt} + 7",
    "    mov dword ptr [{pdpt} + 8 * {firmware_gib}], {firmware_directory} + 7",
    "    mov dword ptr [{firmware_entry}], {firmware} + 0x87",
    "    mov dword ptr [{firmware_entry} + 8], {firmware} + 0x200087",
    "    mov edi, {pdpt}",
    "    mov eax, {directories} + 7",
    "    mov ecx, 4",
    "2:  mov [edi], eax",
    "    add edi, 8",
    "    add eax, 0x1000",
    "    loop 2b",
    "    mov edi, {directories}",
    "    mov eax, 0x87",
    "    mov ecx, 4 * 512",
    "3:  mov [edi], eax",
    "    add edi, 8",
    "    add eax, 0x200000",
    "    loop 3b",
    // As the VMM starts its vCPUs (vmm/src/kvm/sregs.rs): PAE and SSE; 64-bit mode; protection, FPU, paging.
    "    mov eax, 0x620",
    "    mov cr4, eax",
    "    mov eax, {pml4}",
    "    mov cr3, eax",
    "    mov ecx, 0xc0000080",
    "    rdmsr",
    "    or eax, 0x100",
    "    wrmsr",
    "    mov eax, 0x80010033",
    "    mov cr0, eax",
    "    lgdt [pvh_gdt_pointer - {delta}]",
    "    mov esp, {stack_top} - {delta}",
    "    push 0x10",
    "    mov eax, offset pvh_long - {delta}",
    "    push eax",
    "    retf",
    ".code64",
    "pvh_long:",
    "    mov eax, 0x18",
    "    mov ss, eax",
    "    mov ds, eax",
    "    mov es, eax",
    "    movabs rsp, {stack_top}",
    "    movabs rax, offset pvh_high",
    "    jmp rax",
    "pvh_high:",
    // First counter, mode 0: its output, bit 7 of the status that is read back, rises at the end of the
    // count.
    "    mov al, 0x30",
    "    out {timer_mode}, al",
    "    mov al, {timer_ticks} & 0xff",
    "    out {timer}, al",
    "    mov al, {timer_ticks} >> 8",
    "    out {timer}, al",
    "    rdtsc",
    "    shl rdx, 32",
    "    lea rsi, [rax + rdx]",
    "4:  mov al, 0xe2",
    "    out {timer_mode}, al",
    "    in al, {timer}",
    "    test al, 0x80",
    "    jz 4b",
    "    rdtsc",
    "    shl rdx, 32",
    "    add rax, rdx",
    "    sub rax, rsi",
    "    mov rsi, rax",
    // Ring 3: stack segment and pointer; interrupts off, I/O allowed; code segment and address.
    "    mov eax, 0x2b",
    "    mov ds, eax",
    "    mov es, eax",
    "    movabs rcx, {stack_top}",
    "    push rax",
    "    push rcx",
    "    push 0x3002",
    "    push 0x33",
    "    lea rax, [rip + pvh_ring_3]",
    "    push rax",
    "    iretq",
    "pvh_ring_3:",
    "    mov edi, ebx",
    "    call {boot}",
    "    xor edi, edi",
    "    jmp _start",
    timer = const TIMER,
    timer_mode = const TIMER_MODE,
    timer_ticks = const TIMER_TICKS,
    delta = const DELTA,
    pml4 = const PML4,
    pdpt = const PDPT,
    directories = const DIRECTORIES,
    table_words = const TABLE_WORDS,
    firmware_gib = const FIRMWARE_GIB,
    firmware_directory = const FIRMWARE_DIRECTORY,
    firmware_entry = const FIRMWARE_ENTRY,
    firmware = const PVH_FIRMWARE_BASE,
    stack_top = const STACK_TOP,
    boot = sym super::microvm::boot,
);
