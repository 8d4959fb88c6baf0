//! The state a vCPU starts in: ring 3 of 64-bit mode, paging on, nowhere to go on an exception.
//!
//! There is no GDT or IDT, as nothing will read them: segments come loaded, and the guest never changes ring.
//! An exception finds no handler, and so does the double fault that follows: a triple fault, which KVM
//! reports as a shutdown.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use crate::board::Start;

/// CR0: protection, FPU present (MP, ET, NE), read-only pages bind everyone (WP), paging.
const CR0: u64 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR4: page table entries of 64 bits (PAE), SSE (OSFXSR, OSXMMEXCPT).
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// EFER: 64-bit mode enabled (LME) and active (LMA), no-execute pages (NXE).
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
/// RFLAGS: the bit that is always set.
const RFLAGS: u64 = 1 << 1;

/// Where Linux has them; some nested KVMs run only these natively. Requested privilege level 3.
const CODE_SELECTOR: u16 = 0x33;
const DATA_SELECTOR: u16 = 0x2b;
const TASK_SELECTOR: u16 = 0x40;

const DATA: kvm_segment = kvm_segment {
    base: 0,
    limit: u32::MAX,
    selector: DATA_SELECTOR,
    // Read, write, accessed.
    type_: 3,
    present: 1,
    dpl: 3,
    db: 1,
    s: 1,
    l: 0,
    g: 1,
    avl: 0,
    unusable: 0,
    padding: 0,
};
/// 64-bit code: execute, read, accessed.
const CODE: kvm_segment = kvm_segment { selector: CODE_SELECTOR, type_: 11, db: 0, l: 1, ..DATA };
/// A busy task state segment, never used, but VMX insists on one.
const TASK: kvm_segment =
    kvm_segment { selector: TASK_SELECTOR, limit: 0x67, type_: 11, dpl: 0, db: 0, s: 0, g: 0, ..DATA };
const NONE: kvm_segment = kvm_segment { present: 0, unusable: 1, ..DATA };

/// Segments, control registers and tables; what `initial` has besides (the APIC's base) stays.
pub fn special(initial: kvm_sregs, start: Start) -> kvm_sregs {
    let table = kvm_dtable::default();
    let segments =
        kvm_sregs { cs: CODE, ss: DATA, ds: DATA, es: DATA, fs: DATA, gs: DATA, tr: TASK, ldt: NONE, ..initial };
    kvm_sregs { gdt: table, idt: table, cr0: CR0, cr3: start.page_table, cr4: CR4, efer: EFER, ..segments }
}

/// General registers: the vCPU's number in the first argument's, and the stack empty, as at the entry of a
/// process (aligned to 16 bytes, no return address).
pub fn general(vcpu: u32, start: Start) -> kvm_regs {
    let rsp = Start::stack_top(vcpu);
    kvm_regs { rip: start.entry, rsp, rdi: u64::from(vcpu), rflags: RFLAGS, ..kvm_regs::default() }
}
