//! Inflating and deflating: the same guest image, with the same driver, under our device and under QEMU's,
//! both on KVM.
//!
//! ```text
//!   all of RAM resident --> 4 MiB in the balloon: the driver is up --> 196 MiB --> 4 MiB
//!                                                                   inflate    deflate
//! ```
//!
//! *Device CPU* is that of all the VMM's threads but the vCPU's. QEMU is asked for its balloon's size over
//! QMP, on the thread that works the device; what that costs is measured before, and taken off.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use peers::qemu::{self, Accelerator, Qemu};
use serde::Serialize;
use vmm::BARE_GUEST;
use wire::machine::Workload;

use crate::{
    balloon::guest::{Guest, GuestSpec},
    kit::{clocks, error::Error, report::median},
};

const MEMORY_MIB: u64 = 256;
const SMALL_BYTES: u64 = 4 << 20;
/// Bytes that go into the balloon and come back.
pub const MOVED_BYTES: u64 = 192 << 20;
/// Bytes that may be missing when memory is called lower: the VMM has its own comings and goings.
const SLACK_BYTES: u64 = 2 << 20;
/// Times that sides take turns, a new guest each time.
const ROUNDS: usize = 5;
/// Between two looks at what is resident.
const LOOK: Duration = Duration::from_millis(1);
/// Looks between two questions for the size of QEMU's balloon.
const LOOKS_PER_QUESTION: u32 = 10;
/// Questions by which their cost is measured.
const CALIBRATION_QUESTIONS: u32 = 100;
const LIMIT: Duration = Duration::from_secs(60);

/// What one direction took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Move {
    /// From the request until the driver said that it is done.
    pub wall_seconds: f64,
    /// From the request until so much less was resident; of inflating only.
    pub resident_seconds: f64,
    /// CPU of the VMM, without its vCPU.
    pub device_cpu_seconds: f64,
    /// CPU of the vCPU. QEMU's guest waits in a loop, ours in the doorbell, so this is no comparison of
    /// drivers.
    pub vcpu_cpu_seconds: f64,
}

/// Medians of one side.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Side {
    /// Into the balloon.
    pub inflate: Move,
    /// And back.
    pub deflate: Move,
}

/// Both sides; no peer where there is none.
pub fn measure() -> Result<(Side, Option<Side>), Error> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(cycle(&mut Ours::start()?)?);
        match Theirs::start() {
            Ok(mut qemu) => theirs.push(cycle(&mut qemu)?),
            Err(why) => eprintln!("SKIPPED: QEMU's side: {why}"),
        }
    }
    Ok((medians(&ours), (!theirs.is_empty()).then(|| medians(&theirs))))
}

/// A VMM with a guest.
trait Vmm {
    fn request(&mut self, bytes: u64);
    fn balloon_bytes(&mut self) -> u64;
    fn resident_bytes(&self) -> Result<u64, Error>;
    /// CPU seconds so far: the device's side, and the vCPU's.
    fn cpu_seconds(&self) -> Result<(f64, f64), Error>;
    /// To be called every few milliseconds.
    fn tick(&self) {}
    /// CPU seconds that a question for the balloon's size costs the device's side.
    fn question_seconds(&self) -> f64 {
        0.0
    }
    fn looks_per_question(&self) -> u32 {
        1
    }
}

fn cycle(vmm: &mut dyn Vmm) -> Result<(Move, Move), Error> {
    one_move(vmm, SMALL_BYTES)?;
    Ok((one_move(vmm, SMALL_BYTES + MOVED_BYTES)?, one_move(vmm, SMALL_BYTES)?))
}

fn one_move(vmm: &mut dyn Vmm, bytes: u64) -> Result<Move, Error> {
    let before = vmm.balloon_bytes();
    let lower = vmm.resident_bytes()?.saturating_sub(bytes.saturating_sub(before)).saturating_add(SLACK_BYTES);
    let (device_before, vcpu_before) = vmm.cpu_seconds()?;
    let begun = Instant::now();
    vmm.request(bytes);
    let (mut resident, mut questions, mut looks) = (None, 0, 0u32);
    let wall = loop {
        vmm.tick();
        if bytes > before && resident.is_none() && vmm.resident_bytes()? <= lower {
            resident = Some(begun.elapsed());
        }
        looks += 1;
        if looks.is_multiple_of(vmm.looks_per_question()) {
            questions += 1;
            if vmm.balloon_bytes() == bytes {
                break begun.elapsed();
            }
        }
        if begun.elapsed() > LIMIT {
            return Err(Error::Guest(format!("no balloon of {bytes} bytes in {} s", LIMIT.as_secs())));
        }
        thread::sleep(LOOK);
    };
    let (device, vcpu) = vmm.cpu_seconds()?;
    Ok(Move {
        wall_seconds: wall.as_secs_f64(),
        resident_seconds: resident.map_or(f64::NAN, |time| time.as_secs_f64()),
        device_cpu_seconds: device - device_before - f64::from(questions) * vmm.question_seconds(),
        vcpu_cpu_seconds: vcpu - vcpu_before,
    })
}

