//! A PC under KVM: what Linux needs around its vCPUs that the kernel has already.
//!
//! ```text
//!   slot 0  RAM below 3 GiB     \  one mapping of the caller's
//!   slot 1  RAM from 4 GiB on   /
//!   interrupt controllers (two 8259, I/O APIC, a local one a vCPU), timer (8254)      in the kernel
//!   anything else               an access exits to `vcpu`, which asks the board
//! ```
//!
//! The first vCPU starts as [`boot::Start`] says; the others wait for the guest to wake them (INIT, SIPI),
//! inside of `KVM_RUN`.

use std::sync::Arc;

use kvm_bindings::{
    KVM_PIT_SPEAKER_DUMMY, Msrs, kvm_dtable, kvm_msr_entry, kvm_pit_config, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;
use wire::pc::{INTERRUPT_SCI, KVM_TSS_BASE};

use super::{Origin, Vm, cpuid, map, open};
use crate::{Error, memory::Layout, sys::ram::Ram};

const CAPABILITIES: [(Cap, &str); 3] = [
    (Cap::Irqchip, "interrupt controllers (KVM_CAP_IRQCHIP)"),
    (Cap::Pit2, "a timer (KVM_CAP_PIT2)"),
    (Cap::Irqfd, "irqfd (KVM_CAP_IRQFD)"),
];

/// Where the default kind of memory is set (Intel's manual, volume 4), and what to: all is cached, and ranges
/// may be set. Without it, Linux mistrusts the processor.
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// RFLAGS: the bit that is always set. Interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// ACPI's interrupt line, by level.
#[derive(Clone, Debug)]
pub struct SciLine(Arc<VmFd>);

impl SciLine {
    /// Raises or lowers it.
    pub fn set(&self, asserted: bool) {
        if let Err(error) = self.0.set_irq_line(INTERRUPT_SCI, asserted) {
            tracing::warn!(%error, "the power button's interrupt");
        }
    }
}

impl Vm {
    /// Builds the PC that `start` begins in, with `ram` where `layout` says.
    pub fn pc(ram: Ram, layout: &Layout, start: boot::Start, vcpus: u32) -> Result<Vm, Error> {
        let kvm = open()?;
        if let Some((_, name)) = CAPABILITIES.iter().find(|(capability, _)| !kvm.check_extension(*capability)) {
            return Err(Error::KvmCapability(name));
        }
        let most = kvm.get_max_vcpus().min(boot::VCPUS_MAX as usize) as u32;
        if vcpus == 0 || vcpus > most {
            return Err(Error::VcpuLimit { vcpus, most });
        }
        let deadline_timer = kvm.check_extension(Cap::TscDeadlineTimer);
        let vm = Vm::create(&kvm, Origin::Pc { start, vcpus, deadline_timer })?;
        vm.fd.set_tss_address(KVM_TSS_BASE as usize).map_err(Error::kvm("placing KVM's own pages"))?;
        vm.fd.create_irq_chip().map_err(Error::kvm("making interrupt controllers"))?;
        let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
        vm.fd.create_pit2(timer).map_err(Error::kvm("making the timer"))?;
        for ((range, offset), slot) in layout.parts().zip(0..) {
            let (start, bytes) = (ram.address() as u64 + offset, range.end - range.start);
            // SAFETY: the mapping outlives the guest's last instruction, by the contract of `Ram`; Rust looks
            // at it through raw pointers only.
            unsafe { map(&vm.fd, slot, range.start, start, bytes) }?;
        }
        Ok(vm)
    }

    /// Has each write to `event` be an edge of this interrupt.
    pub fn register_interrupt(&self, interrupt: u32, event: &EventFd) -> Result<(), Error> {
        self.fd.register_irqfd(event, interrupt).map_err(Error::kvm("registering an irqfd"))
    }

    /// ACPI's interrupt line.
    pub fn sci(&self) -> SciLine {
        SciLine(self.fd.clone())
    }

    /// Makes a vCPU of a PC what it is at the start.
    pub(super) fn start_pc(&self, fd: &VcpuFd, start: &boot::Start, processor: cpuid::Processor) -> Result<(), Error> {
        fd.set_cpuid2(&cpuid::of(&self.cpuid, processor)?).map_err(Error::kvm("setting the CPU's features"))?;
        let cached = kvm_msr_entry { index: MSR_MTRR_DEFAULT, data: MTRR_WRITE_BACK, ..kvm_msr_entry::default() };
        let registers = Msrs::from_entries(&[cached]).map_err(|_| Error::KvmCapability("room for a register"))?;
        fd.set_msrs(&registers).map_err(Error::kvm("setting how memory is cached"))?;
        if processor.vcpu == 0 {
            let initial = fd.get_sregs().map_err(Error::kvm("reading special registers"))?;
            fd.set_sregs(&special(initial, start)).map_err(Error::kvm("setting special registers"))?;
            let general =
                kvm_regs { rip: start.rip, rbx: start.rbx, rsi: start.rsi, rflags: RFLAGS, ..kvm_regs::default() };
            fd.set_regs(&general).map_err(Error::kvm("setting registers"))?;
        }
        Ok(())
    }
}

/// Segments, control registers and tables; what `initial` has besides (the APIC's base) stays.
fn special(initial: kvm_sregs, start: &boot::Start) -> kvm_sregs {
    let [code, data, task] = [start.code, start.data, start.task].map(segment);
    let gdt = kvm_dtable { base: start.gdt_base, limit: start.gdt_limit, ..kvm_dtable::default() };
    let segments = kvm_sregs { cs: code, ds: data, es: data, fs: data, gs: data, ss: data, tr: task, ..initial };
    let &boot::Start { cr0, cr3, cr4, efer, .. } = start;
    kvm_sregs { gdt, idt: kvm_dtable::default(), cr0, cr3, cr4, efer, ..segments }
}

fn segment(segment: boot::Segment) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.kind,
        present: 1,
        dpl: 0,
        db: segment.wide.into(),
        s: segment.user.into(),
        l: segment.long.into(),
        g: segment.pages.into(),
        ..kvm_segment::default()
    }
}
