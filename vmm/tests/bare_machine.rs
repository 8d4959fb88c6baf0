//! Hand-assembled guests on real KVM vCPUs: what the bare machine promises, and what becomes of a guest that
//! breaks its rules.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use vmm::{
    Error,
    board::{Board, Bus, Firmware, InterruptLine, MmioDevice},
    kvm::{self, Registers, Vm},
    sys::{mapping::Mapping, ram::Ram},
    vcpus::Vcpus,
};
use vmm_sys_util::eventfd::EventFd;
use wire::machine::{BALLOON_BASE, BootInfo, IMAGE_BASE, Workload};

const RAM_BYTES: usize = 64 << 20;
/// For things that take milliseconds.
const LONG: Duration = Duration::from_secs(10);

/// Declares a guest: assembly between two labels. At the start, rdi is the vCPU's number; the macro's users
/// find the doorbell in rbx, the balloon's window in rbp and the vCPU's report in r12.
macro_rules! guest {
    ($name:ident, $($line:literal),+ $(,)?) => {
        mod $name {
            std::arch::global_asm!(
                ".pushsection .text",
                // The code that refers to them may be in another object file.
                concat!(".globl guest_", stringify!($name), "_start, guest_", stringify!($name), "_end"),
                concat!("guest_", stringify!($name), "_start:"),
                "movabs rbx, {doorbell}",
                "movabs rbp, {balloon}",
                "movabs r12, {report}",
                "mov rax, rdi",
                "shl rax, 8",
                "add r12, rax",
                $($line,)+
                concat!("guest_", stringify!($name), "_end:"),
                ".popsection",
                doorbell = const wire::machine::DOORBELL_BASE,
                balloon = const wire::machine::BALLOON_BASE,
                report = const wire::machine::REPORT_BASE,
            );

            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name), "_start")]
                static START: u8;
                #[link_name = concat!("guest_", stringify!($name), "_end")]
                static END: u8;
            }

            pub fn code() -> &'static [u8] {
                let (start, end) = (&raw const START, &raw const END);
                // SAFETY: both labels are in the block of assembly above, in this order, and code is
                // constant.
                unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
            }
        }
    };
}

guest!(exits_with_its_number, "add edi, 40", "mov [rbx + 4], edi");
guest!(counts_forever, "2: inc qword ptr [r12]", "jmp 2b");
guest!(parks_forever, "2: inc qword ptr [r12]", "mov dword ptr [rbx], 1000", "jmp 2b");
guest!(illegal_instruction, "mov eax, 7", "ud2");
guest!(touches_unmapped, "movabs rax, 0x123456789000", "mov [rax], eax");
guest!(runs_in_ram, "mov byte ptr [0x1000], 0xeb", "mov byte ptr [0x1001], 0xfe", "mov eax, 0x1000", "jmp rax");
guest!(reads_ram, "mov eax, [0x5000]", "mov [rbx + 4], eax");
guest!(
    adds_in_sse,
    "mov eax, 20",
    "cvtsi2sd xmm0, eax",
    "addsd xmm0, xmm0",
    "cvttsd2si eax, xmm0",
    "push rax",
    "pop rcx",
    "mov [rbx + 4], ecx"
);
guest!(
    negates_registers,
    "mov eax, [rbp]",
    "not eax",
    "mov [rbp + 4], eax",
    "mov al, [rbp + 8]",
    "mov [rbp + 12], al",
    "mov dword ptr [rbx + 4], 0"
);
guest!(notifies, "mov dword ptr [rbp + 0x50], 3", "mov dword ptr [rbp + 0x50], 4", "mov dword ptr [rbx + 4], 0",);
guest!(
    touches_all_of_ram,
    "xor esi, esi",
    "2: mov [rsi], rsi",
    "add rsi, 4096",
    "cmp rsi, 0x4000000",
    "jb 2b",
    "xor esi, esi",
    "2: cmp [rsi], rsi",
    "jne 3f",
    "add rsi, 4096",
    "cmp rsi, 0x4000000",
    "jb 2b",
    "mov dword ptr [rbx + 4], 0",
    "3: mov dword ptr [rbx + 4], 1",
);

/// A machine around one of the guests above.
struct Bench {
    ram: Mapping,
    board: Arc<Board>,
    vm: Vm,
    vcpus: Vcpus,
}

/// Says so past the test harness's capture, or nobody would see it.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

impl Bench {
    /// `None`, loudly, where there is no KVM.
    fn new(code: &[u8], vcpus: u32) -> Option<Self> {
        Self::with_bus(code, vcpus, Bus::default())
    }

