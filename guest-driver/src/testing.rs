//! A machine of ordinary memory for tests. Its clock goes by how often it is looked at, so that runs repeat
//! exactly.

use std::boxed::Box;
use std::string::String;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::vec;
use std::vec::Vec;

use wire::machine::{
    BALLOON_BASE, BootInfo, CONSOLE_BASE, Control, DOORBELL_BASE, DOORBELL_PARK, VcpuReport, Workload,
};
use wire::mmio;

use crate::cpu::Cpu;
use crate::guest::BareGuest;
use crate::machine::Machine;
use crate::memory::{PAGE_WORDS, Ram};
use crate::virtio::transport::Transport;
use crate::virtio::transport::fake::FakeBalloon;

/// Looks at the machine that make a millisecond.
const LOOKS_PER_MS: u64 = 4;

/// What a test does to a running machine.
type Look = Box<dyn Fn(&TestMachine, u64) + Sync + Send>;

/// RAM in a vector.
#[derive(Debug)]
pub struct TestRam {
    _words: Vec<u64>,
    base: *mut u8,
    ram: Ram,
}

// SAFETY: the vector is never touched but through `ram`.
unsafe impl Sync for TestRam {}
// SAFETY: as above.
unsafe impl Send for TestRam {}

impl TestRam {
    /// So many pages, with junk in them: nobody may count on zeros.
    pub fn new(pages: u32) -> Self {
        let mut words = vec![0x0123_4567_89ab_cdef; pages as usize * PAGE_WORDS];
        let base = words.as_mut_ptr().cast();
        // SAFETY: the vector lives as long as this, and is not touched otherwise.
        let ram = unsafe { Ram::new(base, u64::from(pages) * 4096) };
        TestRam { _words: words, base, ram }
    }

    pub fn ram(&self) -> Ram {
        self.ram
    }
}

/// The machine.
pub struct TestMachine {
    pub ram: TestRam,
    pub boot: BootInfo,
    pub control: Control,
    pub reports: [VcpuReport; 2],
    pub device: Option<FakeBalloon>,
    pub console: Mutex<String>,
    looks: AtomicU64,
    scratch: Vec<AtomicU32>,
    stop_at_ms: u64,
    /// Called at every look with the time.
    at_look: Option<Look>,
}

impl TestMachine {
    pub fn new(pages: u32, workload: Workload) -> Self {
        let boot = BootInfo { seed: 42, ..BootInfo::new(u64::from(pages) * 4096, workload as u32) };
        TestMachine {
            ram: TestRam::new(pages),
            boot,
            control: Control::default(),
            reports: Default::default(),
            device: None,
            console: Mutex::default(),
            looks: AtomicU64::new(0),
            scratch: Vec::new(),
            stop_at_ms: u64::MAX,
            at_look: None,
        }
    }

    pub fn guest(mut self, guest: u32) -> Self {
        self.boot.guest = guest;
        self
    }

    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.boot.vcpus = vcpus;
        self
    }

    pub fn scratch_words(mut self, words: usize) -> Self {
        self.scratch = (0..words).map(|_| AtomicU32::new(0)).collect();
        self
    }

    pub fn stop_at_ms(mut self, ms: u64) -> Self {
        self.stop_at_ms = ms;
        self
    }

    pub fn at_look(mut self, action: impl Fn(&TestMachine, u64) + Sync + Send + 'static) -> Self {
        self.at_look = Some(Box::new(action));
        self
    }

    /// A balloon device with these features, that asks for so many pages from the start.
    pub fn balloon(mut self, features: &[u32], requested: u32, floor_pages: u32) -> Self {
        self.boot.balloon = 1;
        self.boot.floor_bytes = u64::from(floor_pages) * 4096;
        let device = FakeBalloon::new(self.ram.ram(), features);
        device.state().requested = requested;
        self.device = Some(device);
        self
    }

    pub fn device(&self) -> &FakeBalloon {
        self.device.as_ref().expect("a machine with a balloon")
    }

    fn registers(&self, gpa: u64) -> Option<(&FakeBalloon, u64)> {
        let offset = gpa.checked_sub(BALLOON_BASE).filter(|&offset| offset < mmio::WINDOW_BYTES)?;
        self.device.as_ref().map(|device| (device, offset))
    }
}

impl Machine for TestMachine {
    fn ram(&self) -> *mut u8 {
        self.ram.base
    }

    fn boot(&self) -> &BootInfo {
        &self.boot
    }

    fn control(&self) -> &Control {
        let now_ms = self.looks.fetch_add(1, Relaxed) / LOOKS_PER_MS;
        self.control.now_ms.store(now_ms, Relaxed);
        if let Some(action) = &self.at_look {
            action(self, now_ms);
        }
        if now_ms >= self.stop_at_ms {
            self.control.stop.store(1, Relaxed);
        }
        let pending = self.device.as_ref().is_some_and(|device| device.state().interrupt != 0);
        self.control.interrupt.store(u32::from(pending), Relaxed);
        &self.control
    }

    fn report(&self, vcpu: u32) -> &VcpuReport {
        &self.reports[vcpu as usize]
    }

    fn mmio_read(&self, gpa: u64) -> u32 {
        self.registers(gpa).map_or(0, |(device, offset)| device.read(offset))
    }

    fn mmio_write(&self, gpa: u64, value: u32) {
        if gpa == DOORBELL_BASE + DOORBELL_PARK {
            std::thread::yield_now();
            self.looks.fetch_add(u64::from(value) * LOOKS_PER_MS, Relaxed);
        } else if let Some((device, offset)) = self.registers(gpa) {
            device.write(offset, value);
        }
    }

    fn mmio_write_byte(&self, gpa: u64, value: u8) {
        if gpa == CONSOLE_BASE {
            self.console.lock().unwrap().push(char::from(value));
        }
    }

    fn scratch(&self) -> &[AtomicU32] {
        &self.scratch
    }
}

/// Runs `body` on a started vCPU 0.
pub fn on_cpu<R>(machine: TestMachine, body: impl FnOnce(&mut Cpu<'_, TestMachine>) -> R) -> R {
    let guest = BareGuest::new(machine);
    let mut cpu = guest.start(0).unwrap();
    body(&mut cpu)
}
