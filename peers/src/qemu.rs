//! QEMU's `microvm` with its `virtio-balloon-device`, and our bare guest in it.
//!
//! The guest is started by its PVH entry, stopped by a byte on its serial port, and its counters are read
//! from its memory by QMP (`pmemsave`), so all that is known of it comes through QEMU.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::mem::offset_of;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use wire::machine::{FIRMWARE_BASE, PVH_FIRMWARE_BASE, REPORT_BASE, VcpuReport};

use crate::console::Console;
use crate::{PATIENCE, find, wait_for};

const DEVICE: &str = "/machine/peripheral/balloon";

/// Who runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU itself.
    Software,
    /// KVM.
    Kvm,
}

/// What is started.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Guest memory; all of it is resident from the start if `populated`.
    pub memory_mib: u64,
    /// See `memory_mib`.
    pub populated: bool,
    /// Who runs it.
    pub accelerator: Accelerator,
    /// Properties of the balloon device, `free-page-reporting=on,...`.
    pub device: &'a str,
    /// The guest's words (`guest_driver::command_line`).
    pub command_line: &'a str,
}

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    process: Child,
    monitor: BufReader<UnixStream>,
    keyboard: ChildStdin,
    console: Console,
    memory_bytes: u64,
    folder: TempDir,
}

/// The guest's own counters.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Operations of its workload.
    pub operations: u64,
    /// Pages read and found right.
    pub pages_verified: u64,
    /// Pages read and found wrong.
    pub pages_corrupt: u64,
    /// Allocations that found nothing.
    pub allocation_failures: u64,
}