struct Ours(Guest);

impl Ours {
    fn start() -> Result<Ours, Error> {
        let guest = Guest::start(GuestSpec {
            memory_mib: MEMORY_MIB,
            balloon_mib: Some(0),
            workload: Workload::Idle,
            active_permille: None,
            filled: true,
            pager: false,
            prefetch: false,
        })?;
        guest.resume();
        Ok(Ours(guest))
    }
}

impl Vmm for Ours {
    fn request(&mut self, bytes: u64) {
        self.0.request(bytes);
    }

    fn balloon_bytes(&mut self) -> u64 {
        self.0.machine().balloon_status().actual_bytes
    }

    fn resident_bytes(&self) -> Result<u64, Error> {
        let path = "/proc/self/status";
        let status = fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| Error::Guest(format!("no RssAnon in {path}")))
    }

    fn cpu_seconds(&self) -> Result<(f64, f64), Error> {
        let main = fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let threads = clocks::threads()?;
        let vcpu = threads.get("vcpu0").copied().unwrap_or_default();
        let others = threads.iter().filter(|(name, _)| *name != main.trim_end() && *name != "vcpu0");
        let device: Duration = others.map(|(_, time)| *time).sum();
        Ok((device.as_secs_f64(), vcpu.as_secs_f64()))
    }

    fn tick(&self) {
        self.0.machine().tick();
    }
}

struct Theirs {
    qemu: Qemu,
    question_seconds: f64,
}

impl Theirs {
    fn start() -> Result<Theirs, String> {
        let machine = qemu::Machine {
            memory_mib: MEMORY_MIB,
            populated: true,
            accelerator: Accelerator::Kvm,
            device: "",
            // No serial port: see the guest's `microvm.rs`.
            command_line: "workload=idle quiet",
        };
        let mut qemu = Qemu::start(BARE_GUEST, &machine)?;
        qemu.resume();
        qemu.settle(SMALL_BYTES);
        let before = qemu.cpu_seconds(is_device);
        (0..CALIBRATION_QUESTIONS).for_each(|_| _ = qemu.balloon_bytes());
        let question_seconds = (qemu.cpu_seconds(is_device) - before) / f64::from(CALIBRATION_QUESTIONS);
        Ok(Theirs { qemu, question_seconds })
    }
}

fn is_device(thread: &str) -> bool {
    !thread.starts_with("CPU ")
}

impl Vmm for Theirs {
    fn request(&mut self, bytes: u64) {
        self.qemu.request(bytes);
    }

    fn balloon_bytes(&mut self) -> u64 {
        self.qemu.balloon_bytes()
    }

    fn resident_bytes(&self) -> Result<u64, Error> {
        Ok(self.qemu.resident_bytes())
    }

    fn cpu_seconds(&self) -> Result<(f64, f64), Error> {
        Ok((self.qemu.cpu_seconds(is_device), self.qemu.cpu_seconds(|name| !is_device(name))))
    }

    fn question_seconds(&self) -> f64 {
        self.question_seconds
    }

    fn looks_per_question(&self) -> u32 {
        LOOKS_PER_QUESTION
    }
}

fn medians(cycles: &[(Move, Move)]) -> Side {
    let of = |moves: Vec<Move>| {
        let figure = |figure: fn(&Move) -> f64| median(moves.iter().map(figure).collect());
        Move {
            wall_seconds: figure(|one| one.wall_seconds),
            resident_seconds: figure(|one| one.resident_seconds),
            device_cpu_seconds: figure(|one| one.device_cpu_seconds),
            vcpu_cpu_seconds: figure(|one| one.vcpu_cpu_seconds),
        }
    };
    let (inflations, deflations) = cycles.iter().copied().unzip();
    Side { inflate: of(inflations), deflate: of(deflations) }
}
