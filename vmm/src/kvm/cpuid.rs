//! What the vCPUs of a PC say of themselves (CPUID): what KVM can do, and which of so many each one is.
//!
//! Nothing is hidden of what KVM offers. Its own leaves among it (0x4000_0000 on) are what a guest needs to
//! find a clock that goes on over pauses, to know of time that it did not get, and to do something else while
//! a page comes back (kvmclock, steal time, asynchronous page faults).

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::Error;

/// Leaf 1, ECX: the interrupt controller has numbers of 32 bits.
const X2APIC: u32 = 1 << 21;
/// Leaf 1, ECX: its timer goes by the processor's clock.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: there may be more than one processor in the package.
const HTT: u32 = 1 << 28;

/// Leaves that say which processor this is: Intel's, its successor, AMD's.
const TOPOLOGY: [u32; 3] = [0xb, 0x1f, 0x8000_0026];
/// Kinds of their levels.
const LEVEL_THREADS: u32 = 1;
const LEVEL_CORES: u32 = 2;

/// One of a guest's processors, each a core of its own in the one package.
#[derive(Clone, Copy, Debug)]
pub struct Processor {
    /// Its number, which is its interrupt controller's as well.
    pub vcpu: u32,
    /// How many there are, at most 255.
    pub vcpus: u32,
    /// Whether interrupt controllers have a timer that goes by the processor's clock.
    pub deadline_timer: bool,
}

/// What `processor` says, of what KVM supports.
pub fn of(supported: &CpuId, processor: Processor) -> Result<CpuId, Error> {
    let mut entries: Vec<_> =
        supported.as_slice().iter().copied().filter(|entry| !TOPOLOGY.contains(&entry.function)).collect();
    entries.iter_mut().for_each(|entry| settle(entry, processor));
    if entries.iter().any(|entry| entry.function == 0 && entry.eax >= TOPOLOGY[0]) {
        entries.extend(topology(processor));
    }
    // It only fails where there are too many.
    CpuId::from_entries(&entries).map_err(|_| Error::KvmCapability("room for what the CPU says of itself"))
}

fn settle(entry: &mut kvm_cpuid_entry2, processor: Processor) {
    let Processor { vcpu, vcpus, deadline_timer } = processor;
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | vcpus << 16 | vcpu << 24;
            entry.ecx |= HYPERVISOR | X2APIC | if deadline_timer { TSC_DEADLINE } else { 0 };
            entry.edx = entry.edx & !HTT | if vcpus > 1 { HTT } else { 0 };
        }
        // Intel's caches: how many processors have this one in common (only the last level's), cores of the
        // package.
        4 if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 { vcpus - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14 | (vcpus - 1).min(63) << 26;
        }
        // AMD's: threads of the package, and bits of their numbers.
        0x8000_0008 => entry.ecx = (vcpus - 1) | bits(vcpus) << 12,
        // AMD's caches, as Intel's.
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 { vcpus - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14;
        }
        // AMD's: its number, its core's with one thread, the one node.
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (vcpu, vcpu, 0),
        _ => {}
    }
}

/// Level by level: one thread of each core, all cores, nothing.
fn topology(Processor { vcpu, vcpus, .. }: Processor) -> impl Iterator<Item = kvm_cpuid_entry2> {
    let levels = [(0, 1, LEVEL_THREADS), (bits(vcpus), vcpus, LEVEL_CORES), (0, 0, 0)];
    (0..).zip(levels).map(move |(index, (eax, ebx, kind))| kvm_cpuid_entry2 {
        function: TOPOLOGY[0],
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: index | kind << 8,
        edx: vcpu,
        ..kvm_cpuid_entry2::default()
    })
}

/// Bits that numbers below this one need.
fn bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let entry = |function, eax, ebx, ecx| kvm_cpuid_entry2 { function, eax, ebx, ecx, ..Default::default() };
        CpuId::from_entries(&[
            entry(0, 0x1f, 0, 0),
            entry(1, 0x0080_0f12, 0xff07_0800, 1),
            entry(0xb, 1, 2, 0x100),
            entry(0x4000_0001, 0x0100_007f, 0, 0),
            entry(0x8000_0008, 0x3030, 0, 0x500f),
        ])
        .unwrap()
    }

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> [u32; 4] {
        let found: Vec<_> =
            cpuid.as_slice().iter().filter(|entry| (entry.function, entry.index) == (function, index)).collect();
        assert_eq!(found.len(), 1, "{function:#x} {index}");
        [found[0].eax, found[0].ebx, found[0].ecx, found[0].edx]
    }

    #[test]
    fn each_processor_says_which_it_is_and_how_many_there_are() {
        let cpuid = of(&supported(), Processor { vcpu: 2, vcpus: 3, deadline_timer: true }).unwrap();
        assert_eq!(leaf(&cpuid, 1, 0), [0x0080_0f12, 0x0203_0800, 1 | HYPERVISOR | X2APIC | TSC_DEADLINE, HTT]);
        assert_eq!(leaf(&cpuid, 0xb, 0), [0, 1, 0x100, 2]);
        assert_eq!(leaf(&cpuid, 0xb, 1), [2, 3, 0x201, 2]);
        assert_eq!(leaf(&cpuid, 0xb, 2), [0, 0, 2, 2]);
        assert_eq!(leaf(&cpuid, 0x8000_0008, 0), [0x3030, 0, 0x2002, 0]);
    }

    #[test]
    fn what_kvm_offers_of_its_own_stays() {
        let cpuid = of(&supported(), Processor { vcpu: 0, vcpus: 1, deadline_timer: false }).unwrap();
        assert_eq!(leaf(&cpuid, 0x4000_0001, 0)[0], 0x0100_007f);
        assert_eq!(leaf(&cpuid, 1, 0)[2..], [1 | HYPERVISOR | X2APIC, 0]);
    }
}