impl Qemu {
    /// Starts `image` on this machine, paused before its first instruction; why not, if QEMU is not
    /// installed.
    pub fn start(image: &[u8], machine: &Machine<'_>) -> Result<Qemu, String> {
        let program = find(&["/usr/bin/qemu-system-x86_64"]).ok_or("no QEMU (Debian package qemu-system-x86)")?;
        let folder = tempfile::tempdir().expect("a folder for QEMU");
        let kernel = folder.path().join("guest");
        fs::write(&kernel, image).expect("writing the guest's image");
        let accelerator = match machine.accelerator {
            Accelerator::Software => "tcg",
            Accelerator::Kvm => "kvm",
        };
        let (mib, populated) = (machine.memory_mib, if machine.populated { "on" } else { "off" });
        let socket = folder.path().join("monitor");
        let mut command = Command::new(program);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-S"])
            // Without ACPI, devices are announced on the command line.
            .args(["-M", &format!("microvm,acpi=off,rtc=off,accel={accelerator},memory-backend=ram")])
            .args(["-m", &format!("{mib}M"), "-name", "guest,debug-threads=on"])
            .args(["-object", &format!("memory-backend-ram,id=ram,size={mib}M,prealloc={populated}")])
            .args(["-object", "iothread,id=iothread", "-global", "virtio-mmio.force-legacy=false"])
            .args(["-device", &format!("virtio-balloon-device,id=balloon{}{}", comma(machine.device), machine.device)])
            .args(["-append", machine.command_line, "-kernel"])
            .arg(&kernel)
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]);
        let (mut process, keyboard, console) = Console::start(&mut command);
        let stream = wait_for("QEMU's monitor", || {
            let ended = process.try_wait().expect("QEMU's state");
            assert!(ended.is_none(), "QEMU ended at its start: {ended:?}");
            UnixStream::connect(&socket).ok()
        });
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let monitor = BufReader::new(stream);
        let mut qemu = Qemu { process, monitor, keyboard, console, memory_bytes: mib << 20, folder };
        qemu.line();
        qemu.execute("qmp_capabilities", &json!({}));
        Ok(qemu)
    }

    /// Lets the guest run.
    pub fn resume(&mut self) {
        self.execute("cont", &json!({}));
    }

    /// One QMP command and its answer, which must not be an error.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.monitor.get_mut(), "{request}").expect("QEMU's monitor");
        loop {
            let answer = self.line();
            assert!(answer.get("error").is_none(), "{request}: {answer}");
            if let Some(value) = answer.get("return") {
                return value.clone();
            }
        }
    }

    /// Wishes for a balloon of so many bytes.
    pub fn request(&mut self, bytes: u64) {
        let value = self.memory_bytes - bytes;
        self.execute("balloon", &json!({"value": value}));
    }

    /// Bytes in the balloon, by the driver's word.
    pub fn balloon_bytes(&mut self) -> u64 {
        let balloon = self.execute("query-balloon", &json!({}));
        self.memory_bytes - balloon["actual"].as_u64().expect("a size")
    }

    /// Wishes for a balloon, and waits until it has that size.
    pub fn settle(&mut self, bytes: u64) {
        self.request(bytes);
        wait_for(&format!("a balloon of {bytes} bytes"), || (self.balloon_bytes() == bytes).then_some(()));
    }

    /// Has the device ask for statistics every so many seconds.
    pub fn poll_statistics(&mut self, seconds: u64) {
        let property = "guest-stats-polling-interval";
        self.execute("qom-set", &json!({"path": DEVICE, "property": property, "value": seconds}));
    }

    /// The last statistics: `last-update`, and `stats` by QEMU's names.
    pub fn statistics(&mut self) -> Value {
        self.execute("qom-get", &json!({"path": DEVICE, "property": "guest-stats"}))
    }

    /// Memory that QEMU takes, the guest's included, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("a running QEMU");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("anonymous memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// CPU seconds of the threads whose name (`comm`) is wanted. vCPUs are `CPU 0/KVM` or `CPU 0/TCG`.
    pub fn cpu_seconds(&self, wanted: impl Fn(&str) -> bool) -> f64 {
        let threads = fs::read_dir(self.proc("task")).expect("a running QEMU").flatten();
        let nanoseconds = threads.filter_map(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            wanted(name.trim_end()).then(|| times.split(' ').next()?.parse::<u64>().ok())?
        });
        nanoseconds.sum::<u64>() as f64 / 1e9
    }

    /// What the guest counts.
    pub fn report(&mut self) -> Report {
        let file = self.folder.path().join("report");
        let at = PVH_FIRMWARE_BASE + (REPORT_BASE - FIRMWARE_BASE);
        let bytes = size_of::<VcpuReport>();
        self.execute("pmemsave", &json!({"val": at, "size": bytes, "filename": file}));
        let report = fs::read(file).expect("the saved report");
        assert_eq!(report.len(), bytes, "the saved report");
        let counter = |offset: usize| {
            report[offset..offset + 8].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
        };
        Report {
            operations: counter(offset_of!(VcpuReport, operations)),
            pages_verified: counter(offset_of!(VcpuReport, pages_verified)),
            pages_corrupt: counter(offset_of!(VcpuReport, pages_corrupt)),
            allocation_failures: counter(offset_of!(VcpuReport, allocation_failures)),
        }
    }

    /// Waits until the guest has verified so many more pages.
    pub fn work(&mut self, pages: u64) {
        let before = self.report().pages_verified;
        wait_for("the guest's work", || (self.report().pages_verified >= before + pages).then_some(()));
    }

    /// Has the guest verify all it holds, and end; its exit code.
    pub fn stop(&mut self) -> u32 {
        self.keyboard.write_all(b"s").expect("QEMU's serial port");
        wait_for("the guest's end", || self.said().lines().find_map(|line| line.strip_prefix("exit ")?.parse().ok()))
    }

    /// Everything the guest said.
    pub fn said(&self) -> String {
        self.console.said()
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.id()))
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.monitor.read_line(&mut line).expect("an answer of QEMU's");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("QEMU's monitor said {line:?}: {error}"))
    }
}

fn comma(properties: &str) -> &'static str {
    if properties.is_empty() { "" } else { "," }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