    fn with_bus(code: &[u8], vcpus: u32, bus: Bus) -> Option<Self> {
        if let Err(error @ Error::KvmMissing) = kvm::open() {
            skipped(&error.to_string());
            return None;
        }
        let memory = Mapping::anonymous(RAM_BYTES).unwrap();
        // SAFETY: `Bench::end` joins the vCPUs before `memory` goes, and nobody refers to what is in it.
        let ram = unsafe { Ram::new(memory.address(), RAM_BYTES as u64) };
        let mut firmware = Firmware::new(boot(vcpus)).unwrap();
        let start = firmware.load(&image(code)).unwrap();
        assert_eq!(start.entry, IMAGE_BASE);
        let firmware = Arc::new(firmware);
        let board = Arc::new(Board::new(firmware.clone(), bus, Arc::default()));
        let vm = Vm::new(ram, firmware, start).unwrap();
        let vcpus = Vcpus::kvm(&vm, board.clone()).unwrap();
        Some(Self { ram: memory, board, vm, vcpus })
    }

    fn operations(&self, vcpu: u32) -> u64 {
        self.board.firmware.report(vcpu).operations.load(Ordering::Relaxed)
    }

    /// Runs to the guest's own end.
    fn finish(self) -> Result<Vec<u32>, Error> {
        self.vcpus.resume();
        assert!(self.vcpus.wait(LONG), "the guest does not end");
        self.vcpus.join()
    }

    /// Ends a guest that would not.
    fn kill(self) {
        self.vcpus.kill();
        assert!(matches!(self.vcpus.join(), Err(Error::VcpuKilled(0))));
    }
}

fn boot(vcpus: u32) -> BootInfo {
    BootInfo { vcpus, ..BootInfo::new(RAM_BYTES as u64, Workload::Idle as u32) }
}

/// The smallest ELF file that holds `code`.
fn image(code: &[u8]) -> Vec<u8> {
    let length = code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([IMAGE_BASE, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    file.extend([1u32, 5].map(u32::to_le_bytes).concat());
    file.extend([120, IMAGE_BASE, IMAGE_BASE, length, length, 16].map(u64::to_le_bytes).concat());
    file.extend(code);
    file
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::yield_now();
    }
}

#[test]
fn every_vcpu_starts_with_its_number_and_exits_with_its_code() {
    let Some(bench) = Bench::new(exits_with_its_number::code(), 4) else { return };
    assert_eq!(bench.finish().unwrap(), [40, 41, 42, 43]);
}

#[test]
fn sse_and_the_stack_work() {
    let Some(bench) = Bench::new(adds_in_sse::code(), 1) else { return };
    assert_eq!(bench.finish().unwrap(), [40]);
}

#[test]
fn all_of_ram_is_memory() {
    let Some(bench) = Bench::new(touches_all_of_ram::code(), 1) else { return };
    assert_eq!(bench.finish().unwrap(), [0]);
}

#[test]
fn nothing_runs_before_it_is_told_to() {
    let Some(bench) = Bench::new(counts_forever::code(), 2) else { return };
    assert_eq!(bench.vcpus.thread_ids().len(), 2);
    for (vcpu, tid) in bench.vcpus.thread_ids().into_iter().enumerate() {
        let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm")).unwrap();
        assert_eq!(name.trim(), format!("vcpu{vcpu}"));
    }
    thread::yield_now();
    assert_eq!((bench.operations(0), bench.operations(1)), (0, 0));
    bench.kill();
}

/// Register values; the guest sees 0x5a everywhere.
#[derive(Default)]
struct Probe(Mutex<Vec<(u64, Vec<u8>)>>);

impl MmioDevice for Probe {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0x5a);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.lock().unwrap().push((offset, data.to_vec()));
    }
}

fn probe() -> (Arc<Probe>, Bus) {
    let (probe, mut bus) = (Arc::new(Probe::default()), Bus::default());
    bus.attach(BALLOON_BASE, 0x1000, probe.clone()).unwrap();
    (probe, bus)
}

#[test]
fn register_accesses_reach_the_device_with_their_width() {
    let (probe, bus) = probe();
    let Some(bench) = Bench::with_bus(negates_registers::code(), 1, bus) else { return };
    bench.finish().unwrap();
    assert_eq!(*probe.0.lock().unwrap(), [(4, vec![0xa5; 4]), (12, vec![0x5a])]);
}

#[test]
fn a_notification_signals_its_event_and_only_others_exit() {
    let (probe, bus) = probe();
    let Some(bench) = Bench::with_bus(notifies::code(), 1, bus) else { return };
    let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    bench.vm.register_ioevent(BALLOON_BASE + 0x50, 3, &event).unwrap();
    bench.finish().unwrap();
    assert_eq!(event.read().unwrap(), 1);
    assert_eq!(*probe.0.lock().unwrap(), [(0x50, vec![4, 0, 0, 0])]);
}

/// Where a guest was that ended by an exception; `None`, loudly, on CPUs that do not say.
fn stopped_at(bench: Bench) -> Option<Registers> {
    match bench.finish() {
        Err(Error::VcpuStopped { registers, .. }) if registers.are_lost() => {
            skipped("this CPU loses the registers on a triple fault");
            None
        }
        Err(Error::VcpuStopped { registers, .. }) => Some(*registers),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_exception_ends_the_guest_and_says_where() {
    let Some(bench) = Bench::new(illegal_instruction::code(), 2) else { return };
    let Some(registers) = stopped_at(bench) else { return };
    assert_eq!(registers.rip, IMAGE_BASE + illegal_instruction::code().len() as u64 - 2);
    assert_eq!((registers.rax, registers.cs & 3), (7, 3));
}

#[test]
fn an_access_outside_of_the_machine_ends_the_guest() {
    let Some(bench) = Bench::new(touches_unmapped::code(), 1) else { return };
    let Some(registers) = stopped_at(bench) else { return };
    assert_eq!(registers.cr2, 0x1234_5678_9000);
}

#[test]
fn ram_cannot_be_executed() {
    let Some(bench) = Bench::new(runs_in_ram::code(), 1) else { return };
    let Some(registers) = stopped_at(bench) else { return };
    assert_eq!(registers.rip, 0x1000);
}

#[test]
fn a_paused_guest_stands_still_and_goes_on_where_it_was() {
    let Some(bench) = Bench::new(counts_forever::code(), 2) else { return };
    for _ in 0..200 {
        let before = [bench.operations(0), bench.operations(1)];
        bench.vcpus.resume();
        wait_until("progress", || bench.operations(0) > before[0] && bench.operations(1) > before[1]);
        bench.vcpus.pause(LONG).unwrap();
        let paused = [bench.operations(0), bench.operations(1)];
        thread::yield_now();
        assert_eq!([bench.operations(0), bench.operations(1)], paused);
    }
    bench.kill();
}

#[test]
fn a_pause_right_after_a_resume_is_not_lost() {
    let Some(bench) = Bench::new(counts_forever::code(), 2) else { return };
    // Every delay there can be between the vCPUs' waking and their entry into the guest, again and again.
    for round in 0..2000 {
        bench.vcpus.resume();
        let resumed = Instant::now();
        while resumed.elapsed() < Duration::from_nanos(round % 200 * 500) {
            std::hint::spin_loop();
        }
        bench.vcpus.pause(LONG).unwrap();
    }
    bench.kill();
}

#[test]
fn a_parked_guest_wakes_for_an_interrupt() {
    let Some(bench) = Bench::new(parks_forever::code(), 1) else { return };
    let line = InterruptLine::new(bench.board.firmware.clone(), bench.board.gate.clone());
    bench.vcpus.resume();
    let start = Instant::now();
    for _ in 0..50 {
        let before = bench.operations(0);
        line.set(true);
        wait_until("waking", || bench.operations(0) > before);
        line.set(false);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "parks ran into their timeouts: {:?}", start.elapsed());
    bench.kill();
}

#[test]
fn a_parked_guest_pauses_at_once() {
    let Some(bench) = Bench::new(parks_forever::code(), 2) else { return };
    let start = Instant::now();
    for _ in 0..50 {
        let before = bench.operations(0);
        bench.vcpus.resume();
        wait_until("progress", || bench.operations(0) > before);
        bench.vcpus.pause(LONG).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "parks ran into their timeouts: {:?}", start.elapsed());
    bench.kill();
}

#[test]
fn a_park_ends_by_itself() {
    let Some(bench) = Bench::new(parks_forever::code(), 1) else { return };
    bench.vcpus.resume();
    wait_until("the second park", || bench.operations(0) >= 2);
    bench.kill();
}

#[test]
fn a_vcpu_that_waits_for_a_page_can_be_paused_and_gets_its_page_later() {
    let Some(bench) = Bench::new(reads_ram::code(), 1) else { return };
    let uffd = userfaultfd::UffdBuilder::new().user_mode_only(false).non_blocking(true).create().unwrap();
    let address = bench.ram.address();
    uffd.register(address.as_ptr().cast(), bench.ram.bytes()).unwrap();
    bench.vcpus.resume();
    wait_until("the fault", || uffd.read_event().unwrap().is_some());
    bench.vcpus.pause(LONG).unwrap();
    bench.vcpus.resume();
    let page = Box::new([77u8; 4096]);
    let to = address.as_ptr().wrapping_add(0x5000);
    // SAFETY: a page of the mapping, registered and missing; the source is a whole page.
    let copied = unsafe { uffd.copy(page.as_ptr().cast(), to.cast(), page.len(), true) };
    assert_eq!(copied.unwrap(), 4096);
    assert_eq!(bench.finish().unwrap(), [0x4d4d_4d4d]);
}
